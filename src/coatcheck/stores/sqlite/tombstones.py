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
import logging
import os
import stat
import threading
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from coatcheck.errors import StoreFailed
from coatcheck.stores.seal import DIGEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from coatcheck.engine.store import Owner
    from coatcheck.stores.seal import Seal

MARK: Final = b"coatcheck clears 1\n"
SLOTS: Final = 1024

_SLOT_BYTES: Final = 64
_BYTES: Final = SLOTS * _SLOT_BYTES
_PRIVATE: Final = 0o600
_BELONGS: Final = "it belongs to the store's file: delete both or none"
_HOW: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

logger = logging.getLogger("coatcheck.stores")


class Grave(IntEnum):
    """Whose session a tombstone is of. Filed under the digests of `Seal.owners`, `Seal.catalogs`, and none."""

    OWNER = 1
    CATALOG = 2
    EVERYONE = 3


Stone = tuple[Grave, bytes]
EVERYONE: Final[Stone] = (Grave.EVERYONE, bytes(DIGEST_BYTES))


def noted(path: Path) -> frozenset[Stone]:
    """Return what is noted in a list of clears, which is only read; nothing if there is no such file.

    Raises:
        StoreFailed: it is not a store's, or cannot be read.
    """
    problem: str | None = "it is not a store's"
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        problem = error.strerror
    else:
        try:
            content = os.pread(file, _BYTES, 0) if stat.S_ISREG(os.fstat(file).st_mode) else None
        finally:
            os.close(file)
        if content is not None and _is_ours(content):
            return frozenset(stone for stone, _ in _stones_in(content.ljust(_BYTES, b"\0")))
    raise StoreFailed(f"what is cleared cannot be read from {path}: {problem}; {_BELONGS}")


def covered(stones: Collection[Stone], owner: object, catalog: object) -> bool:
    """Tell whether what is filed under these digests is to be ended."""
    return EVERYONE in stones or (Grave.OWNER, owner) in stones or (Grave.CATALOG, catalog) in stones


def _is_ours(content: bytes) -> bool:
    return content.startswith(MARK) or MARK.startswith(content.rstrip(b"\0"))


def _stones_in(content: bytes) -> Iterator[tuple[Stone, int]]:
    """Yield what is noted, each with its slot."""
    for slot in range(1, len(content) // _SLOT_BYTES):
        kind, digest = content[slot * _SLOT_BYTES], content[slot * _SLOT_BYTES + 1 :][:DIGEST_BYTES]
        if kind in set(Grave):
            yield (Grave(kind), digest), slot


class Tombstones:
    """The tombstones of one store. May be used from any thread.

    Attributes:
        lock: held while one is put up or taken down, and by who has to know that none is meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # By what they say, the slot that says it.
        self._stones: dict[Stone, int] = {}
        self._unwritten: set[Stone] = set()
        self._file: int | None = None
        self._closed = True
        self.lock = threading.RLock()

    def open(self) -> None:
        """Read what is noted, or begin the file.

        Raises:
            StoreFailed: there is something there that is not ours, or it cannot be used. It is left as it is.
        """
        problem: str | None = "it is not a store's"
        try:
            self._file = os.open(self._path, _HOW, _PRIVATE)
            if self._read(self._file):
                self._closed = False
                return
        except OSError as error:
            problem = error.strerror
        self.close()
        raise StoreFailed(f"there can be no list of clears at {self._path}: {problem}; {_BELONGS}")

    def __repr__(self) -> str:
        return f"<{len(self._stones)} tombstones>"

    def pending(self) -> tuple[Stone, ...]:
        """Return what is to be ended."""
        with self.lock:
            return tuple(self._stones)

    def covers(self, seal: Seal, owner: Owner) -> bool:
        """Tell whether an owner's session is not to be served."""
        stones = self._stones
        return len(stones) > 0 and (
            EVERYONE in stones
            or any((Grave.OWNER, each.digest) in stones for each in seal.owners(owner))
            or any((Grave.CATALOG, each.digest) in stones for each in seal.catalogs(owner.catalog))
        )

    def put_up(self, stones: Iterable[Stone], *, synced: bool = True) -> bool:
        """Note clears that are not applied; tell whether the file has them all, also after a power cut if *synced*.

        What cannot be written holds for this process, and is tried again with the next.
        """
        with self.lock:
            new = [stone for stone in stones if stone not in self._stones]
            free = sorted(set(range(1, SLOTS)) - set(self._stones.values()))
            if len(free) <= len(new):
                # One is left for this.
                new = [] if EVERYONE in self._stones else [EVERYONE]
            self._stones.update(zip(new, free, strict=False))
            self._unwritten.update(new)
            return self._write(synced=synced)

    def take_down(self, stones: Iterable[Stone]) -> None:
        """Note that clears are applied. One that is back after a power cut ends more than it has to, and no less."""
        with self.lock:
            for stone in stones:
                slot = self._stones.pop(stone, None)
                self._unwritten.discard(stone)
                if slot is not None and self._file is not None:
                    with contextlib.suppress(OSError):
                        os.pwrite(self._file, bytes(_SLOT_BYTES), slot * _SLOT_BYTES)

    def tell(self) -> None:
        """Say in the log, before the end, if something is not applied, and what becomes of it."""
        with self.lock:
            if not self._stones:
                return
            if self._write(synced=True):
                logger.warning(
                    "clears that could not be applied to the store are noted in %s: they are applied when it is opened next",
                    self._path,
                )
            else:
                logger.error(
                    "clears could not be applied to the store, nor noted in %s: delete both, or what is cleared may come back",
                    self._path,
                )

    def close(self) -> None:
        """Write nothing more: from now on the file may be another process's."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
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
        if not _is_ours(content):
            return False
        os.fchmod(file, _PRIVATE)
        whole = (MARK + content[len(MARK) :]).ljust(_BYTES, b"\0")
        if content != whole:
            # Not a hole: room that is there when it is needed. Where there is none now, it is tried again when it is.
            with contextlib.suppress(OSError):
                os.pwrite(file, whole, 0)
                os.fsync(file)
        self._stones.update(_stones_in(whole))
        return True

    def _write(self, *, synced: bool) -> bool:
        """Write what is not written yet; tell whether all is."""
        if not self._unwritten:
            return True
        if self._closed:
            return False
        try:
            file = self._found()
            for stone in sorted(self._unwritten):
                slot = (bytes([stone[0]]) + stone[1]).ljust(_SLOT_BYTES, b"\0")
                if os.pwrite(file, slot, self._stones[stone] * _SLOT_BYTES) == _SLOT_BYTES:
                    self._unwritten.discard(stone)
            if synced:
                os.fsync(file)
        except OSError:
            return False
        return not self._unwritten

    def _found(self) -> int:
        """Return the file; what somebody put in its place, or cut short, is made the file once more.

        Raises:
            OSError: it cannot be.
        """
        with contextlib.suppress(FileNotFoundError):
            there = self._path.stat(follow_symlinks=False)
            if self._file is not None and os.path.samestat(os.fstat(self._file), there):
                if there.st_size < _BYTES:
                    self._begin(self._file)
                return self._file
        self._let_go()
        self._file = os.open(self._path, _HOW, _PRIVATE)
        self._begin(self._file)
        return self._file

    def _begin(self, file: int) -> None:
        """Write the mark, and all that is noted anew."""
        self._unwritten.update(self._stones)
        with contextlib.suppress(OSError):  # where there is no room for all there may be for some
            os.pwrite(file, MARK.ljust(_BYTES, b"\0"), 0)
