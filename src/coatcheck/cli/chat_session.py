"""The chat session: seven requests of one user, each of which needs the user's ids before it can do its work.

Without a cache a pass costs 21 upstream calls. With one the first pass costs 9 and every later one 3, which are the
lists that must be live.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from coatcheck.ipc.resources import (
    business_units,
    endpoints,
    environments_list,
    ipc_engagement_id,
    paas_engagement_id,
    zones_list,
)

if TYPE_CHECKING:
    from coatcheck.engine.session import Session

Answer = tuple[object, ...]
"""What a request brought, the ids on the way to it included, so that they are checked as well."""

Step = Callable[["Session"], Awaitable[Answer]]

MANAGED: Final = "IKSKafka"
"""The kind of managed services that is asked for."""

CALLS_UNCACHED: Final = 21
CALLS_COLD: Final = 9
CALLS_WARM: Final = 3


async def list_endpoints(session: Session) -> Answer:
    """The user's data centres: 2 calls without a cache."""
    return (await session.get(endpoints),)


async def list_clusters(session: Session) -> Answer:
    """Their clusters, live: 3 calls without a cache."""
    paas = await session.get(paas_engagement_id)
    ids = [each.endpoint_id for each in await session.get(endpoints, paas_engagement_id=paas)]
    listing = await session.call(lambda api: api.clusters(paas, ids))
    return paas, ids, listing.complete, len(listing.errors), listing.clusters.value


async def list_vms(session: Session) -> Answer:
    """The virtual machines, live: 3 calls without a cache."""
    ipc = await session.get(ipc_engagement_id)
    listing = await session.call(lambda api: api.vms(ipc))
    return ipc, listing.value


async def list_business_units(session: Session) -> Answer:
    """The departments: 3 calls without a cache."""
    return (await session.get(business_units),)


async def list_environments(session: Session) -> Answer:
    """The environments: 3 calls without a cache."""
    return (await session.get(environments_list),)


async def list_zones(session: Session) -> Answer:
    """The zones: 3 calls without a cache."""
    return (await session.get(zones_list),)


async def list_managed_services(session: Session) -> Answer:
    """The managed services of one kind, live: 4 calls without a cache."""
    paas = await session.get(paas_engagement_id)
    ipc = await session.get(ipc_engagement_id, paas_engagement_id=paas)
    ids = [each.endpoint_id for each in await session.get(endpoints, paas_engagement_id=paas)]
    listing = await session.call(lambda api: api.managed_services(ipc, ids, MANAGED))
    return paas, ipc, ids, listing.value


CHAT_SESSION: Final[tuple[Step, ...]] = (
    list_endpoints,
    list_clusters,
    list_vms,
    list_business_units,
    list_environments,
    list_zones,
    list_managed_services,
)
