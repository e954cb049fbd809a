"""The calls of the contract: shapes, ids, and who may see what."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from coatcheck.simulator import Settings, Simulator

from .conftest import ENGAGEMENTS, ONE, TWO, Caller

ENDPOINTS = "/portalservice/configservice/getEndpointsByEngagement/"
CONVERSION = "/paasservice/paas/getIpcEngFromPaasEng/"
DEPARTMENTS = "/portalservice/securityservice/departments/"
ENVIRONMENTS = "/portalservice/securityservice/environmentsperengagement/"
VMS = "/portalservice/instances/vmlist/"
TREE = "/portalservice/securityservice/deptDetailsForEngagement/"
ENVIRONMENT_LIST = "/portalservice/environment/getEnvironmentListPerEngagement/"
ZONE_LIST = "/portalservice/zone/getZoneList/"
BALANCERS = "/networkservice/loadbalancer/list/loadbalancers/"
TEMPLATES = "/paasservice/paas/getTemplatesByEngagement/"
FIREWALL = "/networkservice/firewallconfig/details"
NAME_CHECK = "/portalservice/api/v1/check/clusterName"

BY_PAAS = [CONVERSION, ENDPOINTS]
BY_IPC = [DEPARTMENTS, ENVIRONMENTS, VMS, TREE, ENVIRONMENT_LIST, ZONE_LIST, BALANCERS, TEMPLATES]


def zonelist(ident: object) -> str:
    return f"/portalservice/api/v1/{ident}/zonelist"


def mine(caller: Caller, email: str = TWO, which: int = 0) -> dict[str, Any]:
    engagement: dict[str, Any] = caller.simulator.truth(email)["engagements"][which]
    return engagement


async def test_the_cached_chain_answers_exactly_the_truth(caller: Caller) -> None:
    """What the accessor promises is what stands in every answer, for each engagement of the user."""
    token = await caller.login(TWO)
    truth = caller.simulator.truth(TWO)["engagements"]

    assert (await caller.get(ENGAGEMENTS, token)).data == [item["engagement"] for item in truth]
    for item in truth:
        paas, ipc = item["paas_engagement_id"], item["ipc_engagement_id"]
        assert (await caller.get(f"{CONVERSION}{paas}", token)).data == item["conversion"]
        assert (await caller.get(f"{ENDPOINTS}{paas}", token)).data == item["endpoints"]
        departments = (await caller.get(f"{DEPARTMENTS}{ipc}", token)).data
        assert departments["department"] == item["departments"]
        assert departments["engagement"]["name"] == item["tag"]
        assert (await caller.get(f"{ENVIRONMENTS}{ipc}", token)).data == item["environments"]
        assert (await caller.get(zonelist(ipc), token)).data == item["zones"]


async def test_the_envelope_is_that_of_the_contract(caller: Caller) -> None:
    """Four members; the message of the endpoint list is null."""
    token = await caller.login(ONE)
    got = await caller.get(ENGAGEMENTS, token)
    endpoints = await caller.get(f"{ENDPOINTS}{mine(caller, ONE)['paas_engagement_id']}", token)

    assert got.headers["Content-Type"].startswith("application/json")
    assert list(got.json) == ["status", "data", "message", "responseCode"]
    assert (got.json["message"], got.json["responseCode"]) == ("success", 0)
    assert endpoints.json["message"] is None


async def test_twins_answer_with_the_same_things_in_their_own_shapes(caller: Caller) -> None:
    """Each older or prefixed path knows the same items."""
    token = await caller.login(TWO)
    truth = mine(caller)
    ipc = truth["ipc_engagement_id"]

    listed = (await caller.get("/uat-portalservice/configservice/getuserengagements", token)).data
    assert listed == (await caller.get(ENGAGEMENTS, token)).data
    assert (await caller.get(f"{ENVIRONMENT_LIST}{ipc}", token)).data == {
        "environments": truth["environments"]
    }
    assert (await caller.get(f"{ZONE_LIST}{ipc}", token)).data == truth["zones"]
    tree = (await caller.get(f"{TREE}{ipc}", token)).data["departmentList"]
    assert [item["departmentId"] for item in tree] == [item["id"] for item in truth["departments"]]
    branches = [branch for item in tree for branch in item["environmentList"]]
    assert {branch["environmentId"] for branch in branches} == {item["id"] for item in truth["environments"]}
    leaves = {leaf["zoneId"] for branch in branches for leaf in branch["zoneList"]}
    assert leaves == {zone["zoneId"] for zone in truth["zones"]}


async def test_departments_count_what_the_other_lists_hold(caller: Caller) -> None:
    """The numbers in a department agree with the lists."""
    token = await caller.login(TWO)
    truth = mine(caller)
    machines = (await caller.get(f"{VMS}{truth['ipc_engagement_id']}", token)).data["vmList"]

    for item in truth["departments"]:
        zones = [zone for zone in truth["zones"] if zone["departmentName"] == item["name"]]
        vms = [vm for vm in machines if vm["virtualMachine"]["department"]["departmentName"] == item["name"]]
        assert (item["noOfZones"], item["noOfVMs"]) == (len(zones), len(vms))
        assert item["noOfEnvironments"] == sum(
            env["departmentId"] == item["id"] for env in truth["environments"]
        )


async def test_machines_have_the_peculiar_shapes_of_the_contract(caller: Caller) -> None:
    """A key with a blank, numbers as text, and the code behind the display name."""
    token = await caller.login(ONE)
    data = (await caller.get(f"{VMS}{mine(caller, ONE)['ipc_engagement_id']}", token)).data
    machine = data["vmList"][0]["virtualMachine"]

    assert len(data["lastSyncedAt"]) == len("2025-01-02 03:04:05")
    assert machine["vmAttributes"]["VM Status"] in ("ACTIVE", "PENDING", "RESTORE")
    assert isinstance(machine["vmAttributes"]["vCPU"], str)
    assert isinstance(machine["vmAttributes"]["RAM"], str)
    assert machine["endpoint"]["endpointName"].endswith(".tenant-0001.e1)")


@pytest.mark.parametrize("path", BY_PAAS)
async def test_a_paas_call_does_not_know_an_ipc_id(caller: Caller, path: str) -> None:
    """404, as for any unknown engagement."""
    token = await caller.login(ONE)

    assert (await caller.get(f"{path}{mine(caller, ONE)['ipc_engagement_id']}", token)).status == 404
    assert (await caller.get(f"{path}7", token)).status == 404


@pytest.mark.parametrize("path", BY_IPC)
async def test_a_portal_call_does_not_know_a_paas_id(caller: Caller, path: str) -> None:
    """404, as for any unknown engagement."""
    token = await caller.login(ONE)
    got = await caller.get(f"{path}{mine(caller, ONE)['paas_engagement_id']}", token)

    assert got.status == 404
    assert got.json["status"] == "failure"
    assert got.json["responseCode"] == 404


@pytest.mark.parametrize("path", [*BY_PAAS, *BY_IPC])
async def test_anothers_engagement_is_refused(caller: Caller, path: str) -> None:
    """403, and nothing of the owner in the body."""
    token = await caller.login(ONE)
    kind = "paas_engagement_id" if path in BY_PAAS else "ipc_engagement_id"
    got = await caller.get(f"{path}{mine(caller)[kind]}", token)

    assert got.status == 403
    assert b"tenant" not in got.raw


@pytest.mark.parametrize("path", [*BY_PAAS, *BY_IPC])
@pytest.mark.parametrize("ident", ["abc", "-1", "1.5", "%7Bid%7D", "9" * 5000, "\u0661"])
async def test_an_id_that_is_no_number_is_a_bad_request(caller: Caller, path: str, ident: str) -> None:
    """400, also for digits of another script and for more digits than any id has."""
    token = await caller.login(ONE)

    assert (await caller.get(f"{path}{ident}", token)).status == 400


@pytest.mark.parametrize(("take", "accepted"), [("paas", "paas"), ("ipc", "ipc"), ("either", "paas ipc")])
async def test_which_id_the_endpoint_list_takes_is_a_setting(take: Any, accepted: str) -> None:
    """Callers and specifications disagree, so either can be had."""
    settings = Settings(users=1, latency_scale=0, endpoints_take=take)
    async with Simulator(settings) as simulator, aiohttp.ClientSession() as session:
        caller = Caller(simulator, session)
        token = await caller.login(ONE)
        for kind in ("paas", "ipc"):
            got = await caller.get(f"{ENDPOINTS}{mine(caller, ONE)[f'{kind}_engagement_id']}", token)
            assert got.status == (200 if kind in accepted else 404)


async def test_words_and_codes_of_the_envelope_are_settings() -> None:
    """Success code and failure word are as configured."""
    settings = Settings(users=1, latency_scale=0, success_code=200, failure_word="error")
    async with Simulator(settings) as simulator, aiohttp.ClientSession() as session:
        caller = Caller(simulator, session)
        token = await caller.login(ONE)

        assert (await caller.get(ENGAGEMENTS, token)).json["responseCode"] == 200
        assert (await caller.get(f"{CONVERSION}7", token)).json["status"] == "error"


async def test_managed_services_are_nested_twice_and_only_where_asked(caller: Caller) -> None:
    """Each service stands in one of the data centres of the request."""
    token = await caller.login(TWO)
    truth = mine(caller)
    homes = truth["endpoints"]
    path = "/paasservice/api/v1/paas/listManagedServices/IKSKafka"
    body = {"engagementId": truth["ipc_engagement_id"], "serviceType": "IKSKafka"}

    everywhere = (
        await caller.post(path, {**body, "endpoints": [home["endpointId"] for home in homes]}, token)
    ).data
    one = (await caller.post(path, {**body, "endpoints": [homes[0]["endpointId"]]}, token)).data

    assert everywhere["data"]
    assert all(truth["tag"] in item["name"] for item in everywhere["data"])
    expected = [
        item for item in everywhere["data"] if item["locationName"] == homes[0]["endpointDisplayName"]
    ]
    assert one["data"] == expected


async def test_managed_services_refuse_what_they_cannot_read(caller: Caller) -> None:
    """Type, engagement and data centres are checked."""
    token = await caller.login(TWO)
    ipc = mine(caller)["ipc_engagement_id"]
    path = "/paasservice/api/v1/paas/listManagedServices/"

    assert (
        await caller.post(f"{path}IKSNothing", {"engagementId": ipc, "endpoints": []}, token)
    ).status == 400
    assert (
        await caller.post(f"{path}IKSKafka", {"engagementId": str(ipc), "endpoints": []}, token)
    ).status == 400
    assert (
        await caller.post(f"{path}IKSKafka", {"engagementId": ipc, "endpoints": "all"}, token)
    ).status == 400
    assert (await caller.post(f"{path}IKSKafka", [], token)).status == 400
    foreign = mine(caller, ONE)["ipc_engagement_id"]
    assert (
        await caller.post(f"{path}IKSKafka", {"engagementId": foreign, "endpoints": []}, token)
    ).status == 403


async def test_a_foreign_data_centre_brings_nothing(caller: Caller) -> None:
    """Neither services nor clusters nor firewalls of somebody else."""
    token = await caller.login(TWO)
    truth = mine(caller)
    foreign = mine(caller, ONE)["endpoints"][0]["endpointId"]
    paas, ipc = truth["paas_engagement_id"], truth["ipc_engagement_id"]

    services = await caller.post(
        "/paasservice/api/v1/paas/listManagedServices/IKSKafka",
        {"engagementId": ipc, "endpoints": [foreign]},
        token,
    )
    assert services.data["data"] == []
    clusters = await caller.post(f"/paasservice/paas/{paas}/clusterlist", {"endpoints": [foreign]}, token)
    assert clusters.data == []
    body = {"engagementId": ipc, "endpointId": foreign, "variant": ""}
    assert (await caller.post(FIREWALL, body, token)).status == 404


async def test_firewalls_are_listed_for_one_data_centre(caller: Caller) -> None:
    """Each belongs to the data centre that was asked for."""
    token = await caller.login(TWO)
    truth = mine(caller)
    home = truth["endpoints"][2]["endpointId"]
    body = {"engagementId": truth["ipc_engagement_id"], "endpointId": home, "variant": ""}

    found = (await caller.post(FIREWALL, body, token)).data

    assert found
    assert {item["endId"] for item in found} == {home}
    assert all(truth["tag"] in item["displayName"] for item in found)


@pytest.mark.parametrize(("none_is_404", "status"), [(True, 404), (False, 200)])
async def test_no_load_balancers_is_a_failure(none_is_404: bool, status: int) -> None:
    """404 or 200, `failed` in both cases."""
    settings = Settings(users=4, latency_scale=0, none_is_404=none_is_404)
    async with Simulator(settings) as simulator, aiohttp.ClientSession() as session:
        caller = Caller(simulator, session)
        token = await caller.login(ONE)
        got = await caller.get(f"{BALANCERS}{mine(caller, ONE)['ipc_engagement_id']}", token)

        assert got.status == status
        assert got.json == {"status": "failed", "data": [], "message": "No records", "responseCode": 404}
        token = await caller.login(TWO)
        assert (await caller.get(f"{BALANCERS}{mine(caller)['ipc_engagement_id']}", token)).data


async def test_a_cluster_name_is_free_or_taken(caller: Caller) -> None:
    """A taken one comes back with its id."""
    token = await caller.login(ONE)
    name = mine(caller, ONE)["cluster_names"][5]

    taken = await caller.get(NAME_CHECK, token, params={"clusterName": name, "clusterType": "iks"})
    free = await caller.get(NAME_CHECK, token, params={"clusterName": "new-one", "clusterType": "iks"})

    assert taken.data["clusterName"] == name
    assert (taken.json["message"], taken.json["responseCode"]) == ("OK", 200)
    assert free.data == {}


async def test_what_hangs_on_a_zone_or_data_centre_is_its_owners(caller: Caller) -> None:
    """The owner gets it, another is refused, an id that nobody has is unknown."""
    owner, other = await caller.login(TWO), await caller.login(ONE)
    truth = mine(caller)
    zone, home = truth["zones"][0]["zoneId"], truth["endpoints"][4]["endpointId"]

    for path, last in (
        ("/uat-portalservice/configservice/templates/{}?type=Container", zone + 31),
        ("/uat-portalservice/configservice/flavordetails/{}", zone + 31),
        (
            "/paasservice/paas/cluster/getIksMsWithEndpoint/{}?version=v1.30.14&type=network&clusterType=APP",
            home + 1,
        ),
    ):
        ident = zone if "configservice" in path else home
        assert (await caller.get(path.format(ident), owner)).data
        assert (await caller.get(path.format(ident), other)).status == 403
        assert (await caller.get(path.format(last), owner)).status == 404


async def test_cluster_templates_bear_versions_and_data_centres(caller: Caller) -> None:
    """An object of arrays; the version stands in the name of the image."""
    token = await caller.login(TWO)
    truth = mine(caller)
    data = (await caller.get(f"{TEMPLATES}{truth['ipc_engagement_id']}", token)).data

    assert set(data) == {"vks-enabledImages", "all-images"}
    assert [item["endpointId"] for item in data["all-images"]] == [
        item["endpointId"] for item in truth["endpoints"]
    ]
    assert all("-v1." in item["ImageName"] for item in data["all-images"])


async def test_a_path_that_is_not_of_the_contract_is_unknown(caller: Caller) -> None:
    """404 with a good token, 401 without, and counted by no path of the contract."""
    token = await caller.login(ONE)

    assert (await caller.get("/portalservice/nothing", token)).status == 404
    assert (await caller.get("/portalservice/nothing")).status == 401
    assert caller.simulator.calls()["by_path"]["unknown"] == 2
