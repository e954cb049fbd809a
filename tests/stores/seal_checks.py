"""What a seal promises, each as a check that raises an AssertionError when it does not hold."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import combinations

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coatcheck.engine.store import Owner
from coatcheck.stores.envelope import Contents, pack
from coatcheck.stores.key_ring import Key, KeyRing
from coatcheck.stores.seal import Seal, SealedEntry, SessionKey
from stores.garbled import flips

ANN = Owner("ipc", "ann@example.com")
BOB = Owner("ipc", "bob@example.com")
ENTRY = Contents("endpoints", b"i4:1005", b'[{"id": 7}]')
STARTED = 1_700_000_000.25


def lp(*parts: bytes) -> bytes:
    """Return *parts* behind their lengths, written a second time."""
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


class Row(msgspec.Struct, frozen=True):
    """One sealed entry with all that is said of it when it is opened."""

    seal: Seal
    owner: Owner
    session: SessionKey
    entry: SealedEntry

    def open(self) -> Contents | None:
        return self.seal.unseal(self.owner, self.session, self.entry)


def row(seal: Seal, owner: Owner = ANN, contents: Contents = ENTRY, session: SessionKey | None = None) -> Row:
    session = seal.begin() if session is None else session
    return Row(seal, owner, session, seal.seal(owner, session, *contents, STARTED))


def sealed_opens() -> None:
    seal = Seal(KeyRing.drawn())
    for contents in (ENTRY, Contents("", b"", b""), Contents("z", b"n", b"x" * 100_000)):
        assert contents == row(seal, contents=contents).open()
    ours = row(seal)
    seal.forget_all()
    assert ENTRY == ours.open()


def every_flip_is_rejected() -> None:
    for ring in (KeyRing.drawn(), KeyRing.drawn().rotated(keep=4).rotated(keep=4)):
        ours = row(Seal(ring))
        for field in ("kind", "name", "sealed"):
            for garbled in flips(getattr(ours.entry, field)):
                entry = msgspec.structs.replace(ours.entry, **{field: garbled})
                assert msgspec.structs.replace(ours, entry=entry).open() is None, field
        for garbled in flips(struct.pack(">d", STARTED)):
            entry = msgspec.structs.replace(ours.entry, started=struct.unpack(">d", garbled)[0])
            assert msgspec.structs.replace(ours, entry=entry).open() is None
        for field in ("id", "salt"):
            for garbled in flips(getattr(ours.session, field)):
                session = msgspec.structs.replace(ours.session, **{field: garbled})
                assert msgspec.structs.replace(ours, session=session).open() is None, field


def every_part_cut_short_is_rejected() -> None:
    ours = row(Seal(KeyRing.drawn()))
    for end in range(len(ours.entry.sealed)):
        entry = msgspec.structs.replace(ours.entry, sealed=ours.entry.sealed[:end])
        assert msgspec.structs.replace(ours, entry=entry).open() is None
    entry = msgspec.structs.replace(ours.entry, sealed=ours.entry.sealed + b"\0")
    assert msgspec.structs.replace(ours, entry=entry).open() is None


def every_exchanged_field_is_rejected() -> None:
    """One at a time, by what another entry has there; that one differs in nothing but what the field says."""
    ring = KeyRing.drawn().rotated()
    seal, old = Seal(ring), Seal(KeyRing(ring.keys[1:]))
    ours = row(seal)
    entries = {
        "user": row(seal, BOB, session=ours.session),
        "catalog": row(seal, ANN._replace(catalog="other"), session=ours.session),
        "resource": row(seal, contents=ENTRY._replace(resource="zones_list"), session=ours.session),
        "arguments": row(seal, contents=ENTRY._replace(arguments=b"i4:1006"), session=ours.session),
    }
    for what, other in entries.items():
        if other.owner != ours.owner:
            assert msgspec.structs.replace(ours, owner=other.owner).open() is None, what
            assert msgspec.structs.replace(other, owner=ours.owner).open() is None, what
        for field in ("kind", "name", "sealed"):
            value = getattr(other.entry, field)
            if value != getattr(ours.entry, field):
                entry = msgspec.structs.replace(ours.entry, **{field: value})
                assert msgspec.structs.replace(ours, entry=entry).open() is None, (what, field)
    for field, value in (
        ("id", seal.begin().id),
        ("salt", seal.begin().salt),
        ("key", old.begin().key),
    ):
        session = msgspec.structs.replace(ours.session, **{field: value})
        assert msgspec.structs.replace(ours, session=session).open() is None, field
    for started in (STARTED + 1e-6, STARTED - 60, 0.0, float("nan"), float("inf")):
        entry = msgspec.structs.replace(ours.entry, started=started)
        assert msgspec.structs.replace(ours, entry=entry).open() is None, started
    header = bytearray(ours.entry.sealed)
    header[1:5] = bytes.fromhex(ring.keys[1].id)
    entry = msgspec.structs.replace(ours.entry, sealed=bytes(header))
    assert msgspec.structs.replace(ours, entry=entry).open() is None
    assert ENTRY == ours.open()


def exchanged_rows_are_rejected() -> None:
    """Whatever is swapped between two users: an entry, the session's row, or the parts of both."""
    seal = Seal(KeyRing.drawn())
    ann, bob = row(seal, ANN), row(seal, BOB)
    for mine, theirs in ((ann, bob), (bob, ann)):
        for swapped in (
            {"owner": theirs.owner},
            {"session": theirs.session},
            {"entry": theirs.entry},
            {"session": theirs.session, "entry": theirs.entry},
            {"owner": theirs.owner, "session": theirs.session},
            {"owner": theirs.owner, "entry": theirs.entry},
        ):
            for warm in (True, False):
                if not warm:
                    seal.forget_all()
                assert msgspec.structs.replace(mine, **swapped).open() is None, swapped
                assert mine.open() == theirs.open() == ENTRY


def all_of_the_ring_open_and_the_first_seals() -> None:
    one = KeyRing.drawn()
    two = one.rotated()
    old, new, newest = Seal(one), Seal(two), Seal(two.rotated())
    ours = row(old)
    # A session that was begun before keeps its digests, so that what is filed in it is found and replaced.
    later = row(new, session=ours.session)
    assert ENTRY == msgspec.structs.replace(ours, seal=new).open() == later.open()
    assert (ours.entry.kind, ours.entry.name) == (later.entry.kind, later.entry.name)
    assert two.keys[0].id == later.entry.sealed[1:5].hex() != ours.entry.sealed[1:5].hex() == one.keys[0].id
    assert msgspec.structs.replace(later, seal=old).open() is None
    assert set(old.owners(ANN)) < set(new.owners(ANN))
    assert [key.id for key in two.keys] == [digest.key for digest in new.owners(ANN)]
    assert new.begin().key == two.keys[0].id
    # The key that one was sealed with is gone, of the other that of its session.
    assert msgspec.structs.replace(ours, seal=newest).open() is None
    assert msgspec.structs.replace(later, seal=newest).open() is None
    assert ours.session.key not in newest.key_ids
    assert not set(old.owners(ANN)) & set(newest.owners(ANN))


def digests_share_nothing() -> None:
    """Of two whose parts run into each other, of two kinds, of two keys: all differ, and have their full length."""
    seal = Seal(KeyRing.drawn().rotated())
    owners = [
        Owner("ipc", "ann"),
        Owner("ip", "cann"),
        Owner("ipca", "nn"),
        Owner("ipc", "an"),
        Owner("ipc", "Ann"),
    ]
    digests = [digest for owner in owners for digest in seal.owners(owner)]
    digests += [digest for owner in owners for digest in seal.kinds(*owner)]
    digests += [digest for text in ("ipc", "ip", "", "ipcann", "owneripc") for digest in seal.catalogs(text)]
    session = seal.begin()
    parts = [("env", b"alice"), ("enva", b"lice"), ("envalice", b""), ("", b"envalice"), ("env", b"alicf")]
    names = [seal.name(owner, session, *part) for owner in owners for part in parts]
    names += [seal.name(ANN, other, *parts[0]) for other in (session, seal.begin())]
    everything = [digest for _, digest in digests] + names
    assert len(set(everything)) == len(everything)
    assert {32} == {len(digest) for digest in everything}
    for half in (slice(16), slice(16, None)):
        assert len({digest[half] for digest in everything}) == len(everything)
    for owner, resource in combinations(owners, 2):
        assert seal.kind(owner, session, resource.user) in {
            digest for _, digest in seal.kinds(owner.catalog, resource.user)
        }


def nothing_is_drawn_twice() -> None:
    seal = Seal(KeyRing.drawn())
    session = seal.begin()
    entries = [seal.seal(ANN, session, *ENTRY, STARTED) for _ in range(1_000)]
    assert len({entry.sealed[5:17] for entry in entries}) == 1_000
    begun = [seal.begin() for _ in range(1_000)]
    assert 1_000 == len({each.id for each in begun}) == len({each.salt for each in begun})
    assert {(16, 32)} == {(len(each.id), len(each.salt)) for each in begun}


def nothing_is_readable() -> None:
    """Not a word of the user, the resource, the arguments or the body in what a store is given."""
    seal = Seal(KeyRing.drawn())
    session = seal.begin()
    canary = "CANARY" * 3
    owner = Owner(canary, canary)
    entry = seal.seal(owner, session, canary, canary.encode(), canary.encode(), STARTED)
    filed = (*seal.owners(owner), *seal.catalogs(canary), *seal.kinds(canary, canary))
    given = [
        entry.kind,
        entry.name,
        entry.sealed,
        seal.seal_user(owner, session),
        *(each.digest for each in filed),
    ]
    assert not any(b"CANARY" in each for each in given)
    assert not any(secret.secret in each for secret in seal._keys.values() for each in given)


def users_are_revealed_to_whom_they_belong() -> None:
    ring = KeyRing.drawn()
    seal, later = Seal(ring), Seal(ring.rotated())
    sessions = {owner: seal.begin() for owner in (ANN, BOB)}
    for owner, session in sessions.items():
        sealed = seal.seal_user(owner, session)
        filed = seal.owners(owner)[0].digest
        other = sessions[BOB if owner == ANN else ANN]
        assert owner == seal.unseal_user(filed, session, sealed) == later.unseal_user(filed, session, sealed)
        assert seal.unseal_user(seal.owners(other_owner(owner))[0].digest, session, sealed) is None
        assert seal.unseal_user(filed, other, sealed) is None
        assert Seal(KeyRing.drawn()).unseal_user(filed, session, sealed) is None
        for garbled in flips(sealed):
            assert seal.unseal_user(filed, session, garbled) is None
        # An entry is no user, and a user no entry.
        entry = seal.seal(owner, session, owner.catalog, owner.user.encode(), b"", STARTED)
        assert seal.unseal_user(filed, session, entry.sealed) is None
        entry = msgspec.structs.replace(entry, sealed=sealed)
        assert seal.unseal(owner, session, entry) is None


def other_owner(owner: Owner) -> Owner:
    return BOB if owner == ANN else ANN


def it_is_what_the_documents_say() -> None:
    """Written a second time, by other means; so what was stored by an older coatcheck of this version opens."""
    import hmac  # noqa: PLC0415 - not used by what is tested

    key = Key(bytes(range(32)))
    seal, raw = Seal(KeyRing([key])), bytes.fromhex(key.id)
    ours = row(seal, session=SessionKey(b"i" * 16, b"s" * 32, key.id))
    catalog, user = ANN.catalog.encode(), ANN.user.encode()

    def derived(salt: bytes | None, *use: bytes) -> bytes:
        return HKDF(SHA256(), 32, salt, lp(b"coatcheck 1", *use)).derive(key.secret)

    def digest(secret: bytes, *what: bytes) -> bytes:
        return hmac.digest(secret, lp(*what), "sha256")

    index = derived(None, b"index")
    assert [(key.id, digest(index, b"owner", catalog, user))] == list(seal.owners(ANN))
    assert [(key.id, digest(index, b"catalog", catalog))] == list(seal.catalogs(ANN.catalog))
    assert [(key.id, digest(index, b"kind", catalog, b"zones"))] == list(seal.kinds(ANN.catalog, "zones"))
    kind = digest(index, b"kind", catalog, ENTRY.resource.encode())
    names = derived(b"s" * 32, b"names", catalog, user, b"i" * 16)
    name = digest(names, ENTRY.resource.encode(), ENTRY.arguments)
    assert (kind, name) == (ours.entry.kind, ours.entry.name)
    cipher = AESGCM(derived(b"s" * 32, b"entries", catalog, user, b"i" * 16))
    its = (b"entry", catalog, user, b"i" * 16, key.id.encode())
    bound = lp(b"\x01", raw, *its, kind, name, struct.pack(">d", STARTED))
    assert b"\x01" + raw == ours.entry.sealed[:5]
    assert pack(ENTRY) == cipher.decrypt(ours.entry.sealed[5:17], ours.entry.sealed[17:], bound)
    sealed = b"\x01" + raw + b"n" * 12 + cipher.encrypt(b"n" * 12, pack(ENTRY), bound)
    assert ENTRY == seal.unseal(ANN, ours.session, SealedEntry(kind, name, STARTED, sealed))


CHECKS: dict[str, Callable[[], None]] = {
    check.__name__: check
    for check in (
        sealed_opens,
        every_flip_is_rejected,
        every_part_cut_short_is_rejected,
        every_exchanged_field_is_rejected,
        exchanged_rows_are_rejected,
        all_of_the_ring_open_and_the_first_seals,
        digests_share_nothing,
        nothing_is_drawn_twice,
        nothing_is_readable,
        users_are_revealed_to_whom_they_belong,
        it_is_what_the_documents_say,
    )
}
