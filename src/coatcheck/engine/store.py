"""The port that a durable or shared store implements: what lies beneath memory.

A store keeps, for each owner, one session: an id and the entries written under it. The store owns the id. A write that
carries another id, or whose load is older than the floor of its key, is refused inside the one atomic step that would
have written it: so nothing that began before a clear or a delete is stored after it, whoever is late.

Times are ages, in seconds: by what clock a store dates its entries is its own affair.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple, Protocol

import msgspec

from coatcheck.engine.entry import Discreet


class Owner(NamedTuple):
    """Whose session: a user of one catalog."""

    catalog: str
    user: str

    def __repr__(self) -> str:
        return "<owner>"


class Record(Discreet, gc=False):
    """One entry, as it is stored.

    Attributes:
        resource: the resource's name.
        arguments: the bytes that stand for its arguments and for the authority under which it was loaded.
        body: the JSON bytes.
        age: seconds since its load started, at the moment of the call that hands it over.
    """

    resource: str
    arguments: bytes
    body: bytes
    age: float


class StoredSession(Discreet, gc=False):
    """What a store holds of one owner.

    Attributes:
        id: what writes must carry.
        records: the entries, in no order; none is from the future.
        rejected: stored copies that did not open, or were not this owner's: never handed out, and deleted.
    """

    id: bytes
    records: tuple[Record, ...] = ()
    rejected: int = 0


def checked(stored: Any) -> StoredSession:
    """Return what a store brought, if it is what the port says.

    Raises:
        TypeError: it is not.
    """
    told: Any = stored
    if (
        isinstance(stored, StoredSession)
        and isinstance(told.id, bytes)
        and isinstance(told.records, tuple)
        and isinstance(told.rejected, int)
        and all(map(_sound, stored.records))
    ):
        return stored
    raise TypeError


def _sound(record: Any) -> bool:
    told: Any = record
    return (
        isinstance(record, Record)
        and isinstance(told.resource, str)
        and isinstance(told.arguments, bytes)
        and isinstance(told.body, bytes)
        and isinstance(told.age, float | int)
    )


def is_closed(store: Store) -> bool:
    """Tell whether a store says that it is closed; one need not."""
    return getattr(store, "closed", False) is True


def claim(store: Store) -> bool:
    """Take a store for one cache, if it can be had by one only; tell whether it can.

    Raises:
        StoreInUse: another has it.
    """
    take = getattr(store, "claim", None)
    if not callable(take):
        return False
    take()
    return True


def is_shared(store: Store) -> bool:
    """Tell whether others than its cache may end sessions in a store; to be assumed unless it says otherwise."""
    return getattr(store, "shared", True) is not False


class Written(Enum):
    """What became of a write."""

    APPLIED = "applied"
    OVERTAKEN = "overtaken"
    """Something younger, or a delete after its load began, stands in its way."""
    ENDED = "ended"
    """The session that it carries is not the owner's any more."""


class StoreSize(msgspec.Struct, frozen=True, kw_only=True):
    """How much a store holds, as far as it can tell."""

    sessions: int
    entries: int
    bytes: int


class Store(Protocol):
    """A store. Its methods are awaited on any event loop, several at once.

    All may raise `StoreFailed`: it cannot do it now, or nobody can tell whether it did. What it says is logged, so it must
    hold nothing of what is stored. Of any other exception, which nobody expects, only kind and place are.
    Who awaits may be cancelled or go away; what was asked for may then be done or not.

    A store may have an attribute ``closed`` that is True once every call fails. A cache refuses to be made with such a one.
    A method ``claim()``, called when a cache is made, that raises `StoreInUse` if another cache has the store; it is one
    process's then, and a cache on it made before a fork raises `ForkedCache` in the child, used or not. And an attribute
    ``shared`` that is False if nobody but its cache clears sessions in it: one that has ended all the same, as for
    want of room, then only leaves the store. Without, it counts as cleared by somebody else, and leaves the memory, too.
    """

    async def open(self, owner: Owner) -> StoredSession:
        """Return the owner's session with all its entries, a new and empty one if there is none.

        Opening again brings the same id, until the session is cleared.
        """
        ...

    async def put(self, owner: Owner, session: bytes, record: Record, *, keep_for: float) -> Written:
        """Store one entry under its resource and arguments, in place of an older one.

        Overtaken if the start of its load is below the key's floor, or below that of the entry that is there. It may be
        lost to a power cut.

        Args:
            owner: whose.
            session: the id that `open()` brought.
            record: the entry.
            keep_for: after so many seconds from now `open()` brings it no longer, and it may be swept away.
        """
        ...

    async def delete(
        self, owner: Owner, session: bytes, resource: str, arguments: bytes | None, *, age: float = 0.0
    ) -> Written:
        """Remove a resource's entry under *arguments*, or all its entries under None.

        The keys' floor becomes *age* seconds ago. An entry whose load began by then goes, one whose load began later
        stays. A later write is overtaken if its load began before the floor. Dates closer than 10 microseconds count as
        equal: an entry of that very moment goes, and a write of that very moment is taken.
        """
        ...

    async def forget(self, catalog: str, resource: str, *, age: float = 0.0) -> None:
        """Do for every owner of *catalog* what `delete()` does for all entries of one.

        But a write of that very moment is overtaken: among so many nobody can tell it from what was there.
        """
        ...

    async def clear(self, owner: Owner) -> None:
        """End the owner's session: when this returns, nothing of it can come back, not even after a crash or power cut.

        Clearing an owner who has none does nothing.
        """
        ...

    async def clear_all(self, catalog: str) -> None:
        """Do the same for every owner of *catalog*."""
        ...

    async def aclose(self) -> None:
        """Write what is under way and let go of everything. May be repeated; every later call raises `StoreFailed`."""
        ...
