"""IPC Cloud with a store beneath: what comes back after a restart, what never reaches the store, and whose it stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coatcheck.bootstrap import Credentials, IpcCache, ipc_cache
from coatcheck.engine.entry import Outcome
from coatcheck.engine.store import Owner, Record, Written
from coatcheck.errors import NoCredentials
from coatcheck.ipc import APIExecutorService, catalog
from coatcheck.ipc.resources import zones_list
from coatcheck.settings import Settings
from coatcheck.simulator import Settings as SimulatorSettings
from coatcheck.simulator import Simulator
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.testing.stores import MemoryStore
from coatcheck.upstream.log_ins import Account
from ipc.rig import ANN, BOB, TWO, accounts_of

USERS = (ANN, BOB, TWO)


class Shown(MemoryStore):
    """A store that outlives its caches and shows what reached it."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []

    async def put(self, owner: Owner, session: bytes, record: Record, *, keep_for: float) -> Written:
        self.bodies.append(record.body)
        return await super().put(owner, session, record, keep_for=keep_for)

    async def aclose(self) -> None:
        pass


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings(seed=7, users=12, latency_scale=0)) as simulator:
        yield simulator


def cache_of(
    simulator: Simulator, store: SQLiteStore | MemoryStore, credentials: Credentials | None = None
) -> IpcCache:
    settings = Settings(upstream_url=simulator.url)
    return ipc_cache(
        settings, credentials=accounts_of(simulator) if credentials is None else credentials, store=store
    )


def bytes_in(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in folder.iterdir())


async def test_after_a_restart_the_drop_in_service_asks_for_nothing_that_is_kept(
    simulator: Simulator, tmp_path: Path
) -> None:
    keys = KeyRing.drawn()
    answers = []
    for _ in range(2):
        service = APIExecutorService(cache_of(simulator, SQLiteStore(tmp_path / "sessions", keys=keys)))
        simulator.reset()
        answers.append(
            [
                (
                    await service.get_zones_list(user_id=user),
                    await service.get_endpoints(user_id=user),
                    await service.get_ipc_engagement_id(user_id=user),
                )
                for user in USERS
            ]
        )
        calls = simulator.calls()["total"]
        await service.close()
    assert answers[0] == answers[1]
    assert calls == 0


async def test_neither_passwords_nor_tokens_reach_a_store(simulator: Simulator) -> None:
    store = Shown()
    async with cache_of(simulator, store) as cache:
        for user in USERS:
            await cache.session(user).warm()
        await cache.settled()
        tokens = [kept.token for kept in cache._log_ins._kept.values()]
    stored = sum(not resource.derived for resource in catalog)
    assert len(store.bodies) == stored * len(USERS)
    assert len(tokens) == len(USERS)
    secrets = [*tokens, *(simulator.truth(user)["password"] for user in USERS)]
    for body in store.bodies:
        assert not any(secret.encode() in body for secret in secrets)


async def test_the_files_tell_nothing_of_the_users(simulator: Simulator, tmp_path: Path) -> None:
    async with cache_of(simulator, SQLiteStore(tmp_path / "sessions", keys=KeyRing.drawn())) as cache:
        for user in USERS:
            await cache.session(user).warm()
        await cache.settled()
        during = bytes_in(tmp_path)
    after = bytes_in(tmp_path)
    assert len(after) > 10_000
    for user in USERS:
        truth = simulator.truth(user)
        owned = truth["engagements"][0]
        for canary in (
            user, truth["tag"], str(owned["paas_engagement_id"]), str(owned["ipc_engagement_id"]), "zones_list",
        ):  # fmt: skip
            assert canary.encode() not in during + after, canary


async def test_what_another_account_was_shown_is_not_shown(simulator: Simulator) -> None:
    store = Shown()
    owned, shared = accounts_of(simulator), accounts_of(simulator)(BOB)

    def team(_user: str) -> Account | None:
        return shared

    async with cache_of(simulator, store, team) as cache:
        theirs = await cache.session(ANN).get(zones_list)
    async with cache_of(simulator, store, owned) as cache:
        look = await cache.session(ANN).lookup(zones_list)
        assert look.outcome is Outcome.MISS
        assert look.value != theirs
    async with cache_of(simulator, store, owned) as cache:
        assert (await cache.session(ANN).lookup(zones_list)).outcome is Outcome.HIT
    async with cache_of(simulator, store, lambda _: None) as cache:
        with pytest.raises(NoCredentials):
            await cache.session(ANN).get(zones_list)


async def test_what_another_upstream_said_is_not_shown(simulator: Simulator) -> None:
    store = Shown()
    async with cache_of(simulator, store) as cache:
        here = await cache.session(ANN).get(zones_list)
    async with (
        Simulator(SimulatorSettings(seed=8, users=12, latency_scale=0)) as other,
        cache_of(other, store) as cache,
    ):
        look = await cache.session(ANN).lookup(zones_list)
        assert look.outcome is Outcome.MISS
        assert look.value != here
