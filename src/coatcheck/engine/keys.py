"""Who owns an entry and what it is filed under: the only place that makes key bytes.

A part of a key is written as a tag for its type, its length and its bytes, so no two tuples of arguments share
their bytes, whatever the strings in them hold. What a part holds is written in the same way, however deep down.
"""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import TYPE_CHECKING, Any

import msgspec

from coatcheck.errors import InvalidKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_USER_BYTES = 512
# Longer keys are replaced by their SHA-256, so a large argument costs no memory for each of its entries.
MAX_PLAIN_KEY_BYTES = 256
_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
_PLAIN: tuple[Any, ...] = (bool, int, float, str, bytes, tuple, frozenset)
# What else cannot be changed and has a canonical form.
_LEAVES = (Decimal, uuid.UUID, date, time, timedelta, type(msgspec.UNSET))

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
    if type(value) in _SCALARS or isinstance(value, Enum):
        return True
    if isinstance(value, int | float | str | bytes | tuple | frozenset):
        # An object of a subclass may have attributes, which can be set and are no part of the key.
        if type(value) not in _PLAIN and object.__getstate__(value):
            return False
        return not isinstance(value, tuple | frozenset) or all(frozen(item) for item in value)
    fields = fields_of(value)
    if fields is not None:
        return frozen_class(type(value)) and all(frozen(item) for _, item in fields)
    return isinstance(value, _LEAVES)


def frozen_class(declared: type) -> bool:
    """Tell whether no field of the class's objects can be set."""
    if issubclass(declared, msgspec.Struct):
        return declared.__struct_config__.frozen
    if dataclasses.is_dataclass(declared):
        # A subclass that is not declared one itself takes attributes that are no part of the key.
        parameters: Any = vars(declared).get("__dataclass_params__")
        return parameters is not None and parameters.frozen
    # attrs says it nowhere else in all its versions.
    return "__attrs_attrs__" in vars(declared) and declared.__setattr__.__name__ == "_frozen_setattrs"


def fields_of(value: object) -> Iterator[tuple[str, object]] | None:
    """Return names and values of a Struct's, a dataclass's or an attrs object's fields; None for all else."""
    declared: Any = type(value)
    if isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
    elif dataclasses.is_dataclass(declared):
        names = tuple(field.name for field in dataclasses.fields(declared))
    elif hasattr(declared, "__attrs_attrs__"):
        names = tuple(field.name for field in declared.__attrs_attrs__)
    else:
        return None
    return ((name, getattr(value, name, msgspec.UNSET)) for name in names)


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
    # Of exactly these types: what is of a subclass is not the same argument.
    if type(value) is int:
        return part(b"i", b"%x" % value)
    if type(value) is str:
        return part(b"s", utf8(value, "an argument"))
    if type(value) is float:
        return part(b"d", value.hex().encode())
    if type(value) is bytes:
        return part(b"b", value)
    return encode_compound(value)


def encode_compound(value: object) -> bytes:
    """Return the canonical bytes of an argument made of others, each of them written by `encode()`."""
    if type(value) is tuple or type(value) is list:
        return part(b"(" if type(value) is tuple else b"[", b"".join(encode(item) for item in value))
    if type(value) is frozenset or type(value) is set:
        return part(b"<", b"".join(sorted(encode(item) for item in value)))
    if type(value) is dict:
        return part(b"{", b"".join(sorted(encode(key) + encode(item) for key, item in value.items())))
    if isinstance(value, Enum):
        # Not every combination of flags has a name; each has a number.
        return part(b"e", kind(value) + encode(value.value if isinstance(value, Flag) else value.name))
    fields = fields_of(value)
    content = content_of(value) if fields is None else [each for field in fields for each in field]
    return part(b"o", kind(value) + b"".join(encode(item) for item in content))


def content_of(value: object) -> list[object]:
    """Return what makes up an object that has no fields, beside its type.

    Raises:
        InvalidKey: it is of a type that is not known here.
    """
    if type(value) is Decimal:
        return [str(value)]
    if isinstance(value, uuid.UUID):
        return [value.int]
    if type(value) is datetime or type(value) is time:
        # The fold tells the two hours apart that a clock put back shows alike. Zones of one offset may differ later.
        return [value.isoformat(), value.fold, kind(value.tzinfo), repr(value.tzinfo)]
    if type(value) is date:
        return [value.isoformat()]
    if type(value) is timedelta:
        return [value.days, value.seconds, value.microseconds]
    if isinstance(value, bytearray | memoryview | msgspec.Raw):
        return [bytes(value)]
    if value is msgspec.UNSET:
        return []
    return [plain_of(value)]


def plain_of(value: object) -> object:
    """Return what an object of a subclass is as one of the type itself, whatever it makes of `str()` and the like.

    Raises:
        InvalidKey: it is of no such class.
    """
    for base in _PLAIN:
        if isinstance(value, base) and hasattr(base, "__getnewargs__"):
            return base.__getnewargs__(value)[0]
    for base in (frozenset, set, list, dict):
        if isinstance(value, base):
            return base(value)
    raise InvalidKey(f"an argument of type {type(value).__qualname__} has no canonical form")


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
    try:
        return text.encode()
    except UnicodeEncodeError:
        pass
    # Raised outside of the handler: as the context of ours, the foreign exception would still show the text.
    raise InvalidKey(f"{what} must not hold a lone surrogate")
