"""The same subject under different authorities is not the same user: nothing is shared but the name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from ipc.rig import ANN, TWO, Gate, Hurried, Rig, accounts_of, rigged, slow, with_settings

from coatcheck import SessionCache
from coatcheck.ipc import APIExecutorService, IpcCloud, catalog
from coatcheck.ipc.api import log_in
from coatcheck.simulator import Simulator
from coatcheck.testing import FakeClock
from coatcheck.upstream.client import UpstreamClient
from coatcheck.upstream.log_ins import Account, LogIns

ISSUERS = ("https://one.example", "https://two.example")


@dataclass
class TwoOrigins:
    """One cache and one service before two upstreams that both know the same e-mails."""

    simulators: dict[str, Simulator]
    log_ins: dict[str, LogIns]
    cache: SessionCache[IpcCloud]
    service: APIExecutorService
    gate: Gate

    def user(self, issuer: str) -> str:
        return f"{issuer}|{ANN}"

    def truth(self, issuer: str) -> dict[str, Any]:
        owned: dict[str, Any] = self.simulators[issuer].truth(ANN)["engagements"][0]
        return owned


@pytest.fixture
async def origins() -> AsyncIterator[TwoOrigins]:
    clock, gate = FakeClock(), Gate()
    simulators, clients, log_ins = {}, {}, {}
    for seed, issuer in enumerate(ISSUERS, start=1):
        simulator = Simulator(with_settings(seed=seed), wall=clock.wall, sleep=gate)
        client = UpstreamClient(await simulator.start(), clock=Hurried(clock))
        simulators[issuer], clients[issuer] = simulator, client
        log_ins[issuer] = LogIns(partial(log_in, client), clock=clock)

    def connect(user: str) -> IpcCloud:
        issuer, _, email = user.partition("|")
        account = Account(email, simulators[issuer].truth(email)["password"])
        return IpcCloud(clients[issuer], log_ins[issuer].provider(account))

    cache = SessionCache(catalog, connect=connect, clock=clock)
    service = APIExecutorService(cache, clock=clock)
    yield TwoOrigins(simulators, log_ins, cache, service, gate)
    await service.close()
    for issuer in ISSUERS:
        await log_ins[issuer].aclose()
        await clients[issuer].aclose()
        await simulators[issuer].close()


class TestTwoOrigins:
    """One subject that two issuers vouch for, at two upstreams; the issuer is part of the user id."""

    async def test_separate_entries(self, origins: TwoOrigins) -> None:
        one, two = (origins.truth(issuer) for issuer in ISSUERS)
        assert one["paas_engagement_id"] != two["paas_engagement_id"]
        for _ in range(2):
            for issuer in ISSUERS:
                answer = await origins.service.get_zones_list(user_id=origins.user(issuer))
                assert answer["zones"] == origins.truth(issuer)["zones"]
                assert answer["ipc_engagement_id"] == origins.truth(issuer)["ipc_engagement_id"]
        assert [origins.simulators[issuer].calls()["total"] for issuer in ISSUERS] == [4, 4]
        assert len(origins.service.user_sessions) == 2

    async def test_separate_single_flight(self, origins: TwoOrigins) -> None:
        """A load that one of them waits for answers nobody of the other."""
        origins.simulators[ISSUERS[0]].set_latency(scale=1, table=slow(zones=1.0))
        waiting = [
            asyncio.create_task(origins.service.get_zones_list(user_id=origins.user(ISSUERS[0])))
            for _ in range(5)
        ]
        await origins.gate.arrived()
        other = await origins.service.get_zones_list(user_id=origins.user(ISSUERS[1]))
        assert other["zones"] == origins.truth(ISSUERS[1])["zones"]
        assert not any(task.done() for task in waiting)
        origins.gate.open()
        for answer in await asyncio.gather(*waiting):
            assert answer["zones"] == origins.truth(ISSUERS[0])["zones"]
        assert [origins.simulators[issuer].calls()["by_path"]["zones"] for issuer in ISSUERS] == [1, 1]

    async def test_separate_credentials(self, origins: TwoOrigins) -> None:
        """A 401 of one origin renews the token there and leaves the other's alone; so does a clear."""
        users = [origins.user(issuer) for issuer in ISSUERS]
        for user in users:
            assert (await origins.service.list_vms(user_id=user))["success"]
        for simulator in origins.simulators.values():
            simulator.reset()
        origins.simulators[ISSUERS[0]].set_faults([{"kind": "expired_token"}])
        for user in users:
            assert (await origins.service.list_vms(user_id=user))["success"]
        assert [origins.simulators[issuer].calls()["by_path"].get("auth", 0) for issuer in ISSUERS] == [1, 0]
        await origins.service._clear_user_session(users[0])
        await origins.cache.settled()
        assert [len(origins.log_ins[issuer]._kept) for issuer in ISSUERS] == [0, 1]
        assert set(origins.service.user_sessions) == {users[1]}


class TestTwoEngagements:
    """One account in two engagements, each with a session of its own."""

    @pytest.fixture
    async def rig(self) -> AsyncIterator[Rig]:
        def by_subject(simulator: Simulator) -> Any:
            known = accounts_of(simulator)
            return lambda user: known(user.partition("#")[0])

        async with rigged(accounts=by_subject) as made:
            yield made

    async def test_separate_entries(self, rig: Rig) -> None:
        users = (f"{TWO}#first", f"{TWO}#second")
        for place, user in enumerate(users):
            paas_id = rig.truth(TWO, place)["paas_engagement_id"]
            await rig.service._update_user_session(user, paas_engagement_id=paas_id)
        for _ in range(2):
            answers = await asyncio.gather(*(rig.service.get_zones_list(user_id=user) for user in users))
            assert [answer["zones"] for answer in answers] == [
                rig.truth(TWO, place)["zones"] for place in (0, 1)
            ]
        # The account is one, and so is its log-in.
        assert rig.log_ins_made() == 1
        assert rig.calls() == "CCZZ"

    async def test_a_clear_of_one_leaves_the_other(self, rig: Rig) -> None:
        users = (f"{TWO}#first", f"{TWO}#second")
        for user in users:
            await rig.service.get_zones_list(user_id=user)
        await rig.service._clear_user_session(users[0])
        await rig.cache.settled()
        rig.calls()
        assert (await rig.service.get_zones_list(user_id=users[1]))["success"]
        assert rig.calls() == ""
        assert (await rig.service.list_vms(user_id=users[1]))["success"]


async def test_staff_acting_as_a_customer() -> None:
    """What is fetched for "staff as Ann" with the staff's account is not Ann's, nor the other way round."""
    staff = TWO

    def acting(simulator: Simulator) -> Any:
        known = accounts_of(simulator)
        return lambda user: known(user.partition(" as ")[0])

    async with rigged(accounts=acting) as rig:
        users = {ANN: ANN, staff: staff, f"{staff} as {ANN}": staff}
        for _ in range(2):
            for user, account in users.items():
                answer = await rig.service.get_business_units_list(user_id=user)
                assert answer["departments"] == rig.truth(account)["departments"]
        assert rig.simulator.calls()["by_user"] == {ANN: 4, staff: 7}
        # Naming the customer's engagement does not help an account that may not see it.
        paas_id = rig.truth(ANN)["paas_engagement_id"]
        await rig.service._update_user_session(f"{staff} as {ANN}", paas_engagement_id=paas_id)
        assert await rig.service.get_endpoints(user_id=f"{staff} as {ANN}") is None
        assert await rig.service.get_endpoints(user_id=ANN) == rig.truth(ANN)["endpoints"]
