"""What is measured: catalogs, caches filled with users, and the flat dictionary that is the floor."""

from __future__ import annotations

from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal

from coatcheck import Catalog, Limits, Policy, SessionCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from coatcheck import Resource

# Its decoded value is one object for all, so what an entry takes beyond its body is all that is left to see.
TEXT: Final = (
    "the same text of ninety-six characters for every entry, so that only what is around it is seen.."
)
Text = Literal[
    "the same text of ninety-six characters for every entry, so that only what is around it is seen.."
]
BODY_BYTES = len(TEXT) + 2
LASTING = Policy(ttl=timedelta(days=7))
# The stored resources of the chained catalog, and their bodies: [7,8], 8 and three texts.
CHAIN_STORED = 5
CHAIN_BODY_BYTES = 5 + 1 + 3 * BODY_BYTES
NAMES = tuple(f"resource_{number}" for number in range(6))


def users(number: int) -> list[str]:
    """Return so many user ids."""
    return [f"user-{each}@example.com" for each in range(number)]


def anew(owner: str) -> str:
    """Return an id that is equal to one held but not the same object: requests bring their own."""
    return owner.encode().decode()


def connect(_user: str) -> None:
    """Return the API object of a user: none is needed."""


def flat() -> tuple[Catalog[None], tuple[Resource[Text], ...]]:
    """Return six resources that depend on nothing."""
    catalog: Catalog[None] = Catalog("flat")

    def declare(name: str) -> Resource[Text]:
        async def loader(api: None) -> Text:
            return TEXT

        loader.__name__ = name
        return catalog.resource(LASTING)(loader)

    return catalog, tuple(declare(name) for name in NAMES)


def chained() -> tuple[Catalog[None], tuple[Resource[Any], ...]]:
    """Return five stored resources of which the last three depend on the second by way of a derived one and the first."""
    catalog: Catalog[None] = Catalog("chained")

    @catalog.resource(LASTING)
    async def engagement(api: None) -> tuple[int, ...]:
        return (7, 8)

    @catalog.derived
    def engagement_id(engagement: tuple[int, ...]) -> int:
        return engagement[0]

    @catalog.resource(LASTING)
    async def center(api: None, engagement_id: int) -> int:
        return engagement_id + 1

    def leaf(name: str) -> Resource[Text]:
        async def loader(api: None, center: int) -> Text:
            return TEXT

        loader.__name__ = name
        return catalog.resource(LASTING)(loader)

    return catalog, (engagement, engagement_id, center, leaf("countries"), leaf("units"), leaf("hosts"))


def roomy(catalog: Catalog[None], **options: Any) -> SessionCache[None]:
    """Return a cache that evicts nothing."""
    limits = Limits(max_bytes=1 << 40, max_sessions=1 << 24)
    return SessionCache(catalog, connect=connect, **{"limits": limits, **options})


async def fill(cache: SessionCache[None], owners: Iterable[str], resources: Sequence[Resource[Text]]) -> None:
    """Load one resource of every user, put the others in, which is quicker, and get each once: so they stay."""
    for owner in owners:
        session = cache.session(owner)
        await session.get(resources[0])
        for resource in resources[1:]:
            await session.put(resource, TEXT)
        for resource in resources:
            await session.get(resource)


async def fill_chain(
    cache: SessionCache[None], owners: Iterable[str], chain: Sequence[Resource[Any]]
) -> None:
    """Do the same for the chained catalog."""
    for owner in owners:
        session = cache.session(owner)
        await session.get(chain[0])
        await session.put(chain[2], 8)
        await fill(cache, [owner], chain[3:])


async def load(user: str, resource: str) -> str:
    """Fetch for peers: the same value at once."""
    return TEXT


def dictionary(owners: Iterable[str], names: Sequence[str] = NAMES) -> dict[tuple[str, str], Any]:
    """Return the floor: a flat dictionary by user and resource, with one shared value and a deadline each."""
    return {
        (owner, name): (monotonic() + number, TEXT) for owner in owners for number, name in enumerate(names)
    }


def looker(table: dict[tuple[str, str], Any]) -> Callable[[str, str], Awaitable[Any]]:
    """Return the floor of a hit: a coroutine that looks a tuple up and reads the clock."""

    async def look_up(user: str, resource: str) -> Any:
        value = table[user, resource]
        monotonic()
        return value

    return look_up
