"""A resource's declared type: how its values become bytes and back, and whether one object can serve all."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import types
import typing
import uuid
from typing import Any, Generic, Literal, TypeVar

import msgspec

from coatcheck.errors import BadUpstreamBody, WrongType

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_IMMUTABLE = (
    type(None), bool, int, float, str, bytes, decimal.Decimal, uuid.UUID,
    datetime.datetime, datetime.date, datetime.time, datetime.timedelta,
)  # fmt: skip
# What msgspec says of a mismatch may quote the body, but for these two, which name types, fields and places only.
_SAFE_PREFIXES = ("Expected `", "Object missing required field `")


class Body(Generic[T_co]):
    """The JSON bytes of a value as they came from upstream, declared to be of type *T*.

    A loader that returns ``Body[T]`` keeps what *T* leaves out: ``lookup.body`` has it all.
    """

    __slots__ = ("content",)

    def __init__(self, content: bytes | bytearray | memoryview | msgspec.Raw) -> None:
        # A copy, never a slice: a view would keep the whole of a larger buffer alive.
        self.content = bytes(content)


class Codec(Generic[T]):
    """The declared type of a resource.

    Attributes:
        shared: whether one decoded object may be served to every caller, because nobody can change it.
    """

    __slots__ = ("_decoder", "_encoder", "name", "shared")

    def __init__(self, declared: Any, *, name: str) -> None:
        self.name = name
        self.shared = immutable(declared)
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(declared)
        self._encoder = msgspec.json.Encoder()

    def decode(self, body: bytes) -> T:
        """Return a value of its own for every call. The body must be one that `accept()` returned."""
        return self._decoder.decode(body)

    def restore(self, body: bytes) -> tuple[bytes, T]:
        """Return what a store held as body and value, checked as what a loader returns is.

        Raises:
            BadUpstreamBody: it is not JSON of the declared type, which may have been another one then.
        """
        return self.accept(Body(body))

    def accept(self, result: object) -> tuple[bytes, T]:
        """Return what a loader returned as body and value, checked against the declared type.

        The value is decoded from the body, so nothing that the loader still holds is shared.

        Raises:
            BadUpstreamBody: a `Body` is not JSON of the declared type.
            WrongType: a value is not of the declared type.
        """
        # Raised outside of the handlers: as the context of ours, the foreign exception would still show the body.
        if isinstance(result, Body):
            try:
                return result.content, self._decoder.decode(result.content)
            except Exception as error:  # noqa: BLE001 - a declared type may run code of its own, which raises anything
                where = _where(error)
            raise BadUpstreamBody(f"{self.name}: the body is not of the declared type{where}")
        try:
            # A copy of the exact size: the encoder's own has room to grow, up to half as much again.
            body = bytes(memoryview(self._encoder.encode(result)))
            return body, self._decoder.decode(body)
        except Exception as error:  # noqa: BLE001 - as above
            where = _where(error)
        what = type(result).__qualname__
        raise WrongType(f"{self.name}: a value of type {what} does not fit the declared type{where}")


def _where(error: Exception) -> str:
    message = str(error)
    if isinstance(error, msgspec.ValidationError) and message.startswith(_SAFE_PREFIXES):
        return f": {message}"
    return ""


def immutable(declared: Any, _seen: frozenset[Any] = frozenset()) -> bool:
    """Tell whether no value of the *declared* type can be changed by who holds it."""
    if declared in _IMMUTABLE or declared is None:
        return True
    if isinstance(declared, typing.NewType):
        return immutable(declared.__supertype__, _seen)
    origin = typing.get_origin(declared)
    if origin is not None:
        return _immutable_generic(declared, origin, _seen)
    if not isinstance(declared, type):
        return False
    if declared in _seen:
        return True  # a type that holds itself: the other fields decide
    return _immutable_class(declared, _seen | {declared})


def _immutable_generic(declared: Any, origin: Any, seen: frozenset[Any]) -> bool:
    arguments = typing.get_args(declared)
    if origin is Literal:
        return True
    if origin is typing.Annotated:
        return immutable(arguments[0], seen)
    if origin in (typing.Union, types.UnionType, tuple, frozenset):
        return all(argument is ... or immutable(argument, seen) for argument in arguments)
    if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
        return _immutable_class(origin, seen | {origin}) and all(
            immutable(argument, seen) for argument in arguments
        )
    return False


def _immutable_class(declared: type, seen: frozenset[Any]) -> bool:
    if issubclass(declared, enum.Enum):
        return True
    if issubclass(declared, msgspec.Struct):
        frozen = declared.__struct_config__.frozen
    elif dataclasses.is_dataclass(declared):
        frozen = declared.__dataclass_params__.frozen  # type: ignore[attr-defined]
    else:
        frozen = issubclass(declared, tuple) and hasattr(declared, "_fields")
    if not frozen:
        return False
    hints = typing.get_type_hints(declared, include_extras=True)
    return all(isinstance(hint, TypeVar) or immutable(hint, seen) for hint in hints.values())
