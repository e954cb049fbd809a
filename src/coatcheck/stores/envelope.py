"""An entry as versioned bytes: what is sealed."""

from __future__ import annotations

from typing import NamedTuple


class Contents(NamedTuple):
    """What an envelope holds. Shows nothing of it.

    Attributes:
        resource: the resource's name.
        arguments: what `coatcheck.engine.keys.encode_arguments` makes of its arguments.
        body: the JSON bytes.
    """

    resource: str
    arguments: bytes
    body: bytes

    def __repr__(self) -> str:
        return "<contents>"


def pack(contents: Contents) -> bytes:
    """Return the one byte string that stands for *contents*."""
    raise NotImplementedError


def unpack(packed: bytes) -> Contents | None:
    """Return what `pack` was given, or None for every byte string that it does not make. Never raises."""
    raise NotImplementedError
