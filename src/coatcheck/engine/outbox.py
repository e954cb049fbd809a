"""How one session stands in the store: its id there, and the writes that are not applied yet."""

from __future__ import annotations

import asyncio  # noqa: TC003 - a Struct's annotations are read by whoever shows its signature
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from coatcheck.engine.entry import Discreet

if TYPE_CHECKING:
    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.entry import Entry


class Put(NamedTuple):
    """An entry to be stored."""

    resource: Resource[Any]
    key: str
    entry: Entry

    def __repr__(self) -> str:
        return f"<put: {self.resource.name}>"


class Delete(NamedTuple):
    """Entries to be removed.

    Attributes:
        resource: whose.
        key: the one under this key; None for all.
        since: loads that began before this count no more.
    """

    resource: Resource[Any]
    key: str | None
    since: float

    def __repr__(self) -> str:
        return f"<delete: {self.resource.name}>"


class Outbox(Discreet, gc=False, eq=False):
    """What leads from one state to the store. Changed under the cache's lock only.

    Attributes:
        authority: under which the session's data is loaded; None when nothing of it is to be stored.
        id: what writes carry; None until the store has told it.
        restored: what the store held was brought into memory, or is not to be.
        opening: the task that is bringing it.
        writes: what is to be written, in order; the first may be under way. None for nothing.
        draining: the task that applies them.
        pause: how long the next repair is put off, because nothing could be written after the last one.
        behind: with no authority to write under: what was stored before is being cleared, or has been.
    """

    authority: str | None = ""
    id: bytes | None = None
    restored: bool = False
    opening: asyncio.Task[None] | None = None
    writes: deque[Put | Delete] | None = None
    draining: asyncio.Task[None] | None = None
    pause: float = 0.0
    behind: bool = False

    def add(self, write: Put | Delete) -> deque[Put | Delete] | None:
        """Take in a write; return the writes if it is the first: then somebody has to begin to apply them."""
        if self.writes is not None:
            self.writes.append(write)
            return None
        self.writes = deque([write])
        return self.writes

    def abandon(self) -> None:
        """Write nothing more and bring nothing in: the store is asked for a new id when there is more to write."""
        self.id = None
        self.restored = True
        self.writes = self.draining = None
