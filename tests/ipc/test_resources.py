"""The catalog: what is kept of an IPC Cloud user, what hangs on what, and what comes of it over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from coatcheck import Outcome
from coatcheck.errors import BadUpstreamBody, Forbidden, NotFound
from coatcheck.ipc import catalog
from coatcheck.ipc.api import LIVE_TIMEOUT, LOG_IN_TIMEOUT
from coatcheck.ipc.resources import (
    POLICY,
    business_units,
    endpoints,
    engagement_data,
    environments_list,
    ipc_engagement_id,
    paas_engagement_id,
    zones_list,
)
from ipc.rig import ANN, TWO, Rig

if TYPE_CHECKING:
    from coatcheck import Resource

DEPENDENCIES = {
    "engagement_data": [],
    "paas_engagement_id": ["engagement_data"],
    "ipc_engagement_id": ["paas_engagement_id"],
    "endpoints": ["paas_engagement_id"],
    "business_units": ["ipc_engagement_id"],
    "environments_list": ["ipc_engagement_id"],
    "zones_list": ["ipc_engagement_id"],
}
LISTS: dict[Resource[Any], tuple[str, str]] = {
    endpoints: ("endpoints", "P"),
    environments_list: ("environments", "N"),
    zones_list: ("zones", "Z"),
}


def test_seven_resources_and_what_each_needs() -> None:
    assert {each.name: [needed.name for needed in each.dependencies] for each in catalog} == DEPENDENCIES
    assert [each.name for each in catalog if each.derived] == ["paas_engagement_id"]


@pytest.mark.parametrize(
    ("resource", "calls"),
    [
        (engagement_data, 1),
        (paas_engagement_id, 1),
        (ipc_engagement_id, 2),
        (endpoints, 2),
        (business_units, 3),
        (environments_list, 3),
        (zones_list, 3),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_each_costs_without_a_cache(resource: Resource[Any], calls: int) -> None:
    assert resource.calls() == calls


@pytest.mark.parametrize(
    "resource", [each for each in catalog if not each.derived], ids=lambda each: each.name
)
def test_each_is_kept_for_a_day_and_served_as_one_object(resource: Resource[Any]) -> None:
    """A load has time for a log-in, the call, and both again after a 401."""
    assert resource.policy == POLICY
    assert POLICY.ttl == timedelta(hours=24)
    assert POLICY.deadline >= timedelta(seconds=2 * (LOG_IN_TIMEOUT + LIVE_TIMEOUT))
    assert resource.codec.shared


def test_each_bridges_a_day_of_outage() -> None:
    """Tried every half minute; nobody waits longer than a log-in and a call take when all is well."""
    assert POLICY.stale_if_error == timedelta(hours=24)
    assert POLICY.failure_throttle == timedelta(seconds=30)
    assert POLICY.soft_timeout == timedelta(seconds=2)
    assert POLICY.advice() == ()


async def test_all_of_them_for_one_user(rig: Rig) -> None:
    """Side by side, in six calls; typed, and as they came."""
    session, owned = rig.cache.session(ANN), rig.truth(ANN)
    await session.warm()
    assert rig.log_ins_made() == 1
    assert rig.calls() == "ECPBNZ"
    assert (await session.get(engagement_data)).customer_name == owned["engagement"]["customerName"]
    assert await session.get(paas_engagement_id) == owned["paas_engagement_id"]
    assert await session.get(ipc_engagement_id) == owned["ipc_engagement_id"]
    units = await session.get(business_units)
    assert [each.name for each in units.department] == [each["name"] for each in owned["departments"]]
    assert units.engagement is not None
    assert units.engagement.id == owned["ipc_engagement_id"]
    assert [each.no_of_vms for each in units.department] == [each["noOfVMs"] for each in owned["departments"]]
    assert [each.endpoint_id for each in await session.get(endpoints)] == [
        each["endpointId"] for each in owned["endpoints"]
    ]
    assert [each.of_department for each in await session.get(environments_list)] == [
        each["departmentId"] for each in owned["environments"]
    ]
    assert [each.cidr for each in await session.get(zones_list)] == [each["cidr"] for each in owned["zones"]]
    assert rig.calls() == ""


@pytest.mark.parametrize("resource", LISTS, ids=lambda each: each.name)
async def test_what_the_types_leave_out_stays_in_the_body(rig: Rig, resource: Resource[Any]) -> None:
    field, _ = LISTS[resource]
    look = await rig.cache.session(ANN).lookup(resource)
    assert msgspec.json.decode(look.body) == rig.truth(ANN)[field]
    assert look.outcome is Outcome.MISS


@pytest.mark.parametrize("resource", LISTS, ids=lambda each: each.name)
async def test_another_engagement_has_lists_of_its_own(rig: Rig, resource: Resource[Any]) -> None:
    field, letter = LISTS[resource]
    second = rig.truth(TWO, 1)
    parameter = resource.parameters[0].name
    session = rig.cache.session(TWO)
    look = await session.lookup(resource, **{parameter: second[parameter]})
    assert msgspec.json.decode(look.body) == second[field]
    assert rig.calls() == letter
    assert session.peek(resource) is None
    assert msgspec.json.decode((await session.lookup(resource)).body) == rig.truth(TWO)[field]


async def test_an_engagement_that_is_refused_takes_along_what_hangs_below_it(rig: Rig) -> None:
    """403 for the engagement itself: nothing of it is shown any more."""
    session = rig.cache.session(ANN)
    await session.warm()
    rig.simulator.set_faults([{"kind": "status", "status": 403, "path": "engagements"}])
    with pytest.raises(Forbidden):
        await session.get(engagement_data, force_refresh=True)
    assert [each for each in catalog if session.peek(each) is not None] == []
    with pytest.raises(Forbidden):
        await session.get(zones_list)


async def test_a_list_that_is_not_found_leaves_the_others(rig: Rig) -> None:
    session = rig.cache.session(ANN)
    await session.warm()
    rig.simulator.set_faults([{"kind": "status", "status": 404, "path": "zones"}])
    with pytest.raises(NotFound):
        await session.get(zones_list, force_refresh=True)
    assert [each.name for each in catalog if session.peek(each) is None] == ["zones_list"]


async def test_a_conversion_without_the_id(rig: Rig) -> None:
    rig.simulator.set_faults([{"kind": "wrong_type", "path": "conversion", "times": 1}])
    session = rig.cache.session(ANN)
    with pytest.raises(BadUpstreamBody):
        await session.get(ipc_engagement_id)
    # The simulator's wrong types are ids; "ipc_engid" is one of them.
    assert await session.get(ipc_engagement_id) == rig.truth(ANN)["ipc_engagement_id"]


async def test_a_user_without_an_engagement(rig: Rig) -> None:
    rig.simulator.set_faults([{"kind": "empty_list", "path": "engagements"}])
    with pytest.raises(NotFound):
        await rig.cache.session(ANN).get(zones_list)
    assert rig.calls() == "E"
