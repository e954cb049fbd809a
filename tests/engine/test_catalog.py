"""What can be declared, and what a wrong declaration says."""

from __future__ import annotations

import dataclasses
import enum
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import pydantic
import pytest

from coatcheck import Body, Catalog, Policy, SessionCache
from coatcheck.engine.codec import immutable
from coatcheck.errors import CatalogError, PolicyError, UnknownResource
from engine.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = Policy(ttl=timedelta(hours=1))


class Left(msgspec.Struct):
    x: int


class Right(msgspec.Struct):
    y: int


@pytest.fixture
def catalog() -> Catalog[str]:
    return Catalog("trial")


def test_a_bare_decorator_and_one_with_a_policy_declare_alike(catalog: Catalog[str]) -> None:
    """Both keep the loader's name; the policy is the default or the one given."""

    @catalog.resource
    async def one(api: str) -> int:
        return 1

    @catalog.resource(HOUR)
    async def two(api: str, one: int) -> Body[int]:
        return Body(b"2")

    @catalog.derived
    def three(two: int) -> str:
        return str(two)

    assert [one, two, three] == list(catalog)
    assert 3 == len(catalog)
    assert (Policy(), HOUR) == (one.policy, two.policy)
    assert two is catalog["two"]
    assert two in catalog
    assert (one,) == two.dependencies
    assert (one, two) == three.ancestors
    assert (two, three) == catalog.dependents(one)
    assert (1, 2, 2) == (one.calls(), two.calls(), three.calls())
    assert 1 == two.calls({"one"})


async def no_return(api: str):  # type: ignore[no-untyped-def]
    return 1


async def no_api() -> int:
    return 1


async def only_keywords(*, api: str) -> int:
    return 1


async def unknown_type(api: str) -> "Unheard":  # type: ignore[name-defined]  # noqa: F821, UP037
    return 1


async def broken_type(api: str) -> "msgspec.Unheard":  # type: ignore[name-defined]  # noqa: UP037
    return 1


async def bare_body(api: str) -> Body:  # type: ignore[type-arg]
    return Body(b"1")


async def ambiguous(api: str) -> Left | Right:
    return Left(1)


async def spread(api: str, *rest: int) -> int:
    return 1


async def open_ended(api: str, **rest: int) -> int:
    return 1


async def hidden(api: str, number: int, /) -> int:
    return 1


async def forced(api: str, force_refresh: bool) -> int:
    return 1


async def aged(api: str, max_age: int) -> int:
    return 1


async def deepened(api: str, deep: int) -> int:
    return 1


async def recursive(api: str, recursive: int) -> int:
    return 1


async def named_like_it(known: str) -> int:
    return 1


def plain(api: str) -> int:
    return 1


async def generator(api: str):  # type: ignore[no-untyped-def]
    yield 1


@pytest.mark.parametrize(
    "loader",
    [
        no_return, no_api, only_keywords, unknown_type, broken_type, bare_body, ambiguous, spread, open_ended, hidden,
        forced, aged, deepened, recursive, named_like_it, plain, generator, lambda api: 1, int,
    ],
    ids=lambda loader: loader.__name__,
)  # fmt: skip
def test_a_loader_that_cannot_work_is_refused_when_it_is_declared(
    catalog: Catalog[str], loader: Callable[..., Any]
) -> None:
    """Each mistake is a CatalogError that says what to write, and leaves the catalog as it was."""

    @catalog.resource
    async def known(api: str) -> int:
        return 1

    with pytest.raises(CatalogError) as caught:
        catalog.resource(loader)
    if loader.__name__.isidentifier():
        assert loader.__name__ in str(caught.value)
    assert [known] == list(catalog)


class Thing:
    """A class that says nothing of what it holds."""


class Model(pydantic.BaseModel):
    """A class that says it to another library alone."""


@pytest.mark.parametrize(
    "declared",
    [Model, list[Model], Thing, Thing | None, list[Thing], dict[str, Thing], dict[str, list[Thing]], tuple[int, Thing], tuple[Thing, ...]],
)  # fmt: skip
def test_a_class_that_nothing_is_known_of_is_refused_when_it_is_declared(
    catalog: Catalog[str], declared: Any
) -> None:
    """It would be refused at each get, as a value that does not fit what it is."""

    async def things(api: str) -> Any:
        return []

    things.__annotations__["return"] = declared
    with pytest.raises(
        CatalogError, match=r"things: .*(Thing|Model) is a class that nothing is known of; a msgspec.Struct"
    ):
        catalog.resource(things)


@pytest.mark.parametrize("declared", [object, dict[str, object], list[int | str], frozenset[int]])
def test_what_json_can_become_is_not(catalog: Catalog[str], declared: Any) -> None:
    async def things(api: str) -> Any:
        return []

    things.__annotations__["return"] = declared
    assert catalog.resource(things).name == "things"


def from_nothing() -> int:
    return 1


def from_unknown(unknown: int) -> int:
    return 1


def from_default(known: int, other: int = 1) -> int:
    return 1


async def waiting(known: int) -> int:
    return 1


def untyped(known):  # type: ignore[no-untyped-def]
    return 1


@pytest.mark.parametrize(
    "function",
    [from_nothing, from_unknown, from_default, waiting, untyped, lambda known: 1],
    ids=lambda function: function.__name__,
)
def test_a_derived_function_takes_declared_resources_only(
    catalog: Catalog[str], function: Callable[..., Any]
) -> None:
    """Anything else has no freshness of its own that it could have."""

    @catalog.resource
    async def known(api: str) -> int:
        return 1

    with pytest.raises(CatalogError):
        catalog.derived(function)
    assert [known] == list(catalog)


def test_a_name_is_declared_once(catalog: Catalog[str]) -> None:
    """A second declaration of a name is refused."""

    async def one(api: str) -> int:
        return 1

    catalog.resource(one)
    with pytest.raises(CatalogError, match="one is declared twice"):
        catalog.resource(one)


def test_a_circle_cannot_be_declared(catalog: Catalog[str]) -> None:
    """What is declared later is no dependency but an argument of the caller's."""

    @catalog.resource
    async def early(api: str, late: int) -> int:
        return late

    @catalog.resource
    async def late(api: str, early: int) -> int:
        return early

    assert () == early.dependencies
    assert (early,) == late.dependencies


@pytest.mark.parametrize("wrong", ["an hour", 3600, timedelta(hours=1)], ids=repr)
def test_a_policy_is_a_policy(catalog: Catalog[str], wrong: Any) -> None:
    """The decorator says what it takes."""
    with pytest.raises(CatalogError, match="Policy"):
        catalog.resource(wrong)


@pytest.mark.parametrize("name", ["", "two words", "a:b", "1st"])
def test_a_catalog_has_a_name_that_can_be_filed(name: str) -> None:
    """It is part of what entries are stored under."""
    with pytest.raises(CatalogError, match="identifier"):
        Catalog(name)


def test_a_catalog_in_use_takes_no_more(catalog: Catalog[str]) -> None:
    """A cache knows all its resources from the start."""
    SessionCache(catalog, connect=str)
    with pytest.raises(CatalogError, match="before a cache is built"):
        catalog.derived(plain)


async def test_a_resource_of_another_catalog_is_unknown(cache: SessionCache[Any], world: World) -> None:
    """Also one of the same name, with every call; what is held stays."""
    await cache.session("ann").get(world.account)
    foreign = World()
    session = cache.session("ann")
    for call in (
        session.get(foreign.account),
        session.get(foreign.item, number=1),
        session.lookup(foreign.account),
        session.get_many(world.account, foreign.account),
        session.put(foreign.account, 1),
        session.invalidate(foreign.account),
        cache.invalidate(foreign.account),
    ):
        with pytest.raises(UnknownResource, match=r"account|item"):
            await call
    for attempt in (
        lambda: session.peek(foreign.account),
        lambda: cache.set_policy(foreign.account, HOUR),
        lambda: cache.policy(foreign.account),
    ):
        with pytest.raises(UnknownResource, match="account"):
            attempt()
    assert 1 == cache.stats().entries
    assert [] == foreign.calls


@pytest.mark.parametrize("thing", ["account", None, 7, object(), len], ids=lambda thing: type(thing).__name__)
async def test_what_is_no_resource_at_all_is_unknown(cache: SessionCache[Any], thing: Any) -> None:
    """The error names its type, not what it holds."""
    with pytest.raises(UnknownResource, match=type(thing).__name__):
        await cache.session("ann").get(thing)
    with pytest.raises(UnknownResource):
        cache.session("ann").peek(thing)


def test_an_unknown_name_lists_the_known_ones(catalog: Catalog[str]) -> None:
    """Looking a resource up by name says what there is."""

    @catalog.resource
    async def one(api: str) -> int:
        return 1

    with pytest.raises(UnknownResource, match="it has: one"):
        catalog["two"]


async def test_a_policy_in_force_is_set_and_read(cache: SessionCache[Any], world: World) -> None:
    """A derived resource has none of its own, and only a policy will do."""
    cache.set_policy(world.account, HOUR)
    assert HOUR == cache.policy(world.account)
    assert HOUR != world.account.policy
    with pytest.raises(PolicyError, match="derived"):
        cache.set_policy(world.project, HOUR)
    wrong: Any = timedelta(hours=1)
    with pytest.raises(PolicyError, match="account"):
        cache.set_policies({world.zones: Policy(), world.account: wrong})
    assert HOUR == cache.policy(world.account)
    assert HOUR != Policy()


class Colour(enum.Enum):
    RED = "red"


class Frozen(msgspec.Struct, frozen=True):
    x: int
    rest: tuple[Frozen, ...] = ()


class Thawing(msgspec.Struct, frozen=True):
    items: list[int]


@dataclasses.dataclass(frozen=True)
class Solid:
    x: int


@dataclasses.dataclass
class Liquid:
    x: int


class Pair(NamedTuple):
    x: int
    y: str


class LoosePair(NamedTuple):
    x: int
    y: list[int]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (int, True), (str, True), (bytes, True), (None, True), (type(None), True), (datetime, True), (Colour, True),
        (tuple[int, ...], True), (tuple[int, str], True), (int | None, True), (Literal["a"], True), (Frozen, True),
        (tuple[Frozen, ...], True), (Solid, True), (Pair, True), (frozenset[int], True),
        (list, False), (list[int], False), (dict[str, int], False), (set[int], False), (Any, False), (Left, False),
        (Thawing, False), (Liquid, False), (tuple[list[int], ...], False), (int | list[int], False),
        (LoosePair, False), (tuple[Left, ...], False), (object, False), (tuple, False),
    ],
    ids=str,
)  # fmt: skip
def test_only_what_nobody_can_change_is_shared(declared: Any, expected: bool) -> None:
    """A type is shared among callers only if it is immutable all the way down."""
    assert expected is immutable(declared)
