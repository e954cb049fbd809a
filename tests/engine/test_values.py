"""An entry is its bytes and a typed value that no caller can change for another."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
import typing
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec
import pytest

from coatcheck import Body, Catalog
from coatcheck.engine.codec import Codec
from coatcheck.errors import BadUpstreamBody, CatalogError, WrongType
from coatcheck.testing import GatedLoader
from engine.test_single_flight import Holder
from engine.world import World, Zone

if TYPE_CHECKING:
    from coatcheck import Resource, SessionCache
    from engine.conftest import MakeCache


class Listing(msgspec.Struct, frozen=True):
    name: str
    tags: tuple[str, ...] = ()


class Choosy(msgspec.Struct, frozen=True):
    """Has code of its own, which raises what no decoder would."""

    name: str

    def __post_init__(self) -> None:
        raise LookupError(self.name)


T = TypeVar("T")
U = TypeVar("U")

Bare = collections.namedtuple("Bare", "items")  # noqa: PYI024 - one without hints is what is meant


class Hinted(NamedTuple):
    items: tuple[int, ...]


class Widened(Hinted):
    """Takes new attributes, as it has no slots."""


class Box(msgspec.Struct, Generic[T], frozen=True):
    items: T


class BoxOfList(Box[list[int]], frozen=True):
    pass


class Renamed(Box[list[T]], Generic[T], frozen=True):
    """Its T is not the T of what it inherits."""

    other: T | None = None


class Nested(msgspec.Struct, Generic[U], frozen=True):
    items: U
    inner: Box[tuple[U, ...]] | None = None
    more: Nested[U] | None = None


class Loose(msgspec.Struct, Generic[T], frozen=True):
    """Holds one of itself, but of anything."""

    items: T
    more: Loose | None = None  # type: ignore[type-arg]


@dataclasses.dataclass(frozen=True)
class DataBox(Generic[T]):
    items: T


@dataclasses.dataclass(frozen=True)
class Sealed:
    items: int


class Opened(Sealed):
    """Not declared a dataclass itself, so it takes new attributes."""


class Shelf:
    """A catalog of one resource of each kind of type, each returning what the test says."""

    def __init__(self) -> None:
        self.catalog: Catalog[Any] = Catalog("shelf")
        self.results: dict[str, Any] = {}
        catalog = self.catalog

        @catalog.resource
        async def maybe(api: Any) -> int | None:
            return self.results["maybe"]  # type: ignore[no-any-return]

        @catalog.resource
        async def numbers(api: Any) -> list[int]:
            return self.results["numbers"]  # type: ignore[no-any-return]

        @catalog.resource
        async def listing(api: Any) -> Body[Listing]:
            return self.results["listing"]  # type: ignore[no-any-return]

        @catalog.resource
        async def tree(api: Any) -> dict[str, Any]:
            return self.results["tree"]  # type: ignore[no-any-return]

        @catalog.resource
        async def zones(api: Any) -> tuple[Zone, ...]:
            return self.results["zones"]  # type: ignore[no-any-return]

        @catalog.resource
        async def colour(api: Any) -> Body[Literal["red", "blue"]]:
            return self.results["colour"]  # type: ignore[no-any-return]

        @catalog.resource
        async def choosy(api: Any) -> Body[Choosy]:
            return self.results["choosy"]  # type: ignore[no-any-return]

        self.maybe, self.numbers, self.listing, self.tree, self.zones = maybe, numbers, listing, tree, zones


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def shelf_cache(make_cache: MakeCache, shelf: Shelf) -> SessionCache[Any]:
    return make_cache(Holder(shelf.catalog))


@pytest.mark.parametrize(
    ("name", "value"), [("maybe", None), ("maybe", 0), ("numbers", []), ("tree", {}), ("zones", ())], ids=str
)
async def test_an_empty_value_is_a_value(
    shelf_cache: SessionCache[Any], shelf: Shelf, name: str, value: Any
) -> None:
    """None, nothing and zero are kept like anything else; only a missing entry is missing."""
    session = shelf_cache.session("ann")
    resource: Resource[Any] = shelf.catalog[name]
    shelf.results[name] = value
    assert value == await session.get(resource)
    shelf.results[name] = NotImplemented
    assert value == await session.get(resource)
    look = session.peek(resource)
    assert look is not None
    assert value == look.value


async def test_an_immutable_value_is_one_object_for_all(shelf_cache: SessionCache[Any], shelf: Shelf) -> None:
    """Nothing is decoded or copied on a hit; the loader's own object is not it."""
    shelf.results["zones"] = mine = (Zone("east", 1),)
    session = shelf_cache.session("ann")
    first = await session.get(shelf.zones)
    assert mine == first
    assert mine is not first
    assert first is await session.get(shelf.zones)
    assert first is (await session.lookup(shelf.zones)).value


async def test_a_value_that_can_be_changed_is_each_callers_own(
    cache: SessionCache[Any], world: World
) -> None:
    """Scenario 7, S12: what one caller does to it, also deep down, is seen by nobody else."""
    gate = GatedLoader()
    world.gates["notes"] = gate
    session = cache.session("ann")
    getting = [asyncio.create_task(session.get(world.notes)) for _ in range(2)]
    loaded = [{"days": [1, 2]}]
    await (await gate.hold()).succeed(loaded)
    one, two = await asyncio.gather(*getting)
    one[0]["days"].append(3)
    one.append({})
    loaded[0]["days"].clear()
    for value in (two, await session.get(world.notes), (await session.lookup(world.notes)).value):
        assert [{"days": [1, 2]}] == value
    look = session.peek(world.notes)
    assert look is not None
    look.value.clear()
    assert [{"days": [1, 2]}] == await session.get(world.notes)


@pytest.mark.parametrize(
    "declared",
    [
        Bare, Widened, Box, Box[Any], Box[list[int]], Box[T], BoxOfList, tuple[BoxOfList, ...], BoxOfList | None,  # type: ignore[valid-type]
        Renamed, Renamed[int], Nested, Nested[list[int]], Loose[int], Box[Loose[int]], DataBox, Opened, typing.Tuple,  # noqa: UP006
    ],
    ids=str,
)  # fmt: skip
def test_a_type_that_may_hold_what_can_be_changed_is_not_shared(declared: Any) -> None:
    """A field without a type, or of a variable that nobody gave, may hold a list: in doubt, each has its own."""
    assert not Codec[Any](declared, name="x").shared


@pytest.mark.parametrize(
    "declared", [Hinted, Box[int], Box[Box[int]], tuple[Box[int], ...], Nested[int], Sealed], ids=str
)
def test_a_generic_type_whose_parameters_cannot_be_changed_is_shared(declared: Any) -> None:
    """What is given for the variables decides."""
    assert Codec[Any](declared, name="x").shared


@pytest.mark.parametrize("declared", [Bare, Box, BoxOfList, DataBox], ids=str)
async def test_what_one_caller_appends_the_next_does_not_see(make_cache: MakeCache, declared: Any) -> None:
    """Each caller has a list of its own, however it is declared."""
    catalog: Catalog[Any] = Catalog("appending")

    async def boxed(api: Any) -> Any:
        return Body(b"[[1]]" if declared is Bare else b'{"items": [1]}')

    boxed.__annotations__["return"] = declared
    resource: Resource[Any] = catalog.resource(boxed)
    session = make_cache(Holder(catalog)).session("ann")
    for _ in range(2):
        value = await session.get(resource)
        assert [1] == value.items
        value.items.append(2)


async def test_a_loader_cannot_change_what_it_is_passed_for_others(make_cache: MakeCache) -> None:
    """A dependency of a type that can be changed is each loader's own, too, and its key is made before."""
    catalog: Catalog[Any] = Catalog("handing")

    @catalog.resource
    async def root(api: Any) -> list[int]:
        return [1]

    @catalog.resource
    async def child(api: Any, root: list[int]) -> tuple[int, ...]:
        root.append(2)
        return tuple(root)

    @catalog.derived
    def spoilt(root: list[int]) -> int:
        root.clear()
        return 0

    session = make_cache(Holder(catalog)).session("ann")
    assert (1, 2) == await session.get(child)
    assert 0 == await session.get(spoilt)
    assert [1] == await session.get(root)
    assert (1, 2) == await session.get(child)
    assert 2 == (await session.get_many(child, root)).__len__()


async def test_a_body_is_kept_as_it_came(shelf_cache: SessionCache[Any], shelf: Shelf) -> None:
    """What the declared type leaves out is still in the lookup's bytes; the value is typed."""
    raw = b'{ "name": "a", "unknown": [1, 2.50], "tags": ["x"] }'
    shelf.results["listing"] = Body(raw)
    look = await shelf_cache.session("ann").lookup(shelf.listing)
    assert Listing("a", ("x",)) == look.value
    assert raw == look.body
    assert raw == (await shelf_cache.session("ann").lookup(shelf.listing)).body


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda raw: memoryview(raw * 3)[: len(raw)]])
def test_a_body_copies_what_it_is_given(wrap: Any) -> None:
    """A slice would keep a larger buffer alive, and a bytearray could change."""
    raw = b'{"name":"a"}'
    body: Body[Any] = Body(wrap(raw))
    assert bytes is type(body.content)
    assert raw == body.content
    buffer = bytearray(raw)
    copied: Body[Any] = Body(buffer)
    buffer[2:6] = b"size"
    assert raw == copied.content


@pytest.mark.parametrize(
    ("declared", "value", "got"),
    [
        (dict, {1: 2}, {"1": 2}),
        (Any, (1, 2), [1, 2]),
        (dict[int, int], {1: 2}, {1: 2}),
        (tuple[int, ...], (1, 2), (1, 2)),
    ],
)
def test_a_value_goes_through_json_once_and_comes_as_the_declared_type(
    declared: Any, value: object, got: object
) -> None:
    """As the guide says it."""
    codec: Codec[object] = Codec(declared, name="x")
    _, accepted = codec.accept(value)
    assert (got, type(got)) == (accepted, type(accepted))


async def test_a_value_is_kept_as_json(shelf_cache: SessionCache[Any], shelf: Shelf) -> None:
    """The bytes of a value that was not a body are its encoding."""
    shelf.results["zones"] = (Zone("é", 1),)
    look = await shelf_cache.session("ann").lookup(shelf.zones)
    assert [{"name": "é", "project": 1}] == json.loads(look.body)


CANARY = "canary-5f3a"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return {"a": value}


@pytest.mark.parametrize(
    ("name", "result", "error"),
    [
        ("numbers", [CANARY], WrongType),
        ("numbers", {CANARY: 1}, WrongType),
        ("numbers", CANARY, WrongType),
        ("numbers", None, WrongType),
        ("maybe", CANARY, WrongType),
        ("zones", ({"name": CANARY},), WrongType),
        ("zones", object(), WrongType),
        ("tree", {"a": object()}, WrongType),
        ("tree", {"a": "\ud800" + CANARY}, WrongType),
        ("tree", nested(100_000), WrongType),
        ("listing", Body(b"<html>" + CANARY.encode()), BadUpstreamBody),
        ("listing", Body(b'{"name": "%s' % CANARY.encode()), BadUpstreamBody),
        ("listing", Body(b'{"name": 1, "x": "%s"}' % CANARY.encode()), BadUpstreamBody),
        ("listing", Body(b'{"tags": ["%s"]}' % CANARY.encode()), BadUpstreamBody),
        ("colour", Body(b'"%s"' % CANARY.encode()), BadUpstreamBody),
        ("colour", CANARY, WrongType),
        ("listing", Body(b""), BadUpstreamBody),
        ("listing", Body(b'{"name": "\xff"}'), BadUpstreamBody),
        ("listing", Body(b"[" * 100_000), BadUpstreamBody),
        ("listing", {"name": CANARY, "tags": 1}, WrongType),
        ("choosy", Body(b'{"name": "%s"}' % CANARY.encode()), BadUpstreamBody),
        ("choosy", {"name": CANARY}, WrongType),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_is_not_of_the_declared_type_is_an_error_and_kept_nowhere(
    shelf_cache: SessionCache[Any], shelf: Shelf, name: str, result: Any, error: type[Exception]
) -> None:
    """The error names the resource and never the content, in text, arguments, cause or context."""
    session = shelf_cache.session("ann")
    shelf.results[name] = result
    with pytest.raises(error, match=name) as caught:
        await session.get(shelf.catalog[name])
    each: BaseException | None = caught.value
    while each is not None:
        assert CANARY not in f"{each}{each!r}{each.args}"
        each = each.__cause__ or each.__context__
    assert 0 == shelf_cache.stats().entries
    assert 1 == shelf_cache.stats().resources[name].loads_by_end["failed"]


async def test_a_wrong_value_leaves_the_held_one(shelf_cache: SessionCache[Any], shelf: Shelf) -> None:
    """A forced load or a put of a wrong type changes nothing."""
    session = shelf_cache.session("ann")
    shelf.results["numbers"] = [1]
    await session.get(shelf.numbers)
    shelf.results["numbers"] = "wrong"
    with pytest.raises(WrongType):
        await session.get(shelf.numbers, force_refresh=True)
    wrong: Any = ["one"]
    with pytest.raises(WrongType, match="numbers"):
        await session.put(shelf.numbers, wrong)
    assert [1] == await session.get(shelf.numbers)


async def test_a_derived_resource_cannot_be_put(cache: SessionCache[Any], world: World) -> None:
    """It is what it is derived from."""
    with pytest.raises(CatalogError, match="project is derived"):
        await cache.session("ann").put(world.project, 1)
    assert () == cache.users()


async def test_a_derived_value_of_the_wrong_type_is_an_error(make_cache: MakeCache) -> None:
    """What a derived function returns is checked like what a loader returns."""
    catalog: Catalog[Any] = Catalog("deriving")

    @catalog.resource
    async def root(api: Any) -> int:
        return 1

    @catalog.derived
    def text(root: int) -> str:
        return root  # type: ignore[return-value]

    cache = make_cache(Holder(catalog))
    for _ in range(2):
        with pytest.raises(WrongType, match="text"):
            await cache.session("ann").get(text)
    assert 2 == cache.stats().resources["text"].failed
