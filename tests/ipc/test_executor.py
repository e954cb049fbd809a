"""The drop-in service as its callers know it: every method, its arguments, and what comes back."""

from __future__ import annotations

import asyncio
import inspect
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck import current_user
from coatcheck.errors import InvalidKey
from coatcheck.ipc import APIExecutorService
from coatcheck.ipc.api import SERVICE_TYPES
from ipc.rig import ANN, BOB, TWO, Rig, expected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Fetch = Callable[..., Awaitable[Any]]

LATER = "user_id=None, force_refresh=False"
SIGNATURES = {
    "get_engagement_id": "force_refresh=False, user_id=None",
    "get_ipc_engagement_id": f"engagement_id=None, {LATER}",
    "get_endpoints": f"engagement_id=None, {LATER}",
    "get_business_units_list": f"ipc_engagement_id=None, {LATER}",
    "get_environments_list": f"ipc_engagement_id=None, {LATER}",
    "get_zones_list": f"ipc_engagement_id=None, {LATER}",
    "list_endpoints": "engagement_id=None, user_id=None",
    "list_clusters": "endpoint_ids=None, engagement_id=None, user_id=None",
    "list_vms": (
        "ipc_engagement_id=None, endpoint_filter=None, zone_filter=None, department_filter=None, user_id=None"
    ),
    "list_managed_services": "service_type, endpoint_ids=None, ipc_engagement_id=None, user_id=None",
    "_get_user_id_from_email": "email=None",
    "_get_user_session": "user_id=None, force_refresh=False",
    "_update_user_session": "user_id=None, **fields",
    "close": "",
}

# Of the six that are kept: the letter of its own call, and those of a cold one.
KEPT = {
    "get_engagement_id": ("E", "E"),
    "get_ipc_engagement_id": ("C", "EC"),
    "get_endpoints": ("P", "EP"),
    "get_business_units_list": ("B", "ECB"),
    "get_environments_list": ("N", "ECN"),
    "get_zones_list": ("Z", "ECZ"),
}
BY_PAAS = ("get_ipc_engagement_id", "get_endpoints")
BY_IPC = ("get_business_units_list", "get_environments_list", "get_zones_list")


def method(rig: Rig, name: str) -> Fetch:
    fetch: Fetch = getattr(rig.service, name)
    return fetch


@pytest.mark.parametrize("name", SIGNATURES)
def test_argument_order_is_part_of_the_contract(name: str) -> None:
    """Names, order and defaults; all but the open fields may be passed by position."""
    parameters = list(inspect.signature(getattr(APIExecutorService, name)).parameters.values())[1:]
    assert (
        ", ".join(str(each.replace(annotation=inspect.Parameter.empty)) for each in parameters)
        == (SIGNATURES[name])
    )


def test_all_but_one_are_awaited() -> None:
    awaited = {name for name in SIGNATURES if inspect.iscoroutinefunction(getattr(APIExecutorService, name))}
    assert awaited == SIGNATURES.keys() - {"_get_user_id_from_email"}


class TestKept:
    """The six whose answers are kept."""

    @pytest.mark.parametrize("name", KEPT)
    async def test_the_first_call_fetches_and_the_second_does_not(self, rig: Rig, name: str) -> None:
        answer = await method(rig, name)(user_id=ANN)
        assert answer == expected(name, rig.truth(ANN))
        assert rig.calls() == KEPT[name][1]
        assert await method(rig, name)(user_id=ANN) == answer
        assert rig.calls() == ""

    @pytest.mark.parametrize("name", KEPT)
    async def test_a_forced_one_fetches_its_own_and_what_is_missing(self, rig: Rig, name: str) -> None:
        own, cold = KEPT[name]
        for calls in (cold, own, own):
            assert await method(rig, name)(user_id=ANN, force_refresh=True) == expected(name, rig.truth(ANN))
            assert rig.calls() == calls

    @pytest.mark.parametrize("name", BY_PAAS)
    async def test_of_an_engagement_that_is_named(self, rig: Rig, name: str) -> None:
        second = rig.truth(TWO, 1)
        fetch, paas_id = method(rig, name), second["paas_engagement_id"]
        own, _ = KEPT[name]
        assert await fetch(paas_id, TWO) == expected(name, second)
        assert rig.calls() == own
        assert await fetch(engagement_id=paas_id, user_id=TWO) == expected(name, second)
        assert await fetch(str(paas_id), TWO, False) == expected(name, second)
        assert rig.calls() == ""
        assert await fetch(paas_id, TWO, True) == expected(name, second)
        assert rig.calls() == own

    @pytest.mark.parametrize("name", BY_IPC)
    async def test_of_an_ipc_engagement_that_is_named(self, rig: Rig, name: str) -> None:
        second = rig.truth(TWO, 1)
        fetch, ipc_id = method(rig, name), second["ipc_engagement_id"]
        own, _ = KEPT[name]
        assert await fetch(ipc_id, TWO) == expected(name, second)
        assert rig.calls() == own
        assert await fetch(ipc_engagement_id=ipc_id, user_id=TWO) == expected(name, second)
        assert await fetch(str(ipc_id), TWO, False) == expected(name, second)
        assert rig.calls() == ""
        assert await fetch(ipc_id, TWO, True) == expected(name, second)
        assert rig.calls() == own

    async def test_the_engagement_id_takes_force_first(self, rig: Rig) -> None:
        """Unlike all others: ``(force_refresh, user_id)``."""
        paas_id = rig.truth(ANN)["paas_engagement_id"]
        assert await rig.service.get_engagement_id(False, ANN) == paas_id
        assert await rig.service.get_engagement_id(True, ANN) == paas_id
        assert await rig.service.get_engagement_id(False, ANN) == paas_id
        assert rig.calls() == "EE"

    async def test_the_id_alone_as_the_current_user(self, rig: Rig) -> None:
        """The positional use of callers that a middleware has told who they are."""
        current_user.set(ANN)
        ipc_id = rig.truth(ANN)["ipc_engagement_id"]
        assert (await rig.service.get_zones_list(ipc_id))["zones"] == rig.truth(ANN)["zones"]
        assert rig.calls() == "Z"
        assert await rig.service.get_engagement_id() == rig.truth(ANN)["paas_engagement_id"]
        assert rig.calls(ANN) == "E"

    @pytest.mark.parametrize("name", [*BY_PAAS, *BY_IPC])
    @pytest.mark.parametrize("wrong", ["", "x", "-1", "9" * 5000, -1, 2**63, True, 1.0, [1]])
    async def test_an_id_that_is_none_is_refused_at_once(self, rig: Rig, name: str, wrong: Any) -> None:
        with pytest.raises(InvalidKey):
            await method(rig, name)(wrong, ANN)
        assert rig.calls() == ""


class TestTwoUsers:
    @pytest.mark.parametrize("name", KEPT)
    async def test_each_gets_their_own_in_their_own_name(self, rig: Rig, name: str) -> None:
        """Both at once; then warm, forced, and after one of them was cleared."""
        fetch, (own, cold) = method(rig, name), KEPT[name]

        async def both(**options: Any) -> None:
            answers = await asyncio.gather(fetch(user_id=ANN, **options), fetch(user_id=BOB, **options))
            assert list(answers) == [expected(name, rig.truth(ANN)), expected(name, rig.truth(BOB))]

        async def asked(of_ann: str, of_bob: str) -> None:
            by_user = rig.simulator.calls()["by_user"]
            assert by_user.keys() <= {ANN, BOB}
            of_both = {email: rig.simulator.calls(email)["by_path"] for email in (ANN, BOB)}
            assert [sum(of_both[email].values()) - of_both[email].get("auth", 0) for email in (ANN, BOB)] == [
                len(of_ann),
                len(of_bob),
            ]
            rig.simulator.reset()

        await both()
        await asked(cold, cold)
        await both()
        await asked("", "")
        await both(force_refresh=True)
        await asked(own, own)
        await rig.service._clear_user_session(ANN)
        await both()
        await asked(cold, "")
        await rig.service._clear_user_session()
        await both()
        await asked(cold, cold)

    async def test_a_foreign_engagement_is_refused_to_who_names_it(self, rig: Rig) -> None:
        """Also when its owner's lists are held: what is held is looked for under the asking user alone."""
        bobs = rig.truth(BOB)
        await rig.service.get_zones_list(user_id=BOB)
        await rig.service.get_endpoints(user_id=BOB)
        refused = await rig.service.get_zones_list(bobs["ipc_engagement_id"], ANN)
        assert (refused["success"], refused["data"]) == (False, None)
        assert await rig.service.get_endpoints(bobs["paas_engagement_id"], ANN) is None
        assert await rig.service.get_ipc_engagement_id(bobs["paas_engagement_id"], ANN) is None


class TestListEndpoints:
    @pytest.mark.parametrize("by_name", [False, True])
    async def test_the_data_centres_under_other_names(self, rig: Rig, by_name: bool) -> None:
        first, second = rig.truth(TWO), rig.truth(TWO, 1)
        paas_id = second["paas_engagement_id"]
        arguments = {"engagement_id": paas_id, "user_id": TWO}
        for answer, owned in (
            (await rig.service.list_endpoints(user_id=TWO), first),
            (
                await (
                    rig.service.list_endpoints(**arguments)
                    if by_name
                    else rig.service.list_endpoints(paas_id, TWO)
                ),
                second,
            ),
        ):
            rows = [
                {
                    "id": each["endpointId"],
                    "name": each["endpointDisplayName"],
                    "type": "",
                    "region": "",
                    "status": "active",
                }
                for each in owned["endpoints"]
            ]
            assert answer == {
                "success": True,
                "data": {"endpoints": rows, "total": 5, "engagement_id": owned["paas_engagement_id"]},
                "message": "5 endpoints",
            }
        assert rig.calls() == "EPP"

    async def test_it_is_the_list_that_is_kept(self, rig: Rig) -> None:
        await rig.service.get_endpoints(user_id=ANN)
        assert rig.calls() == "EP"
        await rig.service.list_endpoints(user_id=ANN)
        assert rig.calls() == ""


class TestListClusters:
    async def test_all_clusters_of_all_data_centres(self, rig: Rig) -> None:
        answer = await rig.service.list_clusters(user_id=ANN)
        assert answer.keys() == {"success", "data", "endpoint_data", "errors"}
        assert (answer["success"], answer["errors"]) == (True, [])
        owned = rig.truth(ANN)
        assert [each["clusterName"] for each in answer["data"]] == owned["cluster_names"]
        assert all(each["createdTime"].startswith("2025-") for each in answer["data"])
        endpoint_ids = [each["endpointId"] for each in owned["endpoints"]]
        assert list(answer["endpoint_data"]) == endpoint_ids
        told = answer["endpoint_data"][endpoint_ids[0]]
        assert told.keys() == {"endpoint_name", "clusters", "error"}
        assert (told["endpoint_name"], told["error"]) == (owned["endpoints"][0]["endpoint"], None)
        assert [each for part in answer["endpoint_data"].values() for each in part["clusters"]] == (
            answer["data"]
        )
        assert rig.calls() == "EPK"

    @pytest.mark.parametrize("by_name", [False, True])
    async def test_of_some_data_centres_of_a_named_engagement(self, rig: Rig, by_name: bool) -> None:
        second = rig.truth(TWO, 1)
        wanted = [second["endpoints"][2]["endpointId"], second["endpoints"][0]["endpointId"]]
        paas_id = second["paas_engagement_id"]
        answer = await (
            rig.service.list_clusters(endpoint_ids=wanted, engagement_id=paas_id, user_id=TWO)
            if by_name
            else rig.service.list_clusters(wanted, paas_id, TWO)
        )
        assert answer["success"]
        assert list(answer["endpoint_data"]) == wanted
        assert {each["clusterName"] for each in answer["data"]} < set(second["cluster_names"])
        assert rig.calls() == "K"

    async def test_they_are_live(self, rig: Rig) -> None:
        await rig.service.list_clusters(user_id=ANN)
        await rig.service.list_clusters(user_id=ANN)
        assert rig.calls() == "EPKK"

    async def test_what_one_data_centre_fails_to_tell_is_among_the_errors(self, rig: Rig) -> None:
        rig.simulator.set_faults([{"kind": "stream_error", "error": "asleep"}])
        answer = await rig.service.list_clusters(user_id=ANN)
        first = rig.truth(ANN)["endpoints"][0]["endpointId"]
        assert answer["success"]
        assert answer["errors"] == [{"fault": "reported", "endpoint_id": first, "message": "asleep"}]
        assert answer["endpoint_data"][first]["error"] == "asleep"
        assert 0 < len(answer["data"]) < 63

    async def test_none_wanted_is_none_told(self, rig: Rig) -> None:
        """An empty list is not "all": only None is."""
        answer = await rig.service.list_clusters([], user_id=ANN)
        assert answer == {"success": True, "data": [], "endpoint_data": {}, "errors": []}

    async def test_a_text_is_no_list_of_ids(self, rig: Rig) -> None:
        with pytest.raises(InvalidKey):
            await rig.service.list_clusters("21", user_id=ANN)  # type: ignore[arg-type]


class TestListVms:
    async def test_all_machines(self, rig: Rig) -> None:
        answer = await rig.service.list_vms(user_id=ANN)
        owned = rig.truth(ANN)
        assert [each["virtualMachine"]["vmName"] for each in answer.pop("data")] == owned["vm_names"]
        number = len(owned["vm_names"])
        assert answer == {
            "success": True,
            "total": number,
            "total_unfiltered": number,
            "last_synced": "2025-01-02 03:04:05",
            "ipc_engagement_id": owned["ipc_engagement_id"],
            "filters_applied": {},
            "duration_seconds": 0.0,
            "message": f"{number} of {number} virtual machines",
        }
        await rig.service.list_vms(user_id=ANN)
        assert rig.calls() == "ECVV"

    @pytest.mark.parametrize("by_name", [False, True])
    async def test_filters_look_for_parts_of_names(self, rig: Rig, by_name: bool) -> None:
        """Whatever their case; all of them must match."""
        owned = rig.truth(TWO, 1)
        zone = owned["zones"][0]
        code = zone["departmentName"].split("-")[1]
        filters = {
            "endpoint_filter": f"ep_v2_{code}".lower(),
            "zone_filter": zone["zoneName"].upper(),
            "department_filter": f"bu-{code}".lower(),
        }
        ipc_id = owned["ipc_engagement_id"]
        answer = await (
            rig.service.list_vms(ipc_engagement_id=ipc_id, user_id=TWO, **filters)
            if by_name
            else method(rig, "list_vms")(ipc_id, *filters.values(), TWO)
        )
        assert answer["success"]
        assert 0 < answer["total"] == len(answer["data"]) < answer["total_unfiltered"]
        assert answer["total_unfiltered"] == len(owned["vm_names"])
        assert {each["virtualMachine"]["zone"]["zoneName"] for each in answer["data"]} == {zone["zoneName"]}
        assert answer["filters_applied"] == {
            "endpoint": filters["endpoint_filter"],
            "zone": filters["zone_filter"],
            "department": filters["department_filter"],
        }
        assert rig.calls() == "V"

    @pytest.mark.parametrize("name", ["endpoint_filter", "zone_filter", "department_filter"])
    async def test_a_filter_that_nothing_matches(self, rig: Rig, name: str) -> None:
        answer = await method(rig, "list_vms")(user_id=ANN, **{name: "nowhere"})
        assert (answer["success"], answer["data"], answer["total"]) == (True, [], 0)
        assert answer["total_unfiltered"] > 0


class TestListManagedServices:
    async def test_of_all_data_centres(self, rig: Rig) -> None:
        answer = await rig.service.list_managed_services("IKSKafka", user_id=ANN)
        owned = rig.truth(ANN)
        found = answer.pop("data")
        assert found
        assert all(owned["tag"] in each["engagementName"] for each in found)
        assert answer == {
            "success": True,
            "total": len(found),
            "service_type": "IKSKafka",
            "ipc_engagement_id": owned["ipc_engagement_id"],
            "endpoints": [each["endpointId"] for each in owned["endpoints"]],
            "message": f"{len(found)} services of type IKSKafka",
        }
        assert rig.calls() == "ECPM"

    @pytest.mark.parametrize("by_name", [False, True])
    async def test_of_some_data_centres_of_a_named_engagement(self, rig: Rig, by_name: bool) -> None:
        owned = rig.truth(TWO, 1)
        wanted, ipc_id = [owned["endpoints"][1]["endpointId"]], owned["ipc_engagement_id"]
        for kind in SERVICE_TYPES:
            answer = await (
                rig.service.list_managed_services(
                    service_type=kind, endpoint_ids=wanted, ipc_engagement_id=ipc_id, user_id=TWO
                )
                if by_name
                else rig.service.list_managed_services(kind, wanted, ipc_id, TWO)
            )
            assert answer["success"]
            assert (answer["endpoints"], answer["ipc_engagement_id"]) == (wanted, ipc_id)
            assert all(owned["tag"] in each["engagementName"] for each in answer["data"])
        assert rig.calls() == "MMMMMM"

    async def test_one_given_and_the_other_not(self, rig: Rig) -> None:
        owned = rig.truth(ANN)
        endpoint_ids = [each["endpointId"] for each in owned["endpoints"]]
        given_ipc = await rig.service.list_managed_services(
            "IKSKafka", ipc_engagement_id=owned["ipc_engagement_id"], user_id=ANN
        )
        assert rig.calls() == "EPM"
        await rig.service._clear_user_session(ANN)
        given_endpoints = await rig.service.list_managed_services("IKSKafka", endpoint_ids, user_id=ANN)
        assert rig.calls() == "ECM"
        assert given_ipc == given_endpoints

    async def test_a_service_type_is_no_path(self, rig: Rig) -> None:
        with pytest.raises(ValueError, match="service type"):
            await rig.service.list_managed_services("a/b", user_id=ANN)


async def test_a_shorter_duration_acts_at_once(rig: Rig) -> None:
    """``session_cache_duration = timedelta(...)``, as existing callers set it."""
    assert rig.service.session_cache_duration == timedelta(hours=24)
    await rig.service.get_zones_list(user_id=ANN)
    rig.service.session_cache_duration = timedelta(minutes=30)
    await rig.clock.advance(1799)
    rig.calls()
    await rig.service.get_zones_list(user_id=ANN)
    await rig.cache.settled()
    rig.calls()  # refreshed ahead, perhaps
    await rig.clock.advance(1800)
    assert await rig.service.get_zones_list(user_id=ANN) == expected("get_zones_list", rig.truth(ANN))
    assert rig.calls() == "ECZ"
