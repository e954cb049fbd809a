"""A small upstream for the engine's tests: six resources whose loads are counted, answered at once or held on a gate."""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from coatcheck.engine.catalog import Catalog
from coatcheck.engine.policy import Policy
from coatcheck.testing import GatedLoader

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

DAY = 86_400.0
PLAIN_POLICY = Policy(ttl=timedelta(days=1), jitter=0)


class Zone(msgspec.Struct, frozen=True):
    name: str
    project: int


class Api:
    """What connect returns: whose it is, and whether it was closed."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1


class Loaded(NamedTuple):
    """One call of a loader."""

    user: str
    name: str
    arguments: dict[str, Any]


class World:
    """The catalog, and what its loaders do.

    ``account`` <- ``project`` (derived) <- ``zones`` <- ``hosts`` (with a defaulted argument of the caller's);
    ``item`` takes an argument of the caller's; ``notes`` is of a type that can be changed.

    Attributes:
        calls: every call of a loader, in order.
        answers: by resource: a value, or a function of the user and the arguments that returns or raises.
        gates: by resource: where its loads are held.
        connected: the users that connect was called for, in order.
        apis: what connect returned, in order.
    """

    def __init__(self, **policies: Policy) -> None:
        self.calls: list[Loaded] = []
        self.answers: dict[str, Any] = {}
        self.gates: dict[str, GatedLoader] = {}
        self.connected: list[str] = []
        self.apis: list[Api] = []
        self.numbers: dict[str, int] = {}
        self.catalog: Catalog[Api] = Catalog("estate")
        catalog = self.catalog

        def policy(name: str) -> Policy:
            return policies.get(name, policies.get("default", PLAIN_POLICY))

        @catalog.resource(policy("account"))
        async def account(api: Api) -> int:
            return await self._load(api, "account", self._number_of)

        @catalog.derived
        def project(account: int) -> int:
            return account * 10

        @catalog.resource(policy("zones"))
        async def zones(api: Api, project: int) -> tuple[Zone, ...]:
            return await self._load(api, "zones", _zones_of, project=project)

        @catalog.resource(policy("hosts"))
        async def hosts(api: Api, zones: tuple[Zone, ...], kind: str = "all") -> tuple[str, ...]:
            return await self._load(api, "hosts", _hosts_of, zones=zones, kind=kind)

        @catalog.resource(policy("item"))
        async def item(api: Api, number: object) -> str:
            return await self._load(api, "item", _item_of, number=number)

        @catalog.resource(policy("notes"))
        async def notes(api: Api) -> list[dict[str, list[int]]]:
            return await self._load(api, "notes", _notes_of)

        self.account = account
        self.project = project
        self.zones = zones
        self.hosts = hosts
        self.item = item
        self.notes = notes

    def connect(self, user: str) -> Api:
        self.connected.append(user)
        api = Api(user)
        self.apis.append(api)
        return api

    def hold(self, name: str) -> GatedLoader:
        """Hold all further loads of a resource."""
        return self.gates.setdefault(name, GatedLoader())

    def release(self, name: str) -> None:
        """Answer all further loads of a resource at once."""
        del self.gates[name]

    def fail(self, name: str, make: Callable[[], BaseException]) -> None:
        """Let all further loads of a resource raise a new exception each."""

        def fails(_user: str, **_arguments: object) -> Any:
            raise make()

        self.answers[name] = fails

    def count(self, name: str, user: str | None = None) -> int:
        """Return how often a loader was called."""
        return sum(1 for call in self.calls if call.name == name and user in (None, call.user))

    def names(self) -> list[str]:
        """Return which loaders were called, in order."""
        return [call.name for call in self.calls]

    async def _load(self, api: Api, name: str, default: Callable[..., T], **arguments: object) -> T:
        self.calls.append(Loaded(api.user, name, arguments))
        gate = self.gates.get(name)
        answer = self.answers.get(name, default)
        result: Any
        if gate is not None:
            result = gate(api, **arguments)
        else:
            result = answer(api.user, **arguments) if callable(answer) else answer
        loaded: T = await result if inspect.isawaitable(result) else result
        return loaded

    def _number_of(self, user: str) -> int:
        return self.numbers.setdefault(user, len(self.numbers) + 1)


def _zones_of(user: str, project: int) -> tuple[Zone, ...]:
    return (Zone(f"{user}/east", project), Zone(f"{user}/west", project))


def _hosts_of(user: str, zones: tuple[Zone, ...], kind: str) -> tuple[str, ...]:
    return tuple(f"{zone.name}/{kind}" for zone in zones)


def _item_of(user: str, number: object) -> str:
    return f"{user} has {number!r}"


def _notes_of(user: str) -> list[dict[str, list[int]]]:
    return [{"days": [1, 2]}]
