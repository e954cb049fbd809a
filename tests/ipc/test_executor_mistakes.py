"""The ten mistakes that the obvious implementation makes, each as a test that it fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from coatcheck import Limits
from coatcheck.ipc.resources import zones_list
from coatcheck.upstream.log_ins import Account
from ipc.rig import ANN, BOB, TWO, Gate, Rig, accounts_of, rigged, slow, with_settings

if TYPE_CHECKING:
    from coatcheck.simulator import Simulator
    from ipc.rig import Accounts

STRANGER = "stranger@example.com"
HELD_UP = with_settings(latency_scale=1)


class TestWhoseCredentials:
    """1. A fetch for a user is made with that user's credentials, and with nobody's if there are none."""

    async def test_every_call_for_a_user_carries_the_users_token(self, rig: Rig) -> None:
        for user in (ANN, BOB):
            await rig.service.get_zones_list(user_id=user)
            await rig.service.list_managed_services("IKSKafka", user_id=user)
            await rig.service.list_clusters(user_id=user)
            assert rig.simulator.calls()["by_user"].keys() == {user}
            assert rig.calls() == "ECPKZM"

    async def test_a_user_without_credentials_is_not_served_with_the_default_users(self) -> None:
        async with rigged(default_email=ANN) as rig:
            await rig.service.get_endpoints()
            rig.simulator.reset()
            assert await rig.service.get_endpoints(user_id=STRANGER) is None
            answer = await rig.service.get_zones_list(user_id=STRANGER)
            assert (answer["success"], answer["error"]) == (False, "no account is known for this user")
            assert not (await rig.service.list_vms(user_id=STRANGER))["success"]
            assert rig.simulator.calls()["total"] == 0

    async def test_unless_that_was_said_in_so_many_words(self) -> None:
        def service_account(simulator: Simulator) -> Accounts:
            known = accounts_of(simulator)
            return lambda user: known(user) or known(ANN)

        async with rigged(accounts=service_account) as rig:
            assert await rig.service.get_endpoints(user_id=STRANGER) == rig.truth(ANN)["endpoints"]


class TestTokensByAccount:
    """2. A token is its account's: another password opens nobody's token, and no user gets another's."""

    async def test_a_wrong_password_opens_no_token_of_the_right_one(self) -> None:
        def intruder(simulator: Simulator) -> Accounts:
            known = accounts_of(simulator)
            return lambda user: Account(ANN, "wrong") if user == STRANGER else known(user)

        async with rigged(accounts=intruder) as rig:
            assert await rig.service.get_engagement_id(user_id=ANN) is not None
            assert await rig.service.get_engagement_id(user_id=STRANGER) is None
            assert rig.log_ins_made() == 2
            assert rig.calls() == "E"

    async def test_logging_in_at_the_same_time_mixes_up_nobody(self, rig: Rig) -> None:
        users = [each["email"] for each in rig.simulator.users()]
        found = await asyncio.gather(*(rig.service.get_engagement_id(user_id=user) for user in users * 4))
        assert found == [rig.truth(user)["paas_engagement_id"] for user in users] * 4
        assert rig.log_ins_made() == len(users)
        assert rig.tokens_kept() == set(users)

    async def test_two_users_of_one_account_share_its_token_and_nothing_else(self) -> None:
        def colleagues(simulator: Simulator) -> Accounts:
            known = accounts_of(simulator)
            return lambda user: known(ANN)

        async with rigged(accounts=colleagues) as rig:
            await rig.service.get_engagement_id(user_id="one")
            await rig.service.get_engagement_id(user_id="two")
            assert rig.log_ins_made() == 1
            assert rig.calls() == "EE"
            await rig.service._clear_user_session("one")
            await rig.cache.settled()
            assert set(rig.service.user_sessions) == {"two"}
            assert (await rig.service.list_vms(user_id="two"))["success"]


class TestArguments:
    """3. What is held of one engagement is no answer about another, and asking about one changes nobody's own."""

    async def test_the_data_centres_of_another_engagement(self, rig: Rig) -> None:
        first, second = rig.truth(TWO), rig.truth(TWO, 1)
        for _ in range(2):
            for owned in (first, second):
                found = await rig.service.get_endpoints(owned["paas_engagement_id"], TWO)
                assert found == owned["endpoints"]
                for fetch, field in (
                    (rig.service.get_zones_list, "zones"),
                    (rig.service.get_environments_list, "environments"),
                    (rig.service.get_business_units_list, "departments"),
                ):
                    answer = await fetch(owned["ipc_engagement_id"], TWO)
                    assert answer[field] == owned[field]
        assert rig.calls() == "PPBBNNZZ"

    async def test_converting_another_engagement_does_not_make_it_the_users(self, rig: Rig) -> None:
        first, second = rig.truth(TWO), rig.truth(TWO, 1)
        assert await rig.service.get_ipc_engagement_id(user_id=TWO) == first["ipc_engagement_id"]
        converted = await rig.service.get_ipc_engagement_id(second["paas_engagement_id"], TWO, True)
        assert converted == second["ipc_engagement_id"]
        assert await rig.service.get_engagement_id(user_id=TWO) == first["paas_engagement_id"]
        assert await rig.service.get_ipc_engagement_id(user_id=TWO) == first["ipc_engagement_id"]
        assert await rig.service.get_endpoints(user_id=TWO) == first["endpoints"]
        held = await rig.service._get_user_session(TWO)
        assert held["ipc_engagement_id"] == first["ipc_engagement_id"]

    async def test_the_two_kinds_of_ids_are_not_mixed_up(self, rig: Rig) -> None:
        owned = rig.truth(ANN)
        assert await rig.service.get_endpoints(owned["ipc_engagement_id"], ANN) is None
        assert not (await rig.service.get_zones_list(owned["paas_engagement_id"], ANN))["success"]


class TestOwnDeadlines:
    """4. Each entry ends by itself, counted from the start of its load; what has ended does not come back."""

    async def test_a_write_renews_nothing_but_what_it_writes(self, rig: Rig) -> None:
        for fetch in (rig.service.get_zones_list, rig.service.get_environments_list):
            await fetch(user_id=ANN)
        await rig.clock.advance(19 * 3600)
        await rig.service._update_user_session(ANN, environments_list=[])
        await rig.clock.advance(6 * 3600)
        rig.calls()
        assert (await rig.service.get_environments_list(user_id=ANN))["environments"] == []
        assert rig.calls() == "EC"
        assert (await rig.service.get_zones_list(user_id=ANN))["zones"] == rig.truth(ANN)["zones"]
        assert rig.calls() == "Z"

    async def test_what_has_expired_is_not_revived_by_a_write(self, rig: Rig) -> None:
        await rig.service.get_zones_list(user_id=ANN)
        await rig.service.get_endpoints(user_id=ANN)
        await rig.clock.advance(24 * 3600)
        await rig.service._update_user_session(ANN, environments_list=[])
        held = await rig.service._get_user_session(ANN)
        assert not held.keys() & {"zones_list", "endpoints"}
        rig.calls()
        await rig.service.get_endpoints(user_id=ANN)
        assert rig.calls() == "P"

    async def test_its_time_runs_from_the_start_of_its_load(self) -> None:
        gate = Gate()
        async with rigged(settings=HELD_UP, sleep=gate) as rig:
            rig.simulator.set_latency(table=slow())
            await rig.service.get_ipc_engagement_id(user_id=ANN)
            rig.simulator.set_latency(table=slow(zones=1.0))
            asking = asyncio.create_task(rig.service.get_zones_list(user_id=ANN))
            await gate.arrived()
            await rig.clock.advance(60)
            gate.open()
            assert (await asking)["success"]
            held = rig.cache.session(ANN).peek(zones_list)
            assert held is not None
            assert (held.age, held.fresh_for) == (60, 24 * 3600 - 60)


class TestOneLoad:
    """5. Misses share one chain of calls, and nobody waits for another account's log-in."""

    async def test_misses_at_once_make_one_chain(self, rig: Rig) -> None:
        lists = (
            rig.service.get_business_units_list,
            rig.service.get_environments_list,
            rig.service.get_zones_list,
            rig.service.get_endpoints,
        )
        await asyncio.gather(*(fetch(user_id=ANN) for fetch in lists * 25))
        assert rig.log_ins_made() == 1
        assert rig.calls() == "ECPBNZ"

    async def test_a_slow_log_in_stops_nobody_else(self) -> None:
        gate = Gate()
        async with rigged(settings=HELD_UP, sleep=gate) as rig:
            rig.simulator.set_latency(scale=0)
            rig.simulator.set_faults([{"kind": "delay", "path": "auth", "user": ANN, "ms": 1}])
            anns = [asyncio.create_task(rig.service.get_zones_list(user_id=ANN)) for _ in range(10)]
            await gate.arrived()
            assert (await rig.service.get_zones_list(user_id=BOB))["zones"] == rig.truth(BOB)["zones"]
            assert not any(asking.done() for asking in anns)
            gate.open()
            answers = await asyncio.gather(*anns)
            assert all(answer["zones"] == rig.truth(ANN)["zones"] for answer in answers)
            assert rig.log_ins_made(ANN) == 1

    async def test_one_who_gives_up_takes_nobody_along(self) -> None:
        gate = Gate()
        async with rigged(settings=HELD_UP, sleep=gate) as rig:
            rig.simulator.set_latency(table=slow(engagements=1.0))
            asking = [asyncio.create_task(rig.service.get_zones_list(user_id=ANN)) for _ in range(10)]
            await gate.arrived()
            for task in asking[::2]:
                task.cancel()
            gate.open()
            answers = await asyncio.gather(*asking, return_exceptions=True)
            assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False] * 5
            assert rig.calls() == "ECZ"


class TestOrder:
    """6. A load writes nothing back after a clear, and an older one nothing over a newer."""

    async def test_a_clear_in_flight_leaves_nothing(self) -> None:
        gate = Gate()
        async with rigged(settings=HELD_UP, sleep=gate) as rig:
            rig.simulator.set_latency(table=slow(zones=1.0))
            asking = asyncio.create_task(rig.service.get_zones_list(user_id=ANN))
            await gate.arrived()
            await rig.service._clear_user_session(ANN)
            gate.open()
            assert (await asking)["zones"] == rig.truth(ANN)["zones"]
            assert await rig.service._get_user_session(ANN) == {}

    async def test_an_old_load_does_not_overwrite_a_newer_forced_one(self) -> None:
        gate = Gate()
        async with rigged(settings=HELD_UP, sleep=gate) as rig:
            rig.simulator.set_latency(table=slow(engagements=1.0))
            before = rig.truth(TWO)["paas_engagement_id"]
            old = asyncio.create_task(rig.service.get_engagement_id(user_id=TWO))
            await gate.arrived()
            rig.simulator.set_latency(scale=0)
            rig.simulator.set_faults([{"kind": "changed_engagement", "user": TWO}])
            after = rig.truth(TWO)["paas_engagement_id"]
            assert await rig.service.get_engagement_id(True, TWO) == after
            gate.open()
            assert await old == before
            assert await rig.service.get_engagement_id(user_id=TWO) == after
            assert before != after


class TestValues:
    """7. What comes back is the caller's own; what is no value is not kept; an empty list is one."""

    async def test_changing_an_answer_changes_nothing_held(self, rig: Rig) -> None:
        service = rig.service

        async def everything() -> list[Any]:
            return [
                await service.get_endpoints(user_id=ANN),
                await service.get_business_units_list(user_id=ANN),
                await service.get_environments_list(user_id=ANN),
                await service.get_zones_list(user_id=ANN),
                await service.list_endpoints(user_id=ANN),
                await service._get_user_session(ANN),
                dict(service.user_sessions),
            ]

        before = await everything()
        for answer in await everything():
            ruin(answer)
        assert await everything() == before
        assert before[0] == rig.truth(ANN)["endpoints"]

    async def test_what_the_caller_gave_stays_the_callers(self, rig: Rig) -> None:
        given = [{"zoneId": 1, "zoneName": "mine"}]
        await rig.service._update_user_session(ANN, zones_list=given)
        given[0]["zoneName"] = "changed"
        assert (await rig.service.get_zones_list(user_id=ANN))["zones"] == [{"zoneId": 1, "zoneName": "mine"}]

    @pytest.mark.parametrize("kind", ["data_null", "failure_envelope", "wrong_type", "html", "invalid_json"])
    async def test_what_is_no_value_is_not_kept(self, rig: Rig, kind: str) -> None:
        rig.simulator.set_faults([{"kind": kind, "times": 1, "path": "zones"}])
        assert not (await rig.service.get_zones_list(user_id=ANN))["success"]
        assert "zones_list" not in await rig.service._get_user_session(ANN)
        assert (await rig.service.get_zones_list(user_id=ANN))["zones"] == rig.truth(ANN)["zones"]

    async def test_an_empty_list_is_a_value(self, rig: Rig) -> None:
        rig.simulator.set_faults(
            [
                {"kind": "empty_list", "path": path}
                for path in ("endpoints", "departments", "environments", "zones")
            ]
        )
        for _ in range(2):
            assert await rig.service.get_endpoints(user_id=ANN) == []
            units = await rig.service.get_business_units_list(user_id=ANN)
            assert (units["success"], units["departments"]) == (True, [])
            environments = await rig.service.get_environments_list(user_id=ANN)
            assert (environments["success"], environments["environments"]) == (True, [])
            zones = await rig.service.get_zones_list(user_id=ANN)
            assert (zones["success"], zones["zones"]) == (True, [])
            listed = await rig.service.list_endpoints(user_id=ANN)
            assert (listed["success"], listed["data"]["total"]) == (True, 0)
        assert rig.calls() == "ECPBNZ"

    async def test_live_lists_may_be_empty_as_well(self, rig: Rig) -> None:
        rig.simulator.set_faults([{"kind": "empty_list", "path": path} for path in ("vmlist", "managed")])
        machines = await rig.service.list_vms(user_id=ANN)
        assert (machines["success"], machines["data"], machines["total"]) == (True, [], 0)
        services = await rig.service.list_managed_services("IKSKafka", user_id=ANN)
        assert (services["success"], services["data"], services["total"]) == (True, [], 0)

    async def test_nobody_without_an_engagement_is_given_one(self, rig: Rig) -> None:
        rig.simulator.set_faults([{"kind": "empty_list", "path": "engagements"}])
        assert await rig.service.get_engagement_id(user_id=ANN) is None
        assert not (await rig.service.get_zones_list(user_id=ANN))["success"]


class TestNothingStays:
    """8. Sessions and tokens are bounded, end by themselves, and go with a logout."""

    async def test_sessions_beyond_the_limit_leave_with_their_tokens(self) -> None:
        async with rigged(limits=Limits(max_sessions=3)) as rig:
            for user in (each["email"] for each in rig.simulator.users()):
                assert await rig.service.get_engagement_id(user_id=user) is not None
                await rig.cache.settled()
                assert len(rig.cache.users()) <= 3
                assert rig.tokens_kept() == set(rig.cache.users())

    async def test_a_logout_leaves_no_token(self, rig: Rig) -> None:
        await rig.service.get_engagement_id(user_id=ANN)
        await rig.service._clear_user_session(ANN)
        await rig.cache.settled()
        assert not rig.tokens_kept()
        await rig.service.get_engagement_id(user_id=ANN)
        assert rig.log_ins_made() == 2

    async def test_who_does_not_come_back_is_forgotten(self, rig: Rig) -> None:
        await rig.service.get_zones_list(user_id=ANN)
        await rig.clock.advance(49 * 3600)
        await rig.cache.settled()
        assert rig.cache.users() == ()
        assert rig.cache.stats().bytes == 0
        assert not rig.tokens_kept()


class TestCalls:
    """9. A 401 is cured by one new token; the query is sent; one client serves all."""

    async def test_a_401_is_cured_by_one_log_in(self, rig: Rig) -> None:
        await rig.service.get_ipc_engagement_id(user_id=ANN)
        rig.simulator.reset()
        rig.simulator.set_faults([{"kind": "expired_token"}])
        fetches = (rig.service.get_zones_list, rig.service.get_environments_list, rig.service.list_vms)
        answers = await asyncio.gather(*(fetch(user_id=ANN) for fetch in fetches))
        assert all(answer["success"] for answer in answers)
        assert rig.log_ins_made() == 1
        assert rig.calls() == "VVNNZZ"

    async def test_one_that_is_not_cured_ends_there(self, rig: Rig) -> None:
        await rig.service.get_zones_list(user_id=ANN)
        await rig.service.get_zones_list(user_id=BOB)
        rig.simulator.reset()
        rig.simulator.set_faults([{"kind": "expired_token", "cured_by_login": False, "user": ANN}])
        assert not (await rig.service.get_zones_list(user_id=ANN, force_refresh=True))["success"]
        assert rig.log_ins_made() == 1
        assert rig.calls() == "ZZ"
        assert (await rig.service.get_zones_list(user_id=BOB))["zones"] == rig.truth(BOB)["zones"]
        assert not (await rig.service.get_zones_list(user_id=ANN))["success"]

    async def test_the_query_is_sent(self, rig: Rig) -> None:
        """The simulator answers by it: a name that is taken has an id."""
        token = await rig.log_ins.token(Account(ANN, rig.simulator.truth(ANN)["password"]))
        taken = rig.truth(ANN)["cluster_names"][0]
        for path, params in (
            ("/portalservice/api/v1/check/clusterName", {"clusterName": taken, "clusterType": "iks"}),
            (f"/portalservice/api/v1/check/clusterName?clusterType=iks&clusterName={taken}", None),
        ):
            response = await rig.client.request("GET", path, token=token, params=params)
            assert taken.encode() in response.body

    async def test_one_client_serves_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[aiohttp.ClientSession] = []
        construct = aiohttp.ClientSession.__init__

        def constructed(self: aiohttp.ClientSession, *arguments: Any, **options: Any) -> None:
            made.append(self)
            construct(self, *arguments, **options)

        monkeypatch.setattr(aiohttp.ClientSession, "__init__", constructed)
        async with rigged() as rig:
            for user in (ANN, BOB, TWO):
                await rig.service.get_zones_list(user_id=user)
                await rig.service.list_clusters(user_id=user)
                await rig.service._clear_user_session(user)
        assert len(made) == 1


class TestStreams:
    """10. A stream that was cut, or that could not be read, is no success; what came is there all the same."""

    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            ({"kind": "cut_stream"}, ["cut"]),
            ({"kind": "cut_stream", "after": 2}, ["missing", "missing", "missing", "cut"]),
            ({"kind": "bad_event"}, ["unreadable", "missing"]),
        ],
        ids=["no complete", "two events", "unreadable"],
    )
    async def test_it_is_no_success(self, rig: Rig, fault: dict[str, Any], told: list[str]) -> None:
        rig.simulator.set_faults([fault])
        answer = await rig.service.list_clusters(user_id=ANN)
        assert (answer["success"], answer["error"]) == (False, "the cluster list is not complete")
        assert [each["fault"] for each in answer["errors"]] == told
        found = {each["clusterName"] for each in answer["data"]}
        assert found
        assert found <= set(rig.truth(ANN)["cluster_names"])

    @pytest.mark.parametrize("after", [0, 500, 5_000])
    async def test_nor_is_one_whose_connection_broke(self, rig: Rig, after: int) -> None:
        """How much had been read by then is up to the network."""
        rig.simulator.set_faults([{"kind": "cut", "path": "clusters", "after": after}])
        answer = await rig.service.list_clusters(user_id=ANN)
        assert answer["success"] is False
        assert answer["errors"][-1]["fault"] in {"cut", "failed"}
        assert {each["clusterName"] for each in answer["data"]} < set(rig.truth(ANN)["cluster_names"])

    async def test_a_stream_that_brings_nothing(self, rig: Rig) -> None:
        rig.simulator.set_faults([{"kind": "cut_stream", "after": 0}])
        answer = await rig.service.list_clusters(user_id=ANN)
        assert (answer["success"], answer["data"], answer["endpoint_data"]) == (False, [], {})

    async def test_times_without_quotes_are_read(self, rig: Rig) -> None:
        answer = await rig.service.list_clusters(user_id=ANN)
        assert answer["success"]
        assert len(answer["data"]) == 63


def ruin(node: Any) -> None:
    """Change everything that can be changed, from within."""
    if isinstance(node, dict):
        for value in list(node.values()):
            ruin(value)
        node.clear()
    elif isinstance(node, list):
        for value in node:
            ruin(value)
        node.append("ruined")
