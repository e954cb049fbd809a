"""No two tuples of arguments are filed under one key, and no key depends on anything but the arguments."""

from __future__ import annotations

import dataclasses
import enum
import itertools
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck, given, settings

from coatcheck.engine import walk
from coatcheck.engine.catalog import Catalog, Resource

if TYPE_CHECKING:
    from collections.abc import Callable


class Colour(enum.Enum):
    RED = 1
    RED_TOO = "1"


class Outer(msgspec.Struct, frozen=True):
    x: object


class Other(msgspec.Struct, frozen=True):
    x: object


@dataclasses.dataclass(frozen=True)
class Record:
    x: object


class Pair(NamedTuple):
    x: object
    y: object


def make_resource() -> Resource[int]:
    catalog: Catalog[object] = Catalog("keys")

    @catalog.resource
    async def three(api: object, a: object, b: object = None, c: object = None) -> int:
        return 0

    return three


THREE = make_resource()

SEPARATORS = (":", "|", ",", "/", "\0", "\x1f")

# Lone surrogates have no key. Separators and digits are drawn often: they are what a careless key trips over.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(
    ":|,0123456789 'ntfsi()", max_size=6
)
scalars = (
    texts
    | st.integers(-300, 300)
    | st.integers()
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False)
    | st.binary(max_size=6)
    | st.sampled_from(Colour)
)
separated = texts | st.text("".join(("ab", *SEPARATORS)), max_size=5)
# Few of each, so that two of a kind, or one and the text that it is written as, meet.
times = st.builds(
    datetime,
    st.just(2026),
    st.just(10),
    st.just(25),
    st.integers(2, 3),
    tzinfo=st.sampled_from((None, UTC)),
    fold=st.integers(0, 1),
)
decimals = st.decimals(-2, 2, places=1) | st.integers(-2, 2).map(Decimal)
leaves = scalars | times | decimals | times.map(datetime.isoformat) | decimals.map(str)
values = scalars | st.tuples(scalars) | st.tuples(scalars, scalars) | st.frozensets(texts, max_size=3)
nested = st.recursive(
    leaves,
    lambda inner: (
        st.tuples(inner, inner)
        | st.builds(Outer, inner)
        | st.builds(Other, inner)
        | st.builds(Record, inner)
        | st.builds(Pair, inner, inner)
        | st.frozensets(inner, max_size=2)
    ),
    max_leaves=4,
)
arguments = (
    st.tuples(values, values, values) | st.tuples(texts, texts, texts) | st.tuples(nested, values, nested)
)


def exact(value: object) -> object:
    """Return something equal only for what is the same: in Python ``1 == True == 1.0`` and ``0.0 == -0.0``."""
    if isinstance(value, tuple):
        return type(value), tuple(map(exact, value))
    if isinstance(value, frozenset):
        return frozenset, frozenset(map(exact, value))
    if isinstance(value, Outer | Other | Record):
        return type(value), exact(value.x)
    if isinstance(value, float):
        return float, value.hex()
    return type(value), repr(value) if isinstance(value, Decimal | datetime) else value


# The same inside of something else, with one drawn value wrapped in different ways, which two draws would rarely be.
WRAPS: tuple[Callable[[object], object], ...] = (
    lambda x: x,
    lambda x: (x, x),
    lambda x: Pair(x, x),
    lambda x: frozenset((x,)),
    Outer,
    Other,
    Record,
    str,
    repr,
)


def cut_elsewhere(parts: tuple[str, str, str]) -> list[tuple[str, str, str]]:
    """Return tuples that are the same text when their parts are put together, with some separator or without."""
    found = []
    whole = "".join(parts)
    for first, second in itertools.combinations_with_replacement(range(len(whole) + 1), 2):
        found.append((whole[:first], whole[first:second], whole[second:]))
    for separator in SEPARATORS:
        pieces = separator.join(parts).split(separator)
        for first, second in itertools.combinations(range(1, len(pieces)), 2):
            groups = (pieces[:first], pieces[first:second], pieces[second:])
            one, two, three = (separator.join(group) for group in groups)
            found.append((one, two, three))
    return found[-60:]


def check_keys(*, examples: int, derandomize: bool = False) -> None:
    """Raise when two different tuples of arguments share a key.

    Raises:
        AssertionError: they do.
    """

    @settings(
        max_examples=examples,
        derandomize=derandomize,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(arguments, arguments)
    def differ(x: tuple[object, ...], y: tuple[object, ...]) -> None:
        same = exact(x) == exact(y)
        assert (walk.key_of(THREE, list(x)) == walk.key_of(THREE, list(y))) is same

    @settings(
        max_examples=examples,
        derandomize=derandomize,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(separated, separated, separated))
    def differ_when_cut_elsewhere(x: tuple[str, str, str]) -> None:
        key = walk.key_of(THREE, list(x))
        for y in cut_elsewhere(x):
            assert (walk.key_of(THREE, list(y)) == key) is (x == y)

    @settings(
        max_examples=examples,
        derandomize=derandomize,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(leaves, st.sampled_from((Outer, Record)))
    def differ_when_wrapped(x: object, outer: Callable[[object], object]) -> None:
        inside = [outer(wrap(x)) for wrap in WRAPS]
        for y, z in itertools.combinations_with_replacement(inside, 2):
            same = exact(y) == exact(z)
            assert (walk.key_of(THREE, [y, 1, 1]) == walk.key_of(THREE, [z, 1, 1])) is same

    differ()
    differ_when_wrapped()
    differ_when_cut_elsewhere()
