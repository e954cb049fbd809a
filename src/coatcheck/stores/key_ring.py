"""The keys that a store seals with: a ring of which the first seals and all open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path


class Key:
    """One secret and its public id. Shows nothing but the id.

    Attributes:
        id: eight hexadecimal digits that follow from the secret and do not tell it.
        secret: 32 bytes.
    """

    __slots__ = ("id", "secret")

    id: str
    secret: bytes

    def __init__(self, secret: bytes) -> None:
        raise NotImplementedError


class KeyRing:
    """A non-empty, ordered ring of keys: the first seals, all open."""

    __slots__ = ("keys",)

    keys: tuple[Key, ...]

    def __init__(self, keys: Sequence[Key]) -> None:
        raise NotImplementedError

    @classmethod
    def drawn(cls) -> KeyRing:
        """Return a ring of one key, drawn now."""
        raise NotImplementedError

    @classmethod
    def read(cls, path: Path | str) -> KeyRing:
        """Return the ring that a file holds."""
        raise NotImplementedError

    @classmethod
    def at(cls, path: Path | str) -> KeyRing:
        """Return the ring that a file holds; if there is none, draw one and write it there."""
        raise NotImplementedError

    @classmethod
    def from_text(cls, text: str) -> KeyRing:
        """Return the ring that a text holds, in the format of the file."""
        raise NotImplementedError

    def write(self, path: Path | str, *, new: bool = False) -> None:
        """Write the ring to a file, in place of what is there unless *new*."""
        raise NotImplementedError

    def rotated(self, *, keep: int = 2) -> KeyRing:
        """Return a ring with a new first key and so many keys in all."""
        raise NotImplementedError


KeyProvider = Callable[[], KeyRing]
"""A program's own source of keys. Asked once, when the store opens."""
