"""A user id is compared exactly; arguments are filed by type and value, and no two share their bytes."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import itertools
import unicodedata
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from coatcheck.engine.keys import check_argument, check_user, encode_arguments
from coatcheck.errors import InvalidKey
from engine.world import World

if TYPE_CHECKING:
    from coatcheck import SessionCache

BAD_USERS = ["", "a\0b", "\0", "a\ud800", "x" * 513, "é" * 257, None, 7, b"ann", ["ann"], True]
ALIKE = [
    "alice",
    "Alice",
    "alice ",
    " alice",
    unicodedata.normalize("NFC", "é"),
    unicodedata.normalize("NFD", "é"),
    "1",
    "acme",
    "acme:alice",
    "alice:env",
    "env",
]


@pytest.mark.parametrize("user", BAD_USERS, ids=repr)
async def test_a_user_id_that_cannot_own_a_session_is_refused_everywhere(
    cache: SessionCache[Any], user: Any
) -> None:
    """An empty, broken or oversized id, or one that is no string, never means everyone nor somebody else."""
    await cache.session("ann").get(cache._catalog["account"])

    with pytest.raises(InvalidKey):
        cache.session(user)
    with pytest.raises(InvalidKey):
        await cache.clear(user)
    if user is not None:
        with pytest.raises(InvalidKey):
            cache.stats(user)
    assert ("ann",) == cache.users()


async def test_512_bytes_are_the_longest_user_id(cache: SessionCache[Any], world: World) -> None:
    """The bound counts bytes of UTF-8, and the longest id works."""
    user = "é" * 256
    await cache.session(user).get(world.account)
    assert (user,) == cache.users()


async def test_ids_that_look_alike_are_different_users(cache: SessionCache[Any], world: World) -> None:
    """Case, blanks, Unicode form and delimiters all count."""
    values = await asyncio.gather(*(cache.session(user).get(world.account) for user in ALIKE))
    assert len(ALIKE) == len(set(values))
    assert set(ALIKE) == set(cache.users())


class Liar(str):
    """A string that says it is somebody else's."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("ann")


async def test_a_string_that_compares_as_it_likes_owns_what_its_text_says(
    cache: SessionCache[Any], world: World
) -> None:
    """A subclass with its own idea of equality gets nobody else's session."""
    await cache.session("ann").get(world.item, number=1)
    assert "mallory has 1" == await cache.session(Liar("mallory")).get(world.item, number=1)
    assert ("ann", "mallory") == cache.users()


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Rights(enum.IntFlag):
    READ = 1


class Point(msgspec.Struct, frozen=True):
    x: int
    y: int


class Place(msgspec.Struct, frozen=True):
    x: int
    y: int


class Outer(msgspec.Struct, frozen=True):
    x: Any


@dataclasses.dataclass(frozen=True)
class Record:
    x: Any


@attrs.frozen
class Attributes:
    x: Any


class Pair(NamedTuple):
    x: Any
    y: Any


class Couple(NamedTuple):
    x: Any
    y: Any


class Word(str):  # noqa: SLOT000 - it can have attributes, which is what is meant
    """A string of a type of its own, which shows itself as another."""

    def __str__(self) -> str:
        return "other"


def named_colour() -> Any:
    return enum.Enum("Colour", {"RED": 1}, module="elsewhere", qualname="Colour")


DIFFERENT = [
    1, "1", True, None, 1.0, b"1", 0, False, "", b"", (), (1,), ((1,),), ("1",), (None,), frozenset(), frozenset({1}),
    -1, "-1", 10**400, Colour.RED, Colour.BLUE, "RED", Point(1, 2), Point(2, 1), Place(1, 2), "True", "None", 0.0, -0.0,
    ("a", "b:c"), ("a:b", "c"), ("ab", "c"), ("a", "bc"), ("asb",), ("a", "b"), "asb", "s1:a", "é", "e\u0301", Rights(8), Rights(16), Rights.READ,
    named_colour().RED, datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z", "x" * 300, "x" * 301,
]  # fmt: skip


def test_different_arguments_are_different_keys() -> None:
    """Type and value both count: no two of these share their bytes, alone or in pairs."""
    for left, right in itertools.combinations(DIFFERENT, 2):
        assert encode_arguments([left]) != encode_arguments([right]), (left, right)
    pairs = {encode_arguments([left, right]) for left in DIFFERENT for right in DIFFERENT}
    assert len(DIFFERENT) ** 2 == len(pairs)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8")),
    st.binary(),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)


def typed(value: Any) -> Any:
    """Return something that is equal only for equal values of equal types."""
    if isinstance(value, tuple):
        return ("tuple", tuple(typed(each) for each in value))
    return (type(value).__name__, repr(value))


@given(st.lists(values, max_size=3), st.lists(values, max_size=3))
def test_equal_bytes_mean_equal_arguments(left: list[Any], right: list[Any]) -> None:
    """The encoding is injective over arbitrary arguments, and depends on nothing else."""
    same = [typed(each) for each in left] == [typed(each) for each in right]
    assert same == (encode_arguments(left) == encode_arguments(right))


NESTED = [
    1, "1", True, 1.0, None, "1.5", Decimal("1.5"), Decimal("1.50"), Colour.RED, Rights.READ, "RED", b"RED", Point(1, 2), Place(1, 2),
    Outer(1), Record(1), Attributes(1), Record(Outer(1)), Outer(Record(1)), (1, 2), (2, 1), frozenset({1, 2}), Pair(1, 2), Couple(1, 2),
    Word("1"), "other", "2026-10-25T02:30:00", datetime(2026, 10, 25, 2, 30), datetime(2026, 10, 25, 2, 30, fold=1),  # noqa: DTZ001
    datetime(2026, 10, 25, 2, 30, tzinfo=UTC), datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=2))),
    datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")), datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Paris")),
    date(2026, 10, 25), "2026-10-25", time(2, 30), time(2, 30, fold=1), time(2, 30, tzinfo=ZoneInfo("Europe/Berlin")), "02:30:00",
    timedelta(1), timedelta(0, 1), timedelta(0, 0, 1), uuid.UUID(int=1), str(uuid.UUID(int=1)), msgspec.UNSET,
]  # fmt: skip


@pytest.mark.parametrize("wrap", [lambda x: x, Outer, Record, Attributes, lambda x: Outer((Record(x),))])
def test_what_an_argument_holds_counts_with_its_type(wrap: Any) -> None:
    """Inside of a Struct, a dataclass or an attrs object, no two of these are one key, and each is its own."""
    for value in NESTED:
        check_argument("number", wrap(value))
    assert len(NESTED) == len({encode_arguments([wrap(value)]) for value in NESTED})
    for left, right in zip(NESTED, NESTED, strict=True):
        assert encode_arguments([wrap(left)]) == encode_arguments([wrap(right)])


def test_an_equal_object_is_the_same_key() -> None:
    """The key is made of what the object holds, not of which object it is."""
    for make in (Outer, Record, Attributes):
        one, other = (make((Point(1, 2), Decimal("1.5"), frozenset({"b", "a"}))) for _ in range(2))
        assert encode_arguments([one]) == encode_arguments([other])


def test_the_keys_of_what_is_stored_stay_as_they_are() -> None:
    """Entries in a store are filed under these bytes."""
    plain = (None, True, False, -31, "é", 1.5, b"x", (1, ("a",)), frozenset({2, 1}), [1], {"a": 1})
    assert (
        b"ntfi3:-1fs2:\xc3\xa9d20:0x1.8000000000000p+0b1:x(11:i1:1(4:s1:a<8:i1:1i1:2[4:i1:1{8:s1:ai1:1"
    ) == encode_arguments(plain)


def test_what_upstream_sent_has_a_key_though_it_can_be_changed() -> None:
    """A dependency's value is an argument of what depends on it, of whatever type it was declared."""
    for value in (Thawed(1), Melted([Thawed(1)]), Watered(1), Raw(b"1"), bytearray(b"1"), [Decimal(1)]):
        assert encode_arguments([value]) == encode_arguments([value])
        assert encode_arguments([value]) != encode_arguments([(value,)])


def test_a_long_argument_costs_a_short_key() -> None:
    """Beyond 256 bytes a key is a digest."""
    assert len(encode_arguments(["x" * 1_000_000])) < 64


async def test_arguments_of_different_types_are_loaded_apart(cache: SessionCache[Any], world: World) -> None:
    """1, "1", True and None are four entries, each found again."""
    session = cache.session("ann")
    for number in (1, "1", True, None, 1.0):
        expected = f"ann has {number!r}"
        assert expected == await session.get(world.item, number=number)
        assert expected == await session.get(world.item, number=number)
    assert 5 == world.count("item")


async def test_a_default_and_the_same_value_passed_are_one_key(
    cache: SessionCache[Any], world: World
) -> None:
    """Defaults are bound before the key is made."""
    session = cache.session("ann")
    await session.get(world.hosts)
    await session.get(world.hosts, kind="all")
    assert 1 == world.count("hosts")
    await session.get(world.hosts, kind="web")
    assert 2 == world.count("hosts")


async def test_a_value_passed_and_the_same_value_resolved_are_one_key(
    cache: SessionCache[Any], world: World
) -> None:
    """Children are keyed by the values they were loaded with, however those were come by."""
    session = cache.session("ann")
    own = await session.get(world.zones)
    assert own is await session.get(world.zones, project=10)
    other = await session.get(world.zones, project=99)
    assert 99 == other[0].project
    assert own is await session.get(world.zones)
    assert 2 == world.count("zones")


class Mutable:
    __hash__ = None  # type: ignore[assignment]


class Thawed(msgspec.Struct):
    x: int


class Holder(msgspec.Struct, frozen=True):
    items: list[int]


@dataclasses.dataclass(unsafe_hash=True)
class Melted:
    x: Any


class Warmed(Record):
    """Takes new attributes, being no dataclass itself."""


@attrs.define(eq=False)
class Watered:
    x: Any


def marked(value: Any) -> Any:
    """Return *value* with an attribute that no key is made of."""
    value.mark = 1
    return value


@pytest.mark.parametrize(
    "value",
    [
        [1], {}, {1}, bytearray(b"1"), ([1],), (({},),), Mutable(), Thawed(1), Holder([1]), Record([1]), Attributes([1]),
        Outer((Record([1]),)), Outer(Thawed(1)), Melted(1), Outer(Melted(1)), Warmed(1), Watered(1), Pair([1], 2),
        marked(Word("1")), (marked(Word("1")),), memoryview(bytearray(b"1")), Raw(b"1"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
async def test_an_argument_that_can_be_changed_is_refused(
    cache: SessionCache[Any], world: World, value: Any
) -> None:
    """An argument that could change between its key and its load names itself in the error, not its value."""
    with pytest.raises(InvalidKey, match="number"):
        await cache.session("ann").get(world.item, number=value)
    assert [] == world.calls


def nested(depth: int, wrap: Any = lambda value: (value,)) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    "value",
    ["a\ud800", ("\udfff",), Outer("\udfff"), object(), Outer(object()), nested(5_000), nested(5_000, Outer)],
    ids=["surrogate", "nested", "inside", "object", "object inside", "deep", "deep structs"],
)
async def test_an_argument_without_a_canonical_form_is_refused(
    cache: SessionCache[Any], world: World, value: Any
) -> None:
    """Such an argument is an error of ours, also for a session that holds something, and loads nothing."""
    session = cache.session("ann")
    with pytest.raises(InvalidKey):
        await session.get(world.item, number=value)
    await session.get(world.account)
    with pytest.raises(InvalidKey):
        await session.get(world.item, number=value)
    with pytest.raises(InvalidKey):
        await session.invalidate(world.item, number=value)
    with pytest.raises(InvalidKey):
        await session.put(world.item, "x", number=value)
    assert ["account"] == world.names()


@given(st.text())
def test_a_user_id_is_accepted_as_it_is_or_not_at_all(user: str) -> None:
    """No accepted id is changed."""
    try:
        accepted = check_user(user)
    except InvalidKey:
        return
    assert user == accepted


@given(values)
def test_what_is_accepted_as_an_argument_has_a_key(value: Any) -> None:
    """Nothing that passes the check fails later."""
    check_argument("number", value)
    encode_arguments([value])
