"""Clears that could not be applied, noted beside the file of a SQLite store, so that they outlive the process.

A tombstone says that what is filed under a keyed digest, one owner's session or all of a catalog's, is not to be served
again, and is to be ended as soon as it can be. The file has its full size from the beginning: to note something takes
no room, so that a full disk does not keep it from being noted.

::

    slots     1,024 x 64 bytes, the first holds the mark of the file
    slot      kind (1 byte: 0 free, 1 an owner's, 2 a catalog's, 3 everybody's), digest (32 bytes), zeros
"""

from __future__ import annotations

import contextlib
import os
import stat
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from coatcheck.errors import StoreFailed
from coatcheck.stores.seal import DIGEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from coatcheck.engine.store import Owner
    from coatcheck.stores.seal import Seal

MARK: Final = b"coatcheck clears 1\n"
SLOTS: Final = 1024

_SLOT_BYTES: Final = 64
_BYTES: Final = SLOTS * _SLOT_BYTES
_PRIVATE: Final = 0o600
_HOW: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Grave(IntEnum):
    """Whose session a tombstone is of. Filed under the digests of `Seal.owners`, `Seal.catalogs`, and none."""

    OWNER = 1
    CATALOG = 2
    EVERYONE = 3


Stone = tuple[Grave, bytes]
EVERYONE: Final[Stone] = (Grave.EVERYONE, bytes(DIGEST_BYTES))


class Tombstones:
    """The tombstones of one store. Written by its writer; `covers` may be asked from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # By what they say, the slot that says it.
        self._stones: dict[Stone, int] = {}
        self._file: int | None = None

    def open(self) -> None:
        """Read what is noted, or begin the file.

        Raises:
            StoreFailed: there is something there that is not ours, or it cannot be used. It is left as it is.
        """
        problem: str | None = "it is not a store's"
        try:
            self._file = os.open(self._path, _HOW, _PRIVATE)
            if self._read(self._file):
                return
        except OSError as error:
            problem = error.strerror
        self.close()
        raise StoreFailed(f"there can be no list of clears at {self._path}: {problem}")

    def __repr__(self) -> str:
        return f"<{len(self._stones)} tombstones>"

    def pending(self) -> tuple[Stone, ...]:
        """Return what is to be ended."""
        return tuple(self._stones)

    def covers(self, seal: Seal, owner: Owner) -> bool:
        """Tell whether an owner's session is not to be served."""
        stones = self._stones
        return len(stones) > 0 and (
            EVERYONE in stones
            or any((Grave.OWNER, each.digest) in stones for each in seal.owners(owner))
            or any((Grave.CATALOG, each.digest) in stones for each in seal.catalogs(owner.catalog))
        )

    def put_up(self, stones: Iterable[Stone]) -> bool:
        """Note that clears could not be applied; tell whether it is on the disk."""
        if self._file is None:
            return False
        with contextlib.suppress(OSError):
            new = [stone for stone in stones if stone not in self._stones]
            free = sorted(set(range(1, SLOTS)) - set(self._stones.values()))
            if len(free) <= len(new):
                # One is left for this.
                new = [] if EVERYONE in self._stones else [EVERYONE]
            for stone, slot in zip(new, free, strict=False):
                # In memory first: that it cannot be written makes it no less true.
                self._stones[stone] = slot
                os.pwrite(self._file, bytes([stone[0]]) + stone[1], slot * _SLOT_BYTES)
            if new:
                os.fsync(self._file)
            return True
        return False

    def take_down(self, stones: Iterable[Stone]) -> None:
        """Note that clears are applied. One that is back after a power cut ends more than it has to, and no less."""
        for stone in stones:
            slot = self._stones.pop(stone, None)
            if slot is not None and self._file is not None:
                with contextlib.suppress(OSError):
                    os.pwrite(self._file, bytes(1 + DIGEST_BYTES), slot * _SLOT_BYTES)

    def close(self) -> None:
        """Let go of the file."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)

    def _read(self, file: int) -> bool:
        """Read what is noted, or begin the file; tell whether it is ours."""
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            return False
        content = os.pread(file, _BYTES, 0)
        if not (content.startswith(MARK) or MARK.startswith(content.rstrip(b"\0"))):
            return False
        os.fchmod(file, _PRIVATE)
        if len(content) < _BYTES:
            content = content[: len(content) // _SLOT_BYTES * _SLOT_BYTES] or MARK
            # Not a hole: room that is there when it is needed. Where there is none now, there are no tombstones yet.
            with contextlib.suppress(OSError):
                os.pwrite(file, content.ljust(_BYTES, b"\0"), 0)
                os.fsync(file)
        for slot in range(1, len(content) // _SLOT_BYTES):
            kind, digest = content[slot * _SLOT_BYTES], content[slot * _SLOT_BYTES + 1 :][:DIGEST_BYTES]
            if kind in set(Grave):
                self._stones[Grave(kind), digest] = slot
        return True
