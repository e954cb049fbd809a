"""The catalog of IPC Cloud: the seven things that nearly every request of a user needs."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from coatcheck.engine.catalog import Catalog
from coatcheck.engine.codec import Body
from coatcheck.engine.policy import Policy
from coatcheck.ipc.api import IpcCloud
from coatcheck.ipc.models import BusinessUnits, Endpoint, Engagement, Environment, Zone

POLICY: Final = Policy(
    ttl=timedelta(hours=24),
    refresh_ahead=0.9,
    # What is a day old is nearly always still right; nothing at all is no help to somebody in a chat.
    stale_if_error=timedelta(hours=24),
    failure_throttle=timedelta(seconds=30),
    # A log-in and a call take one second together. Up to three calls stand one behind the other on the way to a list,
    # and a caller may wait so long for each.
    soft_timeout=timedelta(seconds=2),
    # A log-in, the call, and both once more after a 401, each with its own time limit.
    deadline=timedelta(seconds=80),
)
"""How each of them is kept, unless the cache is told otherwise."""

catalog: Final[Catalog[IpcCloud]] = Catalog("ipc")


@catalog.resource(POLICY)
async def engagement_data(api: IpcCloud) -> Body[Engagement]:
    """Return the first of the user's engagements, the one they work in."""
    return Body((await api.engagement()).raw)


@catalog.derived
def paas_engagement_id(engagement_data: Engagement) -> int:
    """Return the engagement's id in PaaS."""
    return engagement_data.id


@catalog.resource(POLICY)
async def ipc_engagement_id(api: IpcCloud, paas_engagement_id: int) -> int:
    """Return the engagement's id in IPC."""
    return (await api.ipc_engagement(paas_engagement_id)).value.ipc_engid


@catalog.resource(POLICY)
async def endpoints(api: IpcCloud, paas_engagement_id: int) -> Body[tuple[Endpoint, ...]]:
    """Return the engagement's data centres."""
    return Body((await api.endpoints(paas_engagement_id)).raw)


@catalog.resource(POLICY)
async def business_units(api: IpcCloud, ipc_engagement_id: int) -> Body[BusinessUnits]:
    """Return the engagement's departments."""
    return Body((await api.business_units(ipc_engagement_id)).raw)


@catalog.resource(POLICY)
async def environments_list(api: IpcCloud, ipc_engagement_id: int) -> Body[tuple[Environment, ...]]:
    """Return the engagement's environments."""
    return Body((await api.environments(ipc_engagement_id)).raw)


@catalog.resource(POLICY)
async def zones_list(api: IpcCloud, ipc_engagement_id: int) -> Body[tuple[Zone, ...]]:
    """Return the engagement's zones."""
    return Body((await api.zones(ipc_engagement_id)).raw)
