"""How the drop-in service tells that something can't be had, and that it keeps nothing of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck.errors import CacheClosed
from ipc.rig import ANN, BOB, Gate, Rig, rigged, slow, with_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coatcheck.ipc import APIExecutorService

NONE = ("get_engagement_id", "get_ipc_engagement_id", "get_endpoints")
LISTS = ("get_business_units_list", "get_environments_list", "get_zones_list")
LIVE = ("list_endpoints", "list_clusters", "list_vms", "list_managed_services")
ROUTES = {
    "get_engagement_id": "engagements",
    "get_ipc_engagement_id": "conversion",
    "get_endpoints": "endpoints",
    "get_business_units_list": "departments",
    "get_environments_list": "environments",
    "get_zones_list": "zones",
    "list_endpoints": "endpoints",
    "list_clusters": "clusters",
    "list_vms": "vmlist",
    "list_managed_services": "managed",
}
KEYS = {
    "list_endpoints": {"success", "error", "data", "message"},
    "list_clusters": {"success", "error", "data", "endpoint_data", "errors"},
    "list_vms": {"success", "error", "data", "message", "total"},
    "list_managed_services": {"success", "error", "data", "message", "total", "service_type"},
}
FIELDS = {
    "engagements": "engagement_data",
    "conversion": "ipc_engagement_id",
    "endpoints": "endpoints",
    "departments": "business_units",
    "environments": "environments_list",
    "zones": "zones_list",
}
OF_ANY_ANSWER: list[dict[str, Any]] = [
    *({"kind": "status", "status": status} for status in (400, 403, 404, 410, 429, 500, 503)),
    {"kind": "status", "status": 302, "body": ""},
    {"kind": "reset"},
    {"kind": "cut", "after": 0},
    {"kind": "html"},
    {"kind": "failure_envelope", "word": "failed", "response_code": 404, "message": "No records"},
    {"kind": "failure_envelope", "word": "error", "response_code": 500, "message": None},
    {"kind": "failure_envelope", "word": "failure", "response_code": 403, "message": "no"},
]
OF_ENVELOPES: list[dict[str, Any]] = [
    *(
        {"kind": kind}
        for kind in (
            "data_null",
            "deep_json",
            "duplicate_keys",
            "failure_envelope",
            "invalid_json",
            "lone_surrogate",
            "truncated_json",
        )
    ),
    {"kind": "huge_body", "bytes": 9 * 1024 * 1024},
]
OF_IDS: list[dict[str, Any]] = [{"kind": "big_int"}, {"kind": "nan"}, {"kind": "wrong_type"}]


def failures() -> Iterator[Any]:
    """Yield every method with every fault that its own call can have."""
    for name in (*NONE, *LISTS, *LIVE):
        faults = list(OF_ANY_ANSWER)
        if name != "list_clusters":
            faults += OF_ENVELOPES
        if name not in {"list_clusters", "list_vms", "list_managed_services"}:
            faults += OF_IDS
        for fault in faults:
            yield pytest.param(name, fault, id=f"{name}-{'-'.join(map(str, fault.values()))}")


async def ask(service: APIExecutorService, name: str, user: str = ANN, **options: Any) -> Any:
    arguments = ("IKSKafka",) if name == "list_managed_services" else ()
    return await getattr(service, name)(*arguments, user_id=user, **options)


def assert_failed(name: str, answer: Any) -> None:
    """Accept just what the contract says of a failure."""
    if name in NONE:
        assert answer is None
        return
    assert answer["success"] is False
    assert isinstance(answer["error"], str)
    assert answer["error"]
    assert "tenant" not in answer["error"]
    if name in LISTS:
        assert answer.keys() == {"success", "error", "data"}
    else:
        assert answer.keys() == KEYS[name]
    if name == "list_clusters":
        assert (answer["data"], answer["endpoint_data"]) == ([], {})
        assert answer["errors"] == [{"fault": "failed", "endpoint_id": None, "message": answer["error"]}]
    else:
        assert answer["data"] is None


def assert_succeeded(name: str, answer: Any) -> None:
    assert answer is not None
    assert name in NONE or answer["success"]


@pytest.mark.parametrize(("name", "fault"), list(failures()))
async def test_a_failure_is_told_and_not_kept(rig: Rig, name: str, fault: dict[str, Any]) -> None:
    """Whatever fails; and when it is over, the next call has an answer."""
    rig.simulator.set_faults([{**fault, "path": ROUTES[name]}])
    assert_failed(name, await ask(rig.service, name))
    assert rig.simulator.faults()[0]["hits"] > 0
    assert FIELDS.get(ROUTES[name]) not in await rig.service._get_user_session(ANN)
    rig.simulator.set_faults([])
    await rig.clock.advance(6)  # a refusal is remembered for five seconds
    assert_succeeded(name, await ask(rig.service, name))


@pytest.mark.parametrize("name", [*NONE, *LISTS, *LIVE])
@pytest.mark.parametrize("route", ["auth", "engagements"])
async def test_what_it_takes_first_may_fail_too(rig: Rig, name: str, route: str) -> None:
    rig.simulator.set_faults([{"kind": "status", "status": 503, "path": route}])
    assert_failed(name, await ask(rig.service, name))
    rig.simulator.set_faults([])
    assert_succeeded(name, await ask(rig.service, name))


@pytest.mark.parametrize("name", [*NONE, *LISTS])
async def test_a_forced_failure_leaves_what_was_held(rig: Rig, name: str) -> None:
    before = await ask(rig.service, name)
    rig.simulator.set_faults([{"kind": "status", "status": 503}])
    assert_failed(name, await ask(rig.service, name, force_refresh=True))
    assert await ask(rig.service, name) == before


@pytest.mark.parametrize("name", [*NONE, *LISTS])
async def test_a_forced_refusal_leaves_nothing(rig: Rig, name: str) -> None:
    """What the user may see no more is not shown from memory."""
    await ask(rig.service, name)
    rig.simulator.set_faults([{"kind": "status", "status": 403, "path": ROUTES[name]}])
    assert_failed(name, await ask(rig.service, name, force_refresh=True))
    assert_failed(name, await ask(rig.service, name))


@pytest.mark.parametrize("name", [*NONE, *LISTS, *LIVE])
async def test_a_user_without_an_account_gets_nothing(rig: Rig, name: str) -> None:
    assert_failed(name, await ask(rig.service, name, "stranger@example.com"))
    assert rig.simulator.calls()["total"] == 0


@pytest.mark.parametrize("name", [*NONE, *LISTS, *LIVE])
async def test_a_log_in_that_is_refused(rig: Rig, name: str) -> None:
    """Status code 500 in an HTTP 200, and a sentence where the token should be."""
    rig.simulator.set_faults([{"kind": "login_failure", "user": ANN}])
    assert_failed(name, await ask(rig.service, name))
    assert rig.calls() == ""
    assert_succeeded(name, await ask(rig.service, name, BOB))


@pytest.mark.parametrize("name", [*LISTS, *LIVE])
async def test_a_clear_while_it_waits_for_an_id(name: str) -> None:
    """The id that was waited for is not kept; what else it needs is loaded for the new session, or it says so."""
    gate = Gate()
    async with rigged(settings=with_settings(latency_scale=1), sleep=gate) as rig:
        rig.simulator.set_latency(table=slow(engagements=1.0))
        asking = asyncio.create_task(ask(rig.service, name))
        await gate.arrived()
        await rig.service._clear_user_session(ANN)
        rig.simulator.set_latency(scale=0)
        gate.open()
        answer = await asking
        if not answer["success"]:
            assert_failed(name, answer)
        assert not (await rig.service._get_user_session(ANN)).keys() & {
            "engagement_data",
            "ipc_engagement_id",
        }
        assert_succeeded(name, await ask(rig.service, name))


@pytest.mark.parametrize("name", [*NONE, *LISTS, *LIVE])
async def test_after_the_end_nothing_works(name: str) -> None:
    async with rigged() as rig:
        await ask(rig.service, name)
        await rig.service.close()
        await rig.service.close()
        with pytest.raises(CacheClosed):
            await ask(rig.service, name)
        assert not rig.tokens_kept()
