"""A program's own source of keys: asked once, and what it raises or returns by mistake is not shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coatcheck.errors import KeysUnusable, StoreFailed, StoreInUse
from coatcheck.stores import KeyProvider, KeyRing
from coatcheck.stores.sqlite import SQLiteStore, inspect
from stores.sqlite_rig import ANN, DAY, KEYS, Rig, record

CANARY = KEYS.text()
SECRET = KEYS.keys[0].secret.hex()
HINT = ", with a text that is not shown, as it may hold a key: call it by itself to see it"


class Vault:
    """A provider that counts its calls, and raises what it is told to."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.calls = 0
        self.failure = failure

    def __call__(self) -> KeyRing:
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        return KEYS


async def a_coroutine() -> KeyRing:
    return KEYS


def refusal(path: Path, keys: Any) -> str:
    """Return how a store and a look refuse these keys: alike, and with no exception behind it that tells more."""
    told = []
    for ask in (lambda: SQLiteStore(path, keys=keys), inspect(path, keys=keys).__enter__):
        with pytest.raises(KeysUnusable) as caught:
            ask()
        error: BaseException = caught.value
        assert (None, None) == (error.__cause__, error.__context__)
        assert SECRET not in f"{error}{error!r}"
        told.append(str(error))
    (line,) = set(told)
    return line


async def test_a_provider_is_called_once_and_before_anything_is_answered(rig: Rig) -> None:
    """However long a store is used, nobody waits for the provider again."""
    vault = Vault()
    async with rig.open(keys=vault) as store:
        assert 1 == vault.calls
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
        await store.check()
        await store.compact()
        await store.clear(ANN)
        session = await store.open(ANN)
    assert 1 == vault.calls
    async with rig.open(keys=KEYS) as store:
        assert session.id == (await store.open(ANN)).id


async def test_a_look_takes_a_provider_as_a_store_does(rig: Rig) -> None:
    """Who opens a store with a provider looks into it with the same."""
    vault = Vault()
    async with rig.open() as store:
        await store.open(ANN)
    with inspect(rig.path, keys=vault, clock=rig.clock) as inspector:
        assert [ANN] == [each.owner for each in inspector.reveal()]
        assert (0, 0) == (inspector.check().opened, inspector.check().rejected)
    assert 1 == vault.calls


@pytest.mark.parametrize(
    "failure",
    [
        OSError(13, CANARY, CANARY),
        KeyError(CANARY),
        StoreFailed(CANARY),
        ExceptionGroup(CANARY, [ValueError()]),
    ],
)
async def test_of_what_a_provider_raises_only_the_kind_is_told(rig: Rig, failure: Exception) -> None:
    """Its text may have a key in it, or what opens the place of the keys."""
    async with rig.open():
        pass
    told = refusal(rig.path, Vault(failure))
    assert f"the provider of the keys raised {type(failure).__name__}{HINT}" == told


async def test_keys_unusable_of_a_provider_is_raised_as_it_is(rig: Rig) -> None:
    """It is how a provider says what is wrong."""
    failure = KeysUnusable("the vault is sealed")
    with pytest.raises(KeysUnusable) as caught:
        SQLiteStore(rig.path, keys=Vault(failure))
    assert failure is caught.value


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
async def test_the_end_of_a_program_is_not_hidden_and_the_file_is_free(
    rig: Rig, end: type[BaseException]
) -> None:
    """Ctrl-C while a provider waits for its vault ends the program."""
    with pytest.raises(end):
        SQLiteStore(rig.path, keys=Vault(end()))
    async with rig.open() as store:
        await store.open(ANN)


@pytest.mark.parametrize(
    ("provider", "problem"),
    [
        (lambda: CANARY, "returned str in place of a KeyRing"),
        (lambda: None, "returned NoneType in place of a KeyRing"),
        (lambda: KEYS.keys, "returned tuple in place of a KeyRing"),
        (a_coroutine, "returned coroutine in place of a KeyRing; it must be no async function"),
        (lambda place: place, f"raised TypeError{HINT}"),
    ],
)
async def test_a_provider_that_brings_no_ring_is_refused(
    rig: Rig, provider: Callable[..., object], problem: str
) -> None:
    """What it brings instead may be a key, and is not shown."""
    async with rig.open():
        pass
    assert f"the provider of the keys {problem}" == refusal(rig.path, provider)


@pytest.mark.parametrize("keys", [CANARY, CANARY.encode(), Path("keys"), KEYS.keys])
async def test_what_is_neither_a_ring_nor_a_provider_is_refused(rig: Rig, keys: object) -> None:
    """Who gives the text of the keys, or their path, is told what is taken."""
    async with rig.open():
        pass
    told = refusal(rig.path, keys)
    assert "keys are given as a KeyRing, or as a function without parameters that returns one" == told


async def test_a_provider_that_fails_leaves_the_file_free_and_as_it_was(rig: Rig) -> None:
    """A vault that is down for a moment costs nothing that is stored."""
    async with rig.open() as store:
        session = await store.open(ANN)
    before = rig.path.read_bytes()
    with pytest.raises(KeysUnusable):
        SQLiteStore(rig.path, keys=Vault(TimeoutError()))
    assert before == rig.path.read_bytes()
    async with rig.open(keys=Vault()) as store:
        assert session.id == (await store.open(ANN)).id


async def test_where_there_can_be_no_store_nobody_is_asked_for_keys(rig: Rig, tmp_path: Path) -> None:
    """Keys are not fetched into a program that has no use for them."""
    vault = Vault()
    async with rig.open():
        with pytest.raises(StoreInUse):
            SQLiteStore(rig.path, keys=vault)
    with pytest.raises(StoreFailed):
        SQLiteStore(tmp_path, keys=vault)
    with pytest.raises(StoreFailed):
        inspect(tmp_path / "nowhere", keys=vault).__enter__()
    assert 0 == vault.calls


async def test_with_a_provider_no_file_of_keys_is_made_and_nothing_shows_a_key(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys that a program keeps elsewhere do not come to lie beside the store."""
    caplog.set_level(0)
    provider: KeyProvider = Vault()
    async with rig.open(keys=provider) as store:
        await store.open(ANN)
        assert SECRET not in repr(store)
        assert not list(rig.path.parent.glob("*keys*"))
        assert KEYS.keys[0].secret not in rig.on_disk()
        assert SECRET.encode() not in rig.on_disk()
    assert SECRET not in repr([vars(each) for each in caplog.records])
