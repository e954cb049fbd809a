"""How many calls the drop-in service makes: the table of workflows, and replays of whole days."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck.ipc.api import SERVICE_TYPES
from ipc.rig import ANN, BOB, TWO, Gate, Rig, rigged, slow, with_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Workflow = Callable[[Rig], Awaitable[None]]


def accepted(answer: Any) -> None:
    assert answer is not None
    assert not isinstance(answer, dict) or answer["success"], answer


def calling(name: str, *arguments: Any, **options: Any) -> Workflow:
    async def workflow(rig: Rig) -> None:
        accepted(await getattr(rig.service, name)(*arguments, user_id=ANN, **options))

    return workflow


async def managed_in_given_data_centres(rig: Rig) -> None:
    given = [rig.truth(ANN)["endpoints"][0]["endpointId"]]
    accepted(await rig.service.list_managed_services("IKSKafka", given, user_id=ANN))


async def six_types(rig: Rig) -> None:
    for kind in SERVICE_TYPES:
        accepted(await rig.service.list_managed_services(kind, user_id=ANN))


async def wizard_step(rig: Rig) -> None:
    """Business units as they are now, and the environments to choose from."""
    accepted(await rig.service.get_business_units_list(user_id=ANN, force_refresh=True))
    accepted(await rig.service.get_environments_list(user_id=ANN))


async def chat_session(rig: Rig, user: str = ANN) -> None:
    service = rig.service
    accepted(await service.list_endpoints(user_id=user))
    accepted(await service.list_clusters(user_id=user))
    accepted(await service.list_vms(user_id=user))
    accepted(await service.get_business_units_list(user_id=user))
    accepted(await service.get_environments_list(user_id=user))
    accepted(await service.get_zones_list(user_id=user))
    accepted(await service.list_managed_services("IKSKafka", user_id=user))


# Cold; with the ids known and the list not; with all known; without a cache.
WORKFLOWS: list[tuple[str, Workflow, str, str | None, str, int]] = [
    ("get_engagement_id", calling("get_engagement_id"), "E", "", "", 1),
    ("get_ipc_engagement_id", calling("get_ipc_engagement_id"), "EC", "", "", 2),
    ("list endpoints", calling("list_endpoints"), "EP", "P", "", 2),
    ("list VMs", calling("list_vms"), "ECV", "V", "V", 3),
    ("list clusters", calling("list_clusters"), "EPK", "PK", "K", 3),
    ("list business units", calling("get_business_units_list"), "ECB", "B", "", 3),
    ("list environments", calling("get_environments_list"), "ECN", "N", "", 3),
    ("list zones", calling("get_zones_list"), "ECZ", "Z", "", 3),
    ("managed services", calling("list_managed_services", "IKSKafka"), "ECPM", "PM", "M", 4),
    ("managed services, data centres given", managed_in_given_data_centres, "ECM", "M", "M", 3),
    ("six managed types", six_types, "ECPMMMMMM", None, "MMMMMM", 24),
    ("business unit wizard", wizard_step, "ECBN", "BN", "B", 6),
    ("chat session", chat_session, "ECPVKBNZM", None, "VKM", 21),
]
BY_WORKFLOW = pytest.mark.parametrize(
    ("workflow", "cold", "ids_warm", "warm", "uncached"),
    [row[1:] for row in WORKFLOWS],
    ids=[row[0] for row in WORKFLOWS],
)


@BY_WORKFLOW
async def test_cold_then_warm(
    rig: Rig, workflow: Workflow, cold: str, ids_warm: str | None, warm: str, uncached: int
) -> None:
    await workflow(rig)
    assert rig.log_ins_made() == 1
    assert rig.calls() == cold
    for _ in range(3):
        await workflow(rig)
        assert rig.log_ins_made() == 0
        assert rig.calls() == warm


@BY_WORKFLOW
async def test_with_the_ids_known(
    rig: Rig, workflow: Workflow, cold: str, ids_warm: str | None, warm: str, uncached: int
) -> None:
    await rig.service.get_ipc_engagement_id(user_id=ANN)
    rig.calls()
    await workflow(rig)
    assert rig.calls() == ("".join(cold.split("EC")) if ids_warm is None else ids_warm)


@BY_WORKFLOW
async def test_without_a_cache(
    workflow: Workflow, cold: str, ids_warm: str | None, warm: str, uncached: int
) -> None:
    """What the table calls "no cache": every step asks anew for its ids."""
    async with rigged(enabled=False) as rig:
        for _ in range(2):
            await workflow(rig)
            assert len(rig.calls()) == uncached


async def test_a_chat_session_of_every_user(rig: Rig) -> None:
    """Nine calls the first time and three later, each user in their own name, all at once."""
    users = [each["email"] for each in rig.simulator.users()]
    for log_ins, calls in ((1, "ECPVKBNZM"), (0, "VKM"), (0, "VKM")):
        await asyncio.gather(*(chat_session(rig, user) for user in users))
        assert rig.simulator.calls()["by_user"] == dict.fromkeys(users, log_ins + len(calls))
        assert rig.log_ins_made() == log_ins * len(users)
        rig.simulator.reset()


async def test_a_stampede_of_one_cold_user(rig: Rig) -> None:
    """Fifty at once would be 150 calls; they are three and one log-in, and everyone has a list of their own."""
    answers = await asyncio.gather(*(rig.service.get_business_units_list(user_id=ANN) for _ in range(50)))
    assert rig.log_ins_made() == 1
    assert rig.calls() == "ECB"
    assert all(answer["departments"] == rig.truth(ANN)["departments"] for answer in answers)
    assert len({id(answer["departments"]) for answer in answers}) == 50


async def test_a_stampede_of_many_cold_users(rig: Rig) -> None:
    users = [each["email"] for each in rig.simulator.users()]
    answers = await asyncio.gather(
        *(rig.service.get_zones_list(user_id=user) for _ in range(20) for user in users)
    )
    assert rig.log_ins_made() == len(users)
    assert rig.simulator.calls()["by_user"] == dict.fromkeys(users, 4)
    for user, answer in zip(users * 20, answers, strict=True):
        assert answer["zones"] == rig.truth(user)["zones"]


async def test_a_stampede_of_forces(rig: Rig) -> None:
    """A thousand at once cost two."""
    await rig.service.get_zones_list(user_id=ANN)
    rig.calls()
    await asyncio.gather(*(rig.service.get_zones_list(user_id=ANN, force_refresh=True) for _ in range(1000)))
    assert len(rig.calls()) <= 2


async def test_after_a_fault_only_what_failed_is_asked_for_again(rig: Rig) -> None:
    rig.simulator.set_faults([{"kind": "status", "status": 503, "path": "zones", "times": 1}])
    assert not (await rig.service.get_zones_list(user_id=ANN))["success"]
    assert rig.calls() == "ECZ"
    accepted(await rig.service.get_zones_list(user_id=ANN))
    assert rig.calls() == "Z"


class TestEngagementSwitch:
    async def assert_all_of(self, rig: Rig, owned: dict[str, Any]) -> None:
        service = rig.service
        assert await service.get_engagement_id(user_id=TWO) == owned["paas_engagement_id"]
        assert await service.get_ipc_engagement_id(user_id=TWO) == owned["ipc_engagement_id"]
        assert await service.get_endpoints(user_id=TWO) == owned["endpoints"]
        units = await service.get_business_units_list(user_id=TWO)
        assert (units["departments"], units["ipc_engagement_id"]) == (
            owned["departments"],
            owned["ipc_engagement_id"],
        )
        assert (await service.get_environments_list(user_id=TWO))["environments"] == owned["environments"]
        assert (await service.get_zones_list(user_id=TWO))["zones"] == owned["zones"]
        clusters = await service.list_clusters(user_id=TWO)
        assert [each["clusterName"] for each in clusters["data"]] == owned["cluster_names"]
        machines = await service.list_vms(user_id=TWO)
        assert [each["virtualMachine"]["vmName"] for each in machines["data"]] == owned["vm_names"]
        services = await service.list_managed_services("IKSKafka", user_id=TWO)
        assert services["endpoints"] == [each["endpointId"] for each in owned["endpoints"]]
        assert services["ipc_engagement_id"] == owned["ipc_engagement_id"]

    async def test_by_the_user(self, rig: Rig) -> None:
        first, second = rig.truth(TWO), rig.truth(TWO, 1)
        await self.assert_all_of(rig, first)
        await rig.service._update_user_session(TWO, paas_engagement_id=second["paas_engagement_id"])
        await self.assert_all_of(rig, second)

    async def test_by_the_upstream(self, rig: Rig) -> None:
        """A forced id is enough: what hung below the old one can't be reached any more."""
        await self.assert_all_of(rig, rig.truth(TWO))
        rig.simulator.set_faults([{"kind": "changed_engagement", "user": TWO}])
        changed = rig.truth(TWO)
        assert await rig.service.get_engagement_id(True, TWO) == changed["paas_engagement_id"]
        await self.assert_all_of(rig, changed)

    async def test_in_the_middle_of_a_chain(self) -> None:
        """Never ids of the one with lists of the other."""
        gate = Gate()
        async with rigged(settings=with_settings(latency_scale=1), sleep=gate) as rig:
            rig.simulator.set_latency(table=slow(conversion=1.0))
            first, second = rig.truth(TWO), rig.truth(TWO, 1)
            asking = asyncio.create_task(rig.service.list_managed_services("IKSKafka", user_id=TWO))
            await gate.arrived()
            await rig.service._update_user_session(TWO, paas_engagement_id=second["paas_engagement_id"])
            gate.open()
            answer = await asking
            assert answer["ipc_engagement_id"] == first["ipc_engagement_id"]
            assert answer["endpoints"] == [each["endpointId"] for each in first["endpoints"]]
            rig.simulator.set_latency(scale=0)
            await self.assert_all_of(rig, second)


class TestExpiry:
    async def test_each_field_has_its_own_age(self, rig: Rig) -> None:
        """One refreshed at 23 h; at 25 h the others are asked for anew and it is not."""
        await chat_session(rig)
        await rig.clock.advance(23 * 3600)
        rig.calls()
        accepted(await rig.service.get_business_units_list(user_id=ANN, force_refresh=True))
        await rig.cache.settled()
        assert rig.calls() == "ECB"  # both ids are on its way, and were refreshed ahead
        await rig.clock.advance(2 * 3600)
        await chat_session(rig)
        assert rig.calls() == "PVKNZM"

    async def test_who_comes_back_when_all_has_expired(self, rig: Rig) -> None:
        """Nobody has asked meanwhile, so nothing was refreshed ahead."""
        await chat_session(rig)
        rig.calls()
        await rig.clock.advance(24 * 3600 - 1)
        assert (await rig.service._get_user_session(ANN)).keys() > {"zones_list"}
        await rig.clock.advance(1)
        assert await rig.service._get_user_session(ANN) == {}
        await chat_session(rig)
        assert rig.calls() == "ECPVKBNZM"

    async def test_someone_who_keeps_asking_never_waits(self, rig: Rig) -> None:
        """Past nine tenths of its time a list is asked for anew behind the caller."""
        await rig.service.get_zones_list(user_id=ANN)
        for _ in range(30):
            await rig.clock.advance(3600)
            before = rig.cache.stats(ANN).total.hits
            accepted(await rig.service.get_zones_list(user_id=ANN))
            assert rig.cache.stats(ANN).total.hits == before + 2  # the id, and the list
            await rig.cache.settled()
        assert rig.calls() == "EECCZZ"


class TestTokens:
    async def test_half_an_hour_of_steady_work(self, rig: Rig) -> None:
        """A token lives ten minutes and is replaced thirty seconds before its end."""
        await rig.service.get_ipc_engagement_id(user_id=ANN)
        for _ in range(30):
            accepted(await rig.service.list_vms(user_id=ANN))
            await rig.clock.advance(60)
        assert rig.log_ins_made() == 3
        accepted(await rig.service.list_vms(user_id=ANN))
        assert rig.log_ins_made() == 4
        assert rig.calls() == "EC" + "V" * 31

    async def test_a_shorter_token_is_noticed(self, rig: Rig) -> None:
        rig.simulator.set_faults([{"kind": "short_token", "seconds": 90}])
        for _ in range(5):
            accepted(await rig.service.list_vms(user_id=ANN))
            await rig.clock.advance(59)
        assert rig.log_ins_made() == 3

    async def test_a_token_that_comes_expired_costs_no_more_than_one_retry(self, rig: Rig) -> None:
        rig.simulator.set_faults([{"kind": "short_token", "seconds": 0}])
        assert not (await rig.service.list_vms(user_id=ANN))["success"]
        assert rig.log_ins_made() == 2
        assert rig.calls() == "EE"


@pytest.mark.parametrize("user", [ANN, None])
async def test_a_clear_in_flight(user: str | None) -> None:
    """Whatever runs when a user or everyone is cleared answers who waits for it and is not kept."""
    gate = Gate()
    async with rigged(settings=with_settings(latency_scale=1), sleep=gate) as rig:
        rig.simulator.set_latency(table=slow(departments=1.0, environments=1.0))
        asking = [
            asyncio.create_task(rig.service.get_business_units_list(user_id=ANN)),
            asyncio.create_task(rig.service.get_environments_list(user_id=ANN)),
            asyncio.create_task(rig.service.get_business_units_list(user_id=BOB)),
        ]
        await gate.arrived(3)
        await (rig.service._clear_user_session(user) if user else rig.service._clear_user_session())
        gate.open()
        units, environments, bobs = await asyncio.gather(*asking)
        assert units["departments"] == rig.truth(ANN)["departments"]
        assert environments["environments"] == rig.truth(ANN)["environments"]
        assert bobs["departments"] == rig.truth(BOB)["departments"]
        await rig.cache.settled()
        assert set(rig.service.user_sessions) == ({BOB} if user else set())
        assert rig.tokens_kept() == ({BOB} if user else set())
        rig.simulator.set_latency(scale=0)
        rig.calls()
        accepted(await rig.service.get_business_units_list(user_id=ANN))
        assert rig.log_ins_made() == 1
        assert rig.calls(ANN) == "ECB"
