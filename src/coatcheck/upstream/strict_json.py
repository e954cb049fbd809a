"""JSON as the standard means it: what two readers could understand differently is not read at all."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from coatcheck.errors import BadUpstreamBody

T = TypeVar("T")

MAX_DEPTH = 64
"""Arrays and objects within each other that a body may have."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_LONG_NUMBER = re.compile(rb"[0-9]{40}")

# What msgspec says may quote the body ("Invalid enum value 'x'"); these sentences name only declared fields and types.
_QUOTES_NOTHING = (
    "Expected `",
    "Input data was truncated",
    "JSON is malformed: ",
    "Object missing required field `",
)


def strict_json(body: bytes) -> object:
    """Return the value of the JSON document *body*.

    Refused, too, are invalid UTF-8 also where nobody looks, a byte order mark, NaN and infinities, lone surrogates,
    a name twice in one object, more than `MAX_DEPTH` levels, and numbers of 40 digits in a row or out of range.
    About 3 ms for 100 kB; memory is that of the decoded value.

    Raises:
        BadUpstreamBody: the message quotes nothing of the body.
    """
    value = _decode(body, object, "the body is not strict JSON")
    # Without its strings a valid document has one colon for each name, and no digits but those of numbers.
    bare = _STRING.sub(b"", body)
    if _LONG_NUMBER.search(bare) is not None:
        raise BadUpstreamBody("the body is not strict JSON: a number has 40 digits or more")
    depth, names = _measure(value)
    if depth > MAX_DEPTH:
        raise BadUpstreamBody(f"the body is not strict JSON: more than {MAX_DEPTH} levels")
    if names != bare.count(b":"):
        raise BadUpstreamBody("the body is not strict JSON: a name occurs twice in one object")
    return value


def typed(body: bytes | msgspec.Raw, type_: type[T], what: str) -> T:
    """Return *body* decoded as *type_*; fields that the type does not declare are passed over.

    What is passed over is hardly looked at: give only what `strict_json` has accepted, or a part of that.

    Raises:
        BadUpstreamBody: the message begins with *what* and quotes nothing of the body.
    """
    return _decode(body, type_, f"{what} is not of the declared type")


def _decode(body: bytes | msgspec.Raw, type_: type[T], problem: str) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error) if str(error).startswith(_QUOTES_NOTHING) else type(error).__name__
    # Raised here, since within `except` the exception, which may hold the body, would become the context.
    raise BadUpstreamBody(f"{problem}: {reason}")


def _measure(value: object) -> tuple[int, int]:
    """Return how deep *value* is and how many names its objects have. Level by level: the stack stays flat."""
    depth = names = 0
    level = [value]
    while True:
        inner: list[object] = []
        nested = False
        for each in level:
            if type(each) is dict:
                nested = True
                names += len(each)
                inner.extend(each.values())
            elif type(each) is list:
                nested = True
                inner.extend(each)
        if not nested:
            return depth, names
        depth += 1
        level = inner
