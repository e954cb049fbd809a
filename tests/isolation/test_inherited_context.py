"""What one user's request set off works for another in the other's name: nothing is inherited from who was first."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from ipc.rig import ANN, BOB, TWO, Rig, accounts_of, rigged

from coatcheck import Schedule, current_user
from coatcheck.upstream.client import UpstreamClient

if TYPE_CHECKING:
    from ipc.rig import Accounts

    from coatcheck.simulator import Simulator
    from coatcheck.upstream.log_ins import Account

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class Contexts:
    """What the context said whenever somebody connected or sent a request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connected: list[tuple[str, str | None, str | None]] = []
        self.sent: list[tuple[str | None, str | None]] = []
        self.log_ins: list[tuple[str | None, str | None]] = []
        send = UpstreamClient.request

        async def noted(client: UpstreamClient, *arguments: Any, **options: Any) -> Any:
            said = (current_user.get(), request_id.get())
            self.sent.append(said)
            if arguments[1].endswith("getAuthToken"):
                self.log_ins.append(said)
            return await send(client, *arguments, **options)

        monkeypatch.setattr(UpstreamClient, "request", noted)

    def accounts(self, simulator: Simulator) -> Accounts:
        known = accounts_of(simulator)

        def account(user: str) -> Account | None:
            self.connected.append((user, current_user.get(), request_id.get()))
            return known(user)

        return account

    def assert_empty(self) -> None:
        assert self.sent
        assert set(self.sent) == {(None, None)}
        assert {(who, where) for _, who, where in self.connected} == {(None, None)}


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> Contexts:
    return Contexts(monkeypatch)


async def as_request(user: str, work: Any) -> Any:
    """Await *work* as a request of *user* would, with what a middleware has set."""
    context = copy_context()
    context.run(current_user.set, user)
    context.run(request_id.set, f"request of {user}")
    return await asyncio.create_task(work, context=context)


async def everything(rig: Rig, user: str | None = None) -> None:
    assert await rig.service.get_endpoints(user_id=user) is not None
    for fetch in (
        rig.service.get_business_units_list,
        rig.service.get_environments_list,
        rig.service.get_zones_list,
    ):
        assert (await fetch(user_id=user))["success"]


async def test_loads_know_nothing_of_the_request_that_began_them(contexts: Contexts) -> None:
    async with rigged(accounts=contexts.accounts) as rig:
        for user in (ANN, BOB):
            await as_request(user, everything(rig))
            assert rig.simulator.calls()["by_user"] == {user: 7}
            rig.simulator.reset()
        contexts.assert_empty()
        assert [user for user, _, _ in contexts.connected] == [ANN, BOB]


async def test_a_request_for_somebody_else_is_made_in_the_others_name(contexts: Contexts) -> None:
    """As a member of staff may ask for a customer: the credentials are those of who is named."""
    async with rigged(accounts=contexts.accounts) as rig:
        await as_request(ANN, everything(rig, BOB))
        assert rig.simulator.calls()["by_user"] == {BOB: 7}
        contexts.assert_empty()


async def test_who_joins_a_load_gets_the_owners(contexts: Contexts) -> None:
    async with rigged(accounts=contexts.accounts) as rig:
        await asyncio.gather(*(as_request(user, everything(rig, TWO)) for user in (ANN, BOB, TWO)))
        assert rig.simulator.calls()["by_user"] == {TWO: 7}
        contexts.assert_empty()


async def test_a_live_call_logs_in_for_everyone(contexts: Contexts) -> None:
    """It is made within the request itself; but the token and the connection it needs serve later ones as well."""
    async with rigged(accounts=contexts.accounts) as rig:
        owned = rig.truth(BOB)
        endpoint_ids = [each["endpointId"] for each in owned["endpoints"]]
        for _ in range(2):
            listing = rig.service.list_clusters(endpoint_ids, owned["paas_engagement_id"], BOB)
            assert (await as_request(ANN, listing))["success"]
            await rig.clock.advance(600)
        assert rig.simulator.calls()["by_user"] == {BOB: 4}
        assert set(contexts.connected) == {(BOB, None, None)}
        assert contexts.log_ins == [(None, None)] * 2


async def test_a_refresh_that_anothers_get_began(contexts: Contexts) -> None:
    """Ann's request finds Bob's lists ageing; they are loaded anew as Bob, with a new token of his."""
    async with rigged(accounts=contexts.accounts) as rig:
        await as_request(BOB, everything(rig))
        await rig.clock.advance(23 * 3600)
        rig.simulator.reset()
        await as_request(ANN, everything(rig, BOB))
        await rig.cache.settled()
        assert rig.simulator.calls()["by_user"] == {BOB: 7}
        assert (await rig.service._get_user_session(BOB))["zones_list"] == rig.truth(BOB)["zones"]
        contexts.assert_empty()


async def test_the_refresher_that_the_first_user_started(contexts: Contexts) -> None:
    """It begins with the cache, in Ann's request; what it loads for Bob it loads as Bob."""
    schedule = Schedule(every=timedelta(hours=1), seen_within=timedelta(hours=30), jitter=0)
    async with rigged(accounts=contexts.accounts, schedule=schedule) as rig:
        await as_request(ANN, rig.service.get_engagement_id())
        await as_request(BOB, everything(rig))
        rig.simulator.reset()
        # Rounds load what ages before the next one; none of these loads is waited for by a request.
        for _ in range(23 * 4):
            await rig.clock.advance(900)
            await rig.cache.settled()
        made = rig.simulator.calls()
        assert made["by_user"].keys() == {ANN, BOB}
        data = {name: number for name, number in made["by_path"].items() if name != "auth"}
        assert data == {
            "engagements": 2,
            "conversion": 1,
            "endpoints": 1,
            "departments": 1,
            "environments": 1,
            "zones": 1,
        }
        for user in (ANN, BOB):
            held = await rig.service._get_user_session(user)
            assert held["engagement_data"] == rig.truth(user)["engagement"]
        assert held["zones_list"] == rig.truth(BOB)["zones"]
        contexts.assert_empty()
