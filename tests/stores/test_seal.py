"""A seal: what a store is given tells it nothing, and opens for its own user, session and load or not at all."""

from __future__ import annotations

import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from coatcheck.engine.store import Owner
from coatcheck.errors import CoatcheckError, MissingExtra, StoreFailed
from coatcheck.stores import envelope
from coatcheck.stores import seal as module
from coatcheck.stores.envelope import Contents
from coatcheck.stores.key_ring import Key, KeyRing
from coatcheck.stores.seal import Seal, SealedEntry, framed
from stores.garbled import SEEDS, blobs
from stores.seal_checks import ANN, BOB, CHECKS, ENTRY, STARTED, row
from stores.seal_mutants import MUTANTS

CANARY = "CANARY-and-then-some"

NOTICED_BY = {
    "no_associated_data": "every_exchanged_field_is_rejected",
    "no_cipher": "nothing_is_readable",
    "no_salt": "every_exchanged_field_is_rejected",
    "user_is_not_bound": "exchanged_rows_are_rejected",
    "key_of_the_session_is_not_bound": "every_exchanged_field_is_rejected",
    "resource_is_not_bound": "every_exchanged_field_is_rejected",
    "arguments_are_not_bound": "every_exchanged_field_is_rejected",
    "load_time_is_not_bound": "every_flip_is_rejected",
    "parts_without_lengths": "digests_share_nothing",
    "derived_keys_are_held_by_id_alone": "every_exchanged_field_is_rejected",
    "one_nonce_for_all": "nothing_is_drawn_twice",
    "digest_is_cut": "digests_share_nothing",
    "only_the_first_key_opens": "all_of_the_ring_open_and_the_first_seals",
    "the_last_key_seals": "all_of_the_ring_open_and_the_first_seals",
    "any_user_is_revealed": "users_are_revealed_to_whom_they_belong",
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize("check", CHECKS)
def test_it_holds(check: str) -> None:
    CHECKS[check]()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_noticed(mutant: str) -> None:
    """With one rule of the seal taken out, the check that is about this rule fails."""
    with MUTANTS[mutant](), pytest.raises(AssertionError):
        CHECKS[NOTICED_BY[mutant]]()


def test_every_mutant_has_its_check() -> None:
    assert set(MUTANTS) == set(NOTICED_BY)
    assert set(NOTICED_BY.values()) <= set(CHECKS)


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS, st.binary(), st.binary(), st.floats(allow_nan=False))
def test_whatever_is_sealed_opens(
    catalog: str, user: str, resource: str, arguments: bytes, body: bytes, started: float
) -> None:
    seal, owner = Seal(KeyRing.drawn()), Owner(catalog, user)
    session = seal.begin()
    entry = seal.seal(owner, session, resource, arguments, body, started)
    assert (resource, arguments, body) == seal.unseal(owner, session, entry)
    assert owner == seal.unseal_user(seal.owners(owner)[0].digest, session, seal.seal_user(owner, session))


@given(st.lists(TEXTS | st.binary(max_size=20)), st.lists(TEXTS | st.binary(max_size=20)))
def test_two_sequences_of_parts_share_no_bytes(one: list[str | bytes], other: list[str | bytes]) -> None:
    def plain(parts: list[str | bytes]) -> list[bytes]:
        return [part.encode() if isinstance(part, str) else part for part in parts]

    assert (plain(one) == plain(other)) == (framed(*one) == framed(*other))


@settings(deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=40), st.binary(max_size=40), st.floats())
def test_whatever_lies_there_is_rejected(sealed: bytes, kind: bytes, name: bytes, started: float) -> None:
    seal = Seal(KeyRing.drawn())
    session = seal.begin()
    assert seal.unseal(ANN, session, SealedEntry(kind, name, started, sealed)) is None
    assert seal.unseal_user(name, session, sealed) is None


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_random_opens_or_raises(seed: int) -> None:
    seal = Seal(KeyRing.drawn().rotated())
    session, theirs = seal.begin(), row(seal, BOB)
    ours = [seal.seal(ANN, session, "endpoints", b"", body, STARTED) for body in (b"null", b"[]")]
    users = [seal.seal_user(owner, session) for owner in (ANN, BOB)]
    filed = seal.owners(ANN)[0].digest
    real = [*(entry.sealed for entry in ours), theirs.entry.sealed, *users]
    for garbled in blobs(real, seed):
        entry = msgspec.structs.replace(ours[0], sealed=garbled)
        assert seal.unseal(ANN, session, entry) is None
        assert seal.unseal_user(filed, session, garbled) is None


@pytest.mark.parametrize(
    "junk", [None, 0, 1.5, "text", b"", b"x" * 31, bytearray(32), memoryview(bytes(32)), ()]
)
def test_a_field_of_another_type_or_length_is_rejected(junk: Any) -> None:
    """A database holds what somebody put there."""
    ours = row(Seal(KeyRing.drawn()))
    for field in ("kind", "name", "sealed", "started"):
        entry = msgspec.structs.replace(ours.entry, **{field: junk})
        assert msgspec.structs.replace(ours, entry=entry).open() is None, field
    filed = ours.seal.owners(ANN)[0].digest
    for field in ("id", "salt", "key"):
        if field == "key" and junk.__hash__ is None:
            continue  # no database brings one
        session = msgspec.structs.replace(ours.session, **{field: junk})
        assert msgspec.structs.replace(ours, session=session).open() is None, field
        assert ours.seal.unseal_user(filed, session, ours.seal.seal_user(ANN, ours.session)) is None
        for ask in (
            lambda session=session: ours.seal.seal(ANN, session, *ENTRY, STARTED),
            lambda session=session: ours.seal.kind(ANN, session, "endpoints"),
            lambda session=session: ours.seal.name(ANN, session, "endpoints", b""),
        ):
            with pytest.raises(StoreFailed, match="damaged"):
                ask()
    sealed = ours.seal.seal_user(ANN, ours.session)
    assert ours.seal.unseal_user(junk, ours.session, sealed) is None
    assert ours.seal.unseal_user(filed, ours.session, junk) is None
    assert ENTRY == ours.open()


def test_a_session_of_a_dropped_key_takes_no_more() -> None:
    ring = KeyRing.drawn()
    session = Seal(ring).begin()
    with pytest.raises(StoreFailed, match="dropped"):
        Seal(ring.rotated(keep=1)).seal(ANN, session, *ENTRY, STARTED)


def test_what_is_too_large_is_not_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "MAX_BYTES", 50)
    with pytest.raises(StoreFailed, match="too large") as caught:
        row(Seal(KeyRing.drawn()), contents=ENTRY._replace(body=CANARY.encode() * 10))
    assert CANARY not in shown(caught.value)


def test_what_was_derived_is_held_until_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    derive = module._expanded

    def counted(key: Key, salt: bytes | None, use: bytes) -> bytes:
        asked.append(use)
        return derive(key, salt, use)

    monkeypatch.setattr(module, "_expanded", counted)
    seal = Seal(KeyRing.drawn())
    ours, theirs = row(seal), row(seal, BOB)
    asked.clear()
    for _ in range(10):
        assert ENTRY == ours.open() == theirs.open()
    assert [] == asked

    seal.forget_session(ours.session.id)
    seal.forget_session(b"nobody's")
    assert ENTRY == theirs.open()
    assert [] == asked
    assert ENTRY == ours.open()
    assert 1 == len(asked)
    seal.forget_all()
    assert not seal._derived


def test_only_so_many_sessions_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were used last; whoever is left out is derived anew."""
    monkeypatch.setattr(module, "MAX_SESSIONS", 3)
    seal = Seal(KeyRing.drawn())
    rows = [row(seal) for _ in range(3)]
    assert ENTRY == rows[0].open()
    rows.append(row(seal))
    assert {rows[index].session.id for index in (2, 0, 3)} == set(seal._derived)
    for _ in range(2):
        assert [ENTRY] * 4 == [each.open() for each in rows]
    assert 3 == len(seal._derived)


def test_only_so_many_kinds_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_KINDS", 3)
    seal = Seal(KeyRing.drawn())
    session = seal.begin()
    for _ in range(2):
        for number in range(8):
            ((_, kind),) = seal.kinds("ipc", str(number))
            assert kind == seal.kind(ANN, session, str(number))
    assert len(seal._kinds) <= 3


def test_a_session_changed_by_its_holder_changes_nothing_that_is_held() -> None:
    ours = row(Seal(KeyRing.drawn()))
    kept = msgspec.structs.replace(ours.session)
    ours.session.salt = bytes(32)
    assert ours.open() is None
    assert ENTRY == msgspec.structs.replace(ours, session=kept).open()


def test_threads_share_a_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 4)
    seal, start = Seal(KeyRing.drawn().rotated()), threading.Barrier(4)
    owners = [Owner("ipc", f"user-{number}") for number in range(8)]
    sessions = {owner: seal.begin() for owner in owners}

    def work(thread: int) -> int:
        start.wait()
        opened = 0
        for turn in range(400):
            owner = owners[(turn * (thread + 1)) % len(owners)]
            contents = Contents("endpoints", b"%d" % turn, owner.user.encode() * 50)
            entry = seal.seal(owner, sessions[owner], *contents, STARTED)
            opened += seal.unseal(owner, sessions[owner], entry) == contents
            if turn % 50 == thread:
                seal.forget_session(sessions[owner].id)
        return opened

    with ThreadPoolExecutor(4) as pool:
        assert [400] * 4 == list(pool.map(work, range(4)))


def shown(error: BaseException) -> str:
    """Return all that an exception and what hangs on it tell."""
    told, waiting = "", [error]
    while waiting:
        each = waiting.pop()
        told += "".join(traceback.format_exception_only(each)) + repr(each) + repr(vars(each))
        waiting += [other for other in (each.__cause__, each.__context__) if other is not None]
    return told


def test_nothing_secret_is_shown() -> None:
    secret = b"CANARY" + b"s" * 26
    ring = KeyRing([Key(secret)])
    seal, owner = Seal(ring), Owner(CANARY, CANARY)
    session = seal.begin()
    entry = seal.seal(owner, session, CANARY, CANARY.encode(), CANARY.encode(), STARTED)
    contents = seal.unseal(owner, session, entry)
    assert contents is not None
    held = (ring, ring.keys[0], seal, owner, session, entry, contents, seal._derived[session.id])
    for told in (repr(held), str(held), pretty_repr(held), *map(str, held), *(f"{each}" for each in held)):
        assert CANARY not in told
        assert "CANARY" not in told
        assert secret.hex() not in told
        for hidden in (session.id, session.salt, entry.sealed):
            assert repr(hidden)[2:-1] not in told

    for ask in (
        lambda: Key(secret + b"too long"),
        lambda: KeyRing(ring.keys * 2),
        lambda: Seal(KeyRing.drawn()).seal(owner, session, CANARY, secret, secret, STARTED),
        lambda: seal.seal(Owner(CANARY, f"{CANARY}\ud800"), session, CANARY, secret, secret, STARTED),
        lambda: seal.seal_user(Owner(CANARY, f"{CANARY}\ud800"), session),
        lambda: seal.seal(owner, session, f"{CANARY}\ud800", secret, secret, STARTED),
    ):
        with pytest.raises(CoatcheckError) as caught:
            cast("Any", ask)()
        assert "CANARY" not in shown(caught.value)
        assert secret.hex() not in shown(caught.value)


def test_a_missing_extra_is_an_error_that_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import coatcheck.stores.envelope, coatcheck.stores.key_ring\n"
        "try: import coatcheck.stores.seal\n"
        "except ImportError as error: print(type(error).__name__, error, sep=': ')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (
        f"{MissingExtra.__name__}: coatcheck.stores.seal needs cryptography: install coatcheck[crypto]\n"
        == done.stdout
    )
