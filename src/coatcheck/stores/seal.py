"""Authenticated encryption of what a store keeps, bound to its owner, its session, its key and its load.

What a backend sees of an entry is what it is filed under, keyed digests that it can neither compute nor reverse, the
date of its load, and a sealed blob::

    version   1 byte, 1
    key       4 bytes, the id of the ring's key
    nonce     12 random bytes
    sealed    AES-256-GCM of an envelope (`coatcheck.stores.envelope`), and its tag

The cipher's key is derived (HKDF-SHA256) from the ring's key and the random salt of the session, for this catalog, user
and session: with the salt goes every copy, wherever it is. Version, key, catalog, user, session, what both are filed under
and the load time are authenticated with it: moved or changed in anything, it does not open. What is not hidden: how many
sessions and entries there are, how long bodies are, when loads started, and which entries are of one resource. What is
not prevented: that who can write the store puts back what was in it before, an older row of the *same* session or, with
its row, a whole session.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from coatcheck.engine.entry import Discreet
from coatcheck.engine.keys import utf8
from coatcheck.engine.store import Owner
from coatcheck.errors import MissingExtra, StoreFailed
from coatcheck.stores.envelope import Contents, pack, unpack

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.hmac import HMAC
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ModuleNotFoundError as missing:
    raise MissingExtra(
        "coatcheck.stores.seal needs cryptography: install coatcheck[crypto]", name=missing.name
    ) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coatcheck.stores.key_ring import Key, KeyRing

VERSION: Final = b"\x01"
ID_BYTES: Final = 16
SALT_BYTES: Final = 32
DIGEST_BYTES: Final = 32
MAX_SESSIONS: Final = 4096
"""Sessions whose derived keys are held ready; about 3.5 kB each. Those of others are derived anew, in a few microseconds."""

_MAX_KINDS: Final = 4096
_NONCE_BYTES: Final = 12
_NONCE: Final = 5
_TEXT: Final = _NONCE + _NONCE_BYTES
_TAG_BYTES: Final = 16
# The end of what is authenticated, as `framed` would write it: what the entry is filed under and its load time.
_FILED: Final = struct.Struct(f">I{DIGEST_BYTES}sI{DIGEST_BYTES}sId")


class KeyedDigest(NamedTuple):
    """What something is filed under: 32 bytes that nobody can compute or reverse without the key.

    Attributes:
        key: the id of the key of the ring; when that key is dropped, what is filed so can be purged.
        digest: a full HMAC-SHA256.
    """

    key: str
    digest: bytes


class SessionKey(Discreet, gc=False):
    """What the row of a session holds that its entries are sealed with. Gone with the row, so are the entries.

    Attributes:
        id: what writes must carry (16 random bytes).
        salt: 32 random bytes.
        key: the id of the ring's key whose digests the session and its entries are filed under.
    """

    id: bytes
    salt: bytes
    key: str


class SealedEntry(Discreet, gc=False):
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
        self.key_ids = frozenset(key.id for key in ring.keys)
        self._first = ring.keys[0].id
        self._keys = {key.id: key for key in ring.keys}
        self._heads = {_head(key): key for key in ring.keys}
        self._indexes = {key.id: _index(key) for key in ring.keys}
        self._kinds: dict[tuple[str, str, str], bytes] = {}
        self._derived: OrderedDict[bytes, _Derived] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self) -> SessionKey:
        """Draw id and salt of a new session, filed under the ring's first key."""
        return SessionKey(os.urandom(ID_BYTES), os.urandom(SALT_BYTES), self._first)

    def owners(self, owner: Owner) -> tuple[KeyedDigest, ...]:
        """Return what an owner's session is filed under: the first for a new one, the others for older ones."""
        return self._digests(b"owner", owner.catalog, owner.user)

    def catalogs(self, catalog: str) -> tuple[KeyedDigest, ...]:
        """Return what the sessions of a catalog are filed under, in the order of the ring."""
        return self._digests(b"catalog", catalog)

    def kinds(self, catalog: str, resource: str) -> tuple[KeyedDigest, ...]:
        """Return what all entries of a resource, of every owner, are filed under, in the order of the ring."""
        return self._digests(b"kind", catalog, resource)

    def kind(self, owner: Owner, session: SessionKey, resource: str) -> bytes:
        """Return what all entries of a resource in one session are filed under: that of `kinds` for its key.

        Raises:
            StoreFailed: the key of the session is not of the ring.
        """
        return self._kind(self._usable(owner, session), resource)

    def name(self, owner: Owner, session: SessionKey, resource: str, arguments: bytes) -> bytes:
        """Return what one entry of a session is filed under.

        Raises:
            StoreFailed: the key of the session is not of the ring.
        """
        return self._usable(owner, session).name(resource, arguments)

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
        derived = self._usable(owner, session)
        kind, name = self._kind(derived, resource), derived.name(resource, arguments)
        box = derived.box(_head(self._keys[self._first]))
        assert box is not None
        sealed = box.seal(pack(Contents(resource, arguments, body)), _filed(kind, name, started))
        return SealedEntry(kind, name, started, sealed)

    def opener(
        self, owner: Owner, session: SessionKey
    ) -> Callable[[object, object, object, object], Contents | None]:
        """Return what opens the entries of a session: a function of kind, name, start and blob, as `SealedEntry` has them.

        It returns what was sealed, or None if anything of it is not as it was; what it was filed under is authenticated
        with it. It never raises, whatever the row holds.
        """
        derived = self._derive(owner, session)
        return _nothing if derived is None else derived.open

    def unseal(self, owner: Owner, session: SessionKey, entry: SealedEntry) -> Contents | None:
        """Return what was sealed; None if anything of it is not as it was. Never raises."""
        return self.opener(owner, session)(entry.kind, entry.name, entry.started, entry.sealed)

    def seal_user(self, owner: Owner, session: SessionKey) -> bytes:
        """Return who the owner is, sealed, so that whoever has the keys can list the users."""
        box = _user_box(self._keys[self._first], session)
        return box.seal(pack(Contents(owner.catalog, utf8(owner.user, "a user id"), b"")), b"")

    def unseal_user(self, filed: bytes, session: SessionKey, sealed: object) -> Owner | None:
        """Return the owner that `seal_user` sealed, if it is the one whose digest *filed* is. Never raises."""
        if not (isinstance(sealed, bytes) and self._has_form(session)):
            return None
        key = self._heads.get(sealed[:_NONCE])
        if key is None:
            return None
        packed = _user_box(key, session).open(sealed, b"")
        contents = None if packed is None else unpack(packed)
        if contents is None:
            return None
        with contextlib.suppress(UnicodeDecodeError):
            owner = Owner(contents.resource, contents.arguments.decode())
            if KeyedDigest(session.key, filed) in self.owners(owner):
                return owner
        return None

    def forget_session(self, session: bytes) -> None:
        """Drop from memory what was derived for the session of this id; to be called when its row is gone.

        A put that is under way derives it once more, from the salt that it still holds; when its write is refused, call
        this again.
        """
        with self._lock:
            self._derived.pop(session, None)

    def forget_all(self) -> None:
        """Drop from memory what was derived for any session."""
        with self._lock:
            self._derived.clear()

    def _digests(self, *what: bytes | str) -> tuple[KeyedDigest, ...]:
        return tuple(KeyedDigest(key, _digest(index, *what)) for key, index in self._indexes.items())

    def _kind(self, derived: _Derived, resource: str) -> bytes:
        place = derived.session.key, derived.owner.catalog, resource
        kind = self._kinds.get(place)
        if kind is None:
            kind = _digest(self._indexes[place[0]], b"kind", *place[1:])
            if len(self._kinds) >= _MAX_KINDS:
                self._kinds.clear()
            self._kinds[place] = kind
        return kind

    def _has_form(self, session: SessionKey) -> bool:
        """Tell whether a session can be one of ours, also if somebody else wrote its row."""
        return (
            _is_bytes(session.id, ID_BYTES)
            and _is_bytes(session.salt, SALT_BYTES)
            and session.key in self.key_ids
        )

    def _usable(self, owner: Owner, session: SessionKey) -> _Derived:
        derived = self._derive(owner, session)
        if derived is None:
            raise StoreFailed("a session's row is damaged, or of a key that was dropped")
        return derived

    def _derive(self, owner: Owner, session: SessionKey) -> _Derived | None:
        """Return what is derived for a session, None if it cannot be one of ours."""
        if not self._has_form(session):
            return None
        with self._lock:
            derived = self._derived.get(session.id)
            # The id alone decides nothing: somebody may have given it to another's row.
            if derived is not None and derived.session == session and derived.owner == owner:
                self._derived.move_to_end(session.id)
                return derived
        derived = _Derived(owner, session, self._keys[session.key], self._heads)
        with self._lock:
            self._derived[session.id] = derived
            self._derived.move_to_end(session.id)
            if len(self._derived) > MAX_SESSIONS:
                self._derived.popitem(last=False)
        return derived


class _Derived:
    """What is derived for one session of one owner."""

    __slots__ = ("_boxes", "_heads", "_key", "_names", "_scope", "owner", "session")

    def __init__(self, owner: Owner, session: SessionKey, key: Key, heads: Mapping[bytes, Key]) -> None:
        self.owner = owner
        # A copy: the caller's can be changed.
        self.session = SessionKey(session.id, session.salt, session.key)
        self._scope = framed(*owner, session.id)
        self._key = key
        self._heads = heads
        # Who only reads needs none.
        self._names: HMAC | None = None
        self._boxes: dict[bytes, _Box] = {}

    def name(self, resource: str, arguments: bytes) -> bytes:
        names = self._names
        if names is None:
            names = self._names = HMAC(self._subkey(_NAMES, self._key), SHA256())
        return _digest(names, resource, arguments)

    def box(self, head: bytes) -> _Box | None:
        """Return what a key of the ring seals and opens this session's entries with, by how what it seals begins."""
        box = self._boxes.get(head)
        if box is None:
            key = self._heads.get(head)
            if key is None:
                return None
            bound = framed(VERSION, head[1:], b"entry") + self._scope + framed(self.session.key)
            box = self._boxes[head] = _Box(head, self._subkey(_ENTRIES, key), bound)
        return box

    def open(self, kind: object, name: object, started: object, sealed: object) -> Contents | None:
        """Return what `seal` sealed: see `Seal.opener`."""
        if not (
            type(started) is float
            and type(sealed) is type(kind) is type(name) is bytes
            and len(kind) == len(name) == DIGEST_BYTES
        ):
            return None
        box = self.box(sealed[:_NONCE])
        packed = None if box is None else box.open(sealed, _filed(kind, name, started))
        return None if packed is None else unpack(packed)

    def _subkey(self, use: bytes, key: Key) -> bytes:
        return _expanded(key, self.session.salt, use + self._scope)


class _Box:
    """A cipher with the part of what it authenticates that stays the same."""

    __slots__ = ("_bound", "_head", "_open", "_seal")

    def __init__(self, head: bytes, subkey: bytes, bound: bytes) -> None:
        cipher = AESGCM(subkey)
        self._seal = cipher.encrypt
        self._open = cipher.decrypt
        self._head = head
        self._bound = bound

    def seal(self, packed: bytes, bound: bytes) -> bytes:
        # Random nonces are safe for four thousand million entries under one key; this one lives as long as a session.
        nonce = os.urandom(_NONCE_BYTES)
        return b"".join((self._head, nonce, self._seal(nonce, packed, self._bound + bound)))

    def open(self, sealed: bytes, bound: bytes) -> bytes | None:
        if len(sealed) < _TEXT + _TAG_BYTES:
            return None
        try:
            return self._open(sealed[_NONCE:_TEXT], sealed[_TEXT:], self._bound + bound)
        except (InvalidTag, OverflowError):
            return None


def framed(*parts: bytes | str) -> bytes:
    """Return *parts*, each behind its length: no two sequences of them share their bytes."""
    written = b""
    for part in parts:
        content = utf8(part, "a name") if isinstance(part, str) else part
        written += len(content).to_bytes(4) + content
    return written


# How what a session's subkeys are derived for begins; its owner and its id follow.
_ENTRIES: Final = framed(b"coatcheck 1", b"entries")
_NAMES: Final = framed(b"coatcheck 1", b"names")


def _head(key: Key) -> bytes:
    """Return how all begins that is sealed with a key."""
    return VERSION + bytes.fromhex(key.id)


def _nothing(*_entry: object) -> None:
    """Open nothing: what stands for a session that cannot be one of ours."""


def _filed(kind: bytes, name: bytes, started: float) -> bytes:
    return _FILED.pack(DIGEST_BYTES, kind, DIGEST_BYTES, name, 8, started)


def _is_bytes(value: object, length: int) -> bool:
    return isinstance(value, bytes) and len(value) == length


def _expanded(key: Key, salt: bytes | None, use: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, use).derive(key.secret)


def _index(key: Key) -> HMAC:
    return HMAC(_expanded(key, None, framed(b"coatcheck 1", b"index")), SHA256())


def _user_box(key: Key, session: SessionKey) -> _Box:
    scope = framed(b"user", session.id)
    subkey = _expanded(key, session.salt, framed(b"coatcheck 1") + scope)
    return _Box(_head(key), subkey, framed(VERSION, bytes.fromhex(key.id)) + scope)


def _digest(base: HMAC, *what: bytes | str) -> bytes:
    made = base.copy()
    made.update(framed(*what))
    return made.finalize()
