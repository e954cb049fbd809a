"""What can be asked for in a `World`, by whom, under which policies, and how a load can end.

Every value names the load that made it.
"""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any, Protocol

import msgspec

from coatcheck.engine.catalog import Catalog
from coatcheck.engine.codec import Body
from coatcheck.engine.policy import Policy

# Near-identical on purpose: case, blanks and Unicode form all count.
USERS = ("ann", "Ann", "ann ", "zo\u00e9", "zoe\u0301")

SAVES_ONE = {"account": 1, "notes": 1, "page": 2, "digest": 2, "rows": 3, "number": 1, "card": 3}
"""Upstream calls that a get costs without a cache."""

DEPENDS = {
    "account": (),
    "notes": (),
    "page": ("account",),
    "digest": ("account",),
    "rows": ("page", "account"),
    "number": ("account",),
    "card": ("page", "account", "notes"),
}
"""Stored resources that a get passes through."""

STORED = ("account", "notes", "page", "digest", "rows")


class Account(msgspec.Struct, frozen=True):
    owner: str
    number: int


class Page(msgspec.Struct, frozen=True):
    load: int
    owner: str
    number: int
    region: str


class Digest(msgspec.Struct, frozen=True):
    load: int
    owner: str
    account_number: int
    number: int


class Rows(msgspec.Struct, frozen=True):
    load: int
    owner: str
    page_load: int


OK = "ok"
UNAVAILABLE = "unavailable"
FORBIDDEN = "forbidden"
MISSING = "missing"
REJECTED = "rejected"
BROKEN = "broken"
WRONG = "wrong type"
GARBAGE = "garbage"
CANCELLED = "cancelled from within"
BASE = "no ordinary exception"
FAILURES = (
    UNAVAILABLE,
    UNAVAILABLE,
    UNAVAILABLE,
    FORBIDDEN,
    FORBIDDEN,
    MISSING,
    REJECTED,
    BROKEN,
    WRONG,
    GARBAGE,
    CANCELLED,
    BASE,
)
HIDEABLE = frozenset({UNAVAILABLE, GARBAGE})
REFUSALS = frozenset({FORBIDDEN, MISSING})
LET_GO = "let go"
PUT = "put"

BASE_POLICY = Policy(ttl=timedelta(seconds=20), deadline=timedelta(seconds=10), jitter=0.0,
                     failure_throttle=timedelta(seconds=5), negative_ttl=timedelta(seconds=4))  # fmt: skip


def policy(**changes: Any) -> Policy:
    """Return the base policy with some fields changed; plain numbers are seconds."""
    spans = {"ttl", "deadline", "failure_throttle", "negative_ttl", "stale_if_error", "soft_timeout"}
    fields = {
        name: timedelta(seconds=value) if name in spans and value is not None else value
        for name, value in changes.items()
    }
    return msgspec.structs.replace(BASE_POLICY, **fields)


POLICIES = (
    BASE_POLICY,
    policy(stale_if_error=30),
    policy(stale_if_error=30, failure_throttle=1),
    policy(stale_if_error=30, soft_timeout=3),
    policy(refresh_ahead=0.5, stale_if_error=30),
    policy(refresh_ahead=0.5, jitter=0.5, soft_timeout=3, stale_if_error=12),
    policy(ttl=8),
    policy(ttl=8, stale_if_error=6),
    policy(ttl=100, negative_ttl=0),
    policy(deadline=4, ttl=3),
)


SHORTEST_DEADLINE = 4


class Api(Protocol):
    """What loaders are given."""

    async def load(self, resource: str, **arguments: Any) -> Any:
        """Return what the upstream answers."""
        ...


@functools.cache
def make_catalog() -> Catalog[Api]:
    """Return a catalog with a chain, a diamond, derived resources, an own argument and a value that can be changed."""
    catalog: Catalog[Api] = Catalog("recorded")

    @catalog.resource(BASE_POLICY)
    async def account(api: Api) -> Body[Account]:
        body: Body[Account] = await api.load("account")
        return body

    @catalog.resource(BASE_POLICY)
    async def notes(api: Api) -> dict[str, Any]:
        value: dict[str, Any] = await api.load("notes")
        return value

    @catalog.derived
    def number(account: Account) -> int:
        return account.number

    @catalog.resource(BASE_POLICY)
    async def page(api: Api, number: int, region: str = "eu") -> Body[Page]:
        body: Body[Page] = await api.load("page", number=number, region=region)
        return body

    @catalog.resource(BASE_POLICY)
    async def digest(api: Api, account: Account, number: int) -> Digest:
        value: Digest = await api.load("digest", account=account, number=number)
        return value

    @catalog.resource(BASE_POLICY)
    async def rows(api: Api, page: Page) -> Body[Rows]:
        body: Body[Rows] = await api.load("rows", page=page)
        return body

    @catalog.derived
    def card(page: Page, notes: dict[str, Any]) -> tuple[str, int, int]:
        return (page.owner, page.load, notes["load"])

    return catalog
