"""Who owns an entry and what it is filed under: the only place that makes key bytes.

A part of a key is written as a tag for its type, its length and its bytes, so no two tuples of arguments share
their bytes, whatever the strings in them hold.
"""

from __future__ import annotations

import contextlib
import hashlib
from contextvars import ContextVar
from enum import Enum, Flag
from typing import TYPE_CHECKING

import msgspec

from coatcheck.errors import InvalidKey

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_USER_BYTES = 512
# Longer keys are replaced by their SHA-256, so a large argument costs no memory for each of its entries.
MAX_PLAIN_KEY_BYTES = 256

current_user: ContextVar[str | None] = ContextVar("coatcheck.current_user", default=None)
"""The user on whose behalf the current task runs; a middleware sets it. The engine itself never reads it."""


def check_user(user: object) -> str:
    """Return *user* as it is, if it can own a session.

    User ids are compared exactly: case, blanks and Unicode form all count.

    Raises:
        InvalidKey: it is no string, is empty, holds a NUL or a lone surrogate, or has over 512 bytes as UTF-8.
    """
    if not isinstance(user, str):
        raise InvalidKey("a user id must be a string")
    # A subclass may compare as it likes; what owns a session is the text.
    text = str.__str__(user)
    if text == "":
        raise InvalidKey("a user id must not be empty")
    if "\0" in text:
        raise InvalidKey("a user id must not hold a NUL character")
    if len(utf8(text, "a user id")) > MAX_USER_BYTES:
        raise InvalidKey(f"a user id must not have more than {MAX_USER_BYTES} bytes as UTF-8")
    return text


def check_argument(name: str, value: object) -> None:
    """Accept an argument that nobody can change between the making of its key and the load.

    Raises:
        InvalidKey: the value is a list, a dict or another object that can be mutated.
    """
    try:
        unchangeable = frozen(value)
    except RecursionError:
        raise InvalidKey(f"argument {name!r} is nested too deeply to be part of a key") from None
    if not unchangeable:
        raise InvalidKey(
            f"argument {name!r} can be changed after the call; pass a number, a string, a tuple or a frozen object"
        )


def frozen(value: object) -> bool:
    """Tell whether *value* can serve as an argument: it and all it holds cannot be changed."""
    if value is None or isinstance(value, bool | int | float | str | bytes | Enum):
        return True
    if isinstance(value, tuple | frozenset):
        return all(frozen(item) for item in value)
    if isinstance(value, msgspec.Struct):
        config = type(value).__struct_config__
        return config.frozen and all(frozen(getattr(value, name)) for name in value.__struct_fields__)
    return type(value).__hash__ is not None and not isinstance(value, list | dict | set | bytearray)


def encode_arguments(arguments: Iterable[object]) -> bytes:
    """Return the bytes under which one resource's *arguments*, in declared order, are filed.

    Injective over types and values: ``1``, ``"1"``, ``True`` and ``None`` are four keys. Beyond 256 bytes injective up
    to collisions of SHA-256.

    Raises:
        InvalidKey: a value has no canonical form, such as a string with a lone surrogate.
    """
    try:
        encoded = b"".join(encode(value) for value in arguments)
    except RecursionError:
        raise InvalidKey("an argument is nested too deeply to be part of a key") from None
    if len(encoded) > MAX_PLAIN_KEY_BYTES:
        return part(b"h", hashlib.sha256(encoded).digest())
    return encoded


def encode(value: object) -> bytes:
    """Return the canonical bytes of one argument."""
    if value is None:
        return b"n"
    if value is True:
        return b"t"
    if value is False:
        return b"f"
    if isinstance(value, Enum):
        # Not every combination of flags has a name; each has a number.
        return part(b"e", kind(value) + encode(value.value if isinstance(value, Flag) else value.name))
    if isinstance(value, int):
        return part(b"i", b"%x" % value)
    if isinstance(value, str):
        return part(b"s", utf8(value, "an argument"))
    if isinstance(value, float):
        return part(b"d", value.hex().encode())
    if isinstance(value, bytes):
        return part(b"b", value)
    return encode_compound(value)


def encode_compound(value: object) -> bytes:
    """Return the canonical bytes of an argument made of others."""
    if isinstance(value, tuple | list):
        return part(b"(" if isinstance(value, tuple) else b"[", b"".join(encode(item) for item in value))
    if isinstance(value, frozenset | set):
        return part(b"<", b"".join(sorted(encode(item) for item in value)))
    if isinstance(value, dict):
        return part(b"{", b"".join(sorted(encode(key) + encode(item) for key, item in value.items())))
    try:
        body = msgspec.msgpack.encode(value, order="deterministic")
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise InvalidKey(f"an argument of type {type(value).__qualname__} has no canonical form") from None
    return part(b"o", kind(value) + body)


def kind(value: object) -> bytes:
    """Return the canonical bytes of a value's type: two of one name in two modules are two types."""
    return encode(type(value).__module__) + encode(type(value).__qualname__)


def part(tag: bytes, content: bytes) -> bytes:
    """Return *content* behind its type and length."""
    return b"%c%d:%b" % (tag, len(content), content)


def utf8(text: str, what: str) -> bytes:
    """Return *text* as UTF-8.

    Raises:
        InvalidKey: it holds a lone surrogate.
    """
    # Raised outside of the handler: as the context of ours, the foreign exception would still show the text.
    with contextlib.suppress(UnicodeEncodeError):
        return text.encode()
    raise InvalidKey(f"{what} must not hold a lone surrogate")
