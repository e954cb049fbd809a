"""Authenticated encryption of what a store keeps, bound to its owner, its session, its key and its load."""

from __future__ import annotations

from typing import NamedTuple

from coatcheck.engine.entry import Discreet
from coatcheck.engine.store import Owner
from coatcheck.stores.envelope import Contents
from coatcheck.stores.key_ring import KeyRing


class KeyedDigest(NamedTuple):
    """What something is filed under: 32 bytes that nobody can compute or reverse without the key.

    Attributes:
        key: the id of the key of the ring; when that key is dropped, what is filed so can be purged.
        digest: a full HMAC-SHA256.
    """

    key: str
    digest: bytes


class SessionKey(Discreet, gc=False, frozen=True):
    """What the row of a session holds that its entries are sealed with. Gone with the row, so are the entries.

    Attributes:
        id: what writes must carry (16 random bytes).
        salt: 32 random bytes.
        key: the id of the ring's key whose digests the session and its entries are filed under.
    """

    id: bytes
    salt: bytes
    key: str


class SealedEntry(Discreet, gc=False, frozen=True):
    """One entry as the row that holds it.

    Attributes:
        kind: digest of (catalog, resource), the same for all owners whose sessions have one key.
        name: digest of (resource, arguments), of this session alone; unique in it.
        started: when its load started, by the store's clock. Must come back bit for bit.
        sealed: the rest.
    """

    kind: bytes
    name: bytes
    started: float
    sealed: bytes


class Seal:
    """Seals and opens what one store keeps. May be used from any thread.

    Attributes:
        key_ids: the ids of all keys of the ring; rows of any other key do not open and may be purged.
    """

    key_ids: frozenset[str]

    def __init__(self, ring: KeyRing) -> None:
        raise NotImplementedError

    def begin(self) -> SessionKey:
        """Draw id and salt of a new session, filed under the ring's first key."""
        raise NotImplementedError

    def owners(self, owner: Owner) -> tuple[KeyedDigest, ...]:
        """Return what an owner's session is filed under: the first for a new one, the others for older ones."""
        raise NotImplementedError

    def catalogs(self, catalog: str) -> tuple[KeyedDigest, ...]:
        """Return what the sessions of a catalog are filed under, in the order of the ring."""
        raise NotImplementedError

    def kinds(self, catalog: str, resource: str) -> tuple[KeyedDigest, ...]:
        """Return what all entries of a resource, of every owner, are filed under, in the order of the ring."""
        raise NotImplementedError

    def kind(self, owner: Owner, session: SessionKey, resource: str) -> bytes:
        """Return what all entries of a resource in one session are filed under: that of `kinds` for its key."""
        raise NotImplementedError

    def name(self, owner: Owner, session: SessionKey, resource: str, arguments: bytes) -> bytes:
        """Return what one entry of a session is filed under."""
        raise NotImplementedError

    def seal(
        self,
        owner: Owner,
        session: SessionKey,
        resource: str,
        arguments: bytes,
        body: bytes,
        started: float,
    ) -> SealedEntry:
        """Return an entry as what a store may see of it, sealed with the ring's first key.

        Raises:
            StoreFailed: it is too large, or the key of the session is not of the ring.
        """
        raise NotImplementedError

    def unseal(self, owner: Owner, session: SessionKey, entry: SealedEntry) -> Contents | None:
        """Return what was sealed as (resource, arguments, body); None if anything of it is not as it was. Never raises."""
        raise NotImplementedError

    def seal_user(self, owner: Owner, session: SessionKey) -> bytes:
        """Return who the owner is, sealed, so that whoever has the keys can list the users."""
        raise NotImplementedError

    def unseal_user(self, filed: bytes, session: SessionKey, sealed: bytes) -> Owner | None:
        """Return the owner that `seal_user` sealed, if it is the one whose digest *filed* is. Never raises."""
        raise NotImplementedError

    def forget_session(self, session: bytes) -> None:
        """Drop from memory what was derived for the session of this id; to be called when its row is gone."""
        raise NotImplementedError

    def forget_all(self) -> None:
        """Drop from memory what was derived for any session."""
        raise NotImplementedError
