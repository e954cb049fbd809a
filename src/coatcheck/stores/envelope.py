"""An entry as versioned bytes: what is sealed.

::

    version   1 byte, 1
    lengths   3 x 4 bytes, big-endian: resource, arguments, body
    content   resource (UTF-8), arguments, body; nothing after them

Each entry has exactly one such byte string, and every other byte string is rejected.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from coatcheck.engine.keys import utf8
from coatcheck.errors import StoreFailed

VERSION: Final = 1
MAX_BYTES: Final = 1 << 30
"""Larger ones are not packed: what seals them ends at twice as many."""

_HEAD: Final = struct.Struct(">BIII")


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
    """Return the one byte string that stands for *contents*.

    Raises:
        StoreFailed: it would have more than `MAX_BYTES`.
        InvalidKey: the resource's name holds a lone surrogate.
    """
    resource = utf8(contents.resource, "a resource's name")
    lengths = len(resource), len(contents.arguments), len(contents.body)
    if _HEAD.size + sum(lengths) > MAX_BYTES:
        raise StoreFailed("an entry is too large for a store")
    return b"".join((_HEAD.pack(VERSION, *lengths), resource, contents.arguments, contents.body))


def unpack(packed: bytes) -> Contents | None:
    """Return what `pack` was given, or None for every byte string that it does not make. Never raises."""
    if len(packed) < _HEAD.size:
        return None
    version, of_resource, of_arguments, of_body = _HEAD.unpack_from(packed)
    arguments = _HEAD.size + of_resource
    body = arguments + of_arguments
    if version != VERSION or len(packed) != body + of_body:
        return None
    try:
        resource = packed[_HEAD.size : arguments].decode()
    except UnicodeDecodeError:
        return None
    # What `Contents()` does, without a frame of Python around it.
    return tuple.__new__(Contents, (resource, packed[arguments:body], packed[body:]))
