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

    Raises:
        TypeError: no value of it can come from JSON.
    """

    __slots__ = ("_decoder", "_encoder", "name", "shared")

    def __init__(self, declared: Any, *, name: str) -> None:
        stranger = _stranger(msgspec.inspect.type_info(declared))
        if stranger is not None:
            raise TypeError(
                f"{stranger.__qualname__} is a class that nothing is known of; a msgspec.Struct, a dataclass or a"
                " TypedDict has one"
            )
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


def _stranger(info: Any) -> type | None:
    """Return the class, in the place of a value or of what a collection holds, that JSON can never become."""
    if isinstance(info, msgspec.inspect.CustomType):
        # Anything is an object: it is decoded as what has no declared type.
        return None if info.cls is object else info.cls
    parts: tuple[Any, ...] = ()
    if isinstance(info, msgspec.inspect.UnionType):
        parts = info.types
    elif isinstance(info, msgspec.inspect.TupleType):
        parts = info.item_types
    elif isinstance(info, msgspec.inspect.DictType):
        parts = info.key_type, info.value_type
    elif isinstance(info, msgspec.inspect.CollectionType):
        parts = (info.item_type,)
    return next((each for each in map(_stranger, parts) if each is not None), None)


def _where(error: Exception) -> str:
    message = str(error)
    if isinstance(error, msgspec.ValidationError) and message.startswith(_SAFE_PREFIXES):
        return f": {message}"
    return ""


def immutable(declared: Any, _seen: tuple[Any, ...] = (), *, _given: bool = False) -> bool:
    """Tell whether no value of the *declared* type can be changed by who holds it. In doubt, it can.

    Args:
        declared: the type.
        _seen: the types that are being looked at, of which this one is a part.
        _given: whether the type variables in it stand for types that are given, all of them immutable.
    """
    if declared in _IMMUTABLE or declared is None:
        return True
    if isinstance(declared, TypeVar):
        return _given
    if isinstance(declared, typing.NewType):
        return immutable(declared.__supertype__, _seen)
    origin = typing.get_origin(declared)
    if origin is not None:
        return _immutable_generic(declared, origin, _seen, given=_given)
    if not isinstance(declared, type):
        return False
    if declared in _seen:
        return True  # a type that holds itself: the other fields decide
    return _immutable_class(declared, (*_seen, declared), given=False)


def _immutable_generic(declared: Any, origin: Any, seen: tuple[Any, ...], *, given: bool) -> bool:
    arguments = typing.get_args(declared)
    if origin is Literal:
        return True
    if origin is typing.Annotated:
        return immutable(arguments[0], seen, _given=given)
    # Without arguments, as in `typing.Tuple`, it holds anything.
    if not arguments or not all(each is ... or immutable(each, seen, _given=given) for each in arguments):
        return False
    if origin in (typing.Union, types.UnionType, tuple, frozenset):
        return True
    if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
        # Seen with these arguments: what it holds of itself without any is another type.
        return declared in seen or _immutable_class(origin, (*seen, declared), given=True)
    return False


def _immutable_class(declared: type, seen: tuple[Any, ...], *, given: bool) -> bool:
    if issubclass(declared, enum.Enum):
        return True
    hints = typing.get_type_hints(declared, include_extras=True)
    if not _frozen_class(declared, hints):
        return False
    # The variables of an inherited field are those of the base, whatever they are called here.
    inherited = {name for base in declared.__bases__ for name in typing.get_type_hints(base)}
    return all(immutable(hint, seen, _given=given and name not in inherited) for name, hint in hints.items())


def _frozen_class(declared: type, hints: dict[str, Any]) -> bool:
    """Tell whether no attribute of the class's objects can be set, and the hints tell of all of them."""
    if issubclass(declared, msgspec.Struct):
        return declared.__struct_config__.frozen
    if dataclasses.is_dataclass(declared):
        # A subclass that is not declared one itself takes new attributes.
        parameters = vars(declared).get("__dataclass_params__")
        return parameters is not None and parameters.frozen
    if issubclass(declared, tuple) and hasattr(declared, "_fields"):
        # The fields of a `collections.namedtuple` have no hints; a subclass may take new attributes.
        return set(declared._fields) <= set(hints) and not declared.__dictoffset__
    return False
