"""The seal with one of its rules taken out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Self
from unittest import mock

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coatcheck.engine.store import Owner
from coatcheck.stores import seal as module
from coatcheck.stores.seal import Seal, SessionKey

MUTANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {}


def mutant(patch: Callable[[], Iterator[None]]) -> None:
    MUTANTS[patch.__name__] = contextlib.contextmanager(patch)


class Unbound:
    """A cipher that authenticates nothing but the text."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def encrypt(self, nonce: bytes, data: bytes, bound: bytes | None) -> bytes:
        return self._cipher.encrypt(nonce, data, None)

    def decrypt(self, nonce: bytes, data: bytes, bound: bytes | None) -> bytes:
        return self._cipher.decrypt(nonce, data, None)


class Plain(Unbound):
    """No cipher at all."""

    def encrypt(self, nonce: bytes, data: bytes, bound: bytes | None) -> bytes:
        return data + bytes(16)

    def decrypt(self, nonce: bytes, data: bytes, bound: bytes | None) -> bytes:
        return data[:-16]


@mutant
def no_associated_data() -> Iterator[None]:
    with mock.patch.object(module, "AESGCM", Unbound):
        yield


@mutant
def no_cipher() -> Iterator[None]:
    with mock.patch.object(module, "AESGCM", Plain):
        yield


@mutant
def no_salt() -> Iterator[None]:
    derive = module._expanded
    with mock.patch.object(module, "_expanded", lambda key, _salt, use: derive(key, None, use)):
        yield


@mutant
def user_is_not_bound() -> Iterator[None]:
    start = module._Derived.__init__

    def derived(self: Any, owner: Owner, session: SessionKey, *keys: Any) -> None:
        start(self, owner, session, *keys)
        self._scope = module.framed(owner.catalog, session.id)

    with mock.patch.object(module._Derived, "__init__", derived):
        yield


@mutant
def key_of_the_session_is_not_bound() -> Iterator[None]:
    start = module._Box.__init__

    def box(self: Any, head: bytes, subkey: bytes, bound: bytes) -> None:
        start(self, head, subkey, bound[: -len(module.framed("a key id"))] if b"entry" in bound else bound)

    with mock.patch.object(module._Box, "__init__", box):
        yield


@mutant
def resource_is_not_bound() -> Iterator[None]:
    filed = module._filed
    with mock.patch.object(module, "_filed", lambda _, name, started: filed(b"", name, started)):
        yield


@mutant
def arguments_are_not_bound() -> Iterator[None]:
    filed = module._filed
    with mock.patch.object(module, "_filed", lambda kind, _, started: filed(kind, b"", started)):
        yield


@mutant
def load_time_is_not_bound() -> Iterator[None]:
    filed = module._filed
    with mock.patch.object(module, "_filed", lambda kind, name, _: filed(kind, name, 0.0)):
        yield


@mutant
def parts_without_lengths() -> Iterator[None]:
    def joined(*parts: bytes | str) -> bytes:
        return b"".join(part.encode() if isinstance(part, str) else part for part in parts)

    with mock.patch.object(module, "framed", joined):
        yield


@mutant
def derived_keys_are_held_by_id_alone() -> Iterator[None]:
    derive = Seal._derive

    def by_id(self: Seal, owner: Owner, session: SessionKey) -> Any:
        return self._derived.get(session.id) or derive(self, owner, session)

    with mock.patch.object(Seal, "_derive", by_id):
        yield


@mutant
def one_nonce_for_all() -> Iterator[None]:
    with mock.patch.object(os, "urandom", lambda length: b"n" * length):
        yield


@mutant
def digest_is_cut() -> Iterator[None]:
    digest = module._digest
    with mock.patch.object(module, "_digest", lambda *what: digest(*what)[:16] + bytes(16)):
        yield


@mutant
def only_the_first_key_opens() -> Iterator[None]:
    start = Seal.__init__

    def first(self: Seal, ring: Any) -> None:
        start(self, ring)
        self._heads = {head: key for head, key in self._heads.items() if key.id == self._first}

    with mock.patch.object(Seal, "__init__", first):
        yield


@mutant
def the_last_key_seals() -> Iterator[None]:
    start = Seal.__init__

    def last(self: Seal, ring: Any) -> None:
        start(self, ring)
        self._first = ring.keys[-1].id

    with mock.patch.object(Seal, "__init__", last):
        yield


@mutant
def any_user_is_revealed() -> Iterator[None]:
    with mock.patch.object(module, "KeyedDigest", Anything):
        yield


class Anything(tuple[Any, ...]):
    """Equal to whatever it is compared with."""

    __slots__ = ()

    def __new__(cls, *parts: object) -> Self:
        return super().__new__(cls, parts)

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    @property
    def digest(self) -> Any:
        return self[1]

    @property
    def key(self) -> Any:
        return self[0]
