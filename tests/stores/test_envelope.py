"""An envelope: one byte string for each entry, and for every other byte string a reject."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.errors import InvalidKey, StoreFailed
from coatcheck.stores import envelope
from coatcheck.stores.envelope import Contents, pack, unpack
from stores.garbled import SEEDS, blobs

ENTRY = Contents("endpoints", b"i4:1005", b'[{"id": 7}]')
NAMES = st.text(st.characters(exclude_categories=["Cs"]))
ENTRIES = st.builds(Contents, NAMES, st.binary(), st.binary())


@given(ENTRIES)
def test_what_is_packed_is_unpacked(contents: Contents) -> None:
    assert contents == unpack(pack(contents))


@given(ENTRIES, ENTRIES)
def test_two_entries_share_no_bytes(one: Contents, other: Contents) -> None:
    assert (one == other) == (pack(one) == pack(other))


@given(st.binary(max_size=64))
def test_every_byte_string_is_unpacked_or_rejected(packed: bytes) -> None:
    contents = unpack(packed)
    assert contents is None or pack(contents) == packed


@given(st.lists(st.integers(0, 12), min_size=3, max_size=3), st.binary(max_size=30))
def test_whatever_its_lengths_say_it_is_unpacked_or_rejected(lengths: list[int], rest: bytes) -> None:
    packed = struct.pack(">BIII", 1, *lengths) + rest
    contents = unpack(packed)
    assert contents is None or pack(contents) == packed
    assert sum(lengths) == len(rest) or contents is None


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_what_was_changed_is_another_entry_or_rejected(seed: int) -> None:
    for garbled in blobs([pack(ENTRY), pack(Contents("", b"", b""))], seed, 100):
        contents = unpack(garbled)
        assert contents is None or pack(contents) == garbled


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_random_raises(seed: int) -> None:
    real = [pack(ENTRY), pack(Contents("zones_list", b"", b"null")), pack(Contents("", b"", b""))]
    unpacked = 0
    for garbled in blobs(real, seed):
        contents = unpack(garbled)
        unpacked += contents is not None
        assert contents is None or pack(contents) == garbled
    # A change within the contents is for the seal to notice; so the search did get past the head.
    assert unpacked > 1_000


def test_a_part_of_one_or_more_than_one_is_rejected() -> None:
    packed = pack(ENTRY)
    for end in range(len(packed)):
        assert unpack(packed[:end]) is None
    assert unpack(packed + b"\0") is None
    assert unpack(packed + packed) is None


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_rejected(version: int) -> None:
    assert unpack(bytes((version,)) + pack(ENTRY)[1:]) is None


@pytest.mark.parametrize("name", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80"])
def test_a_name_that_is_no_text_is_rejected(name: bytes) -> None:
    assert unpack(struct.pack(">BIII", 1, len(name), 0, 0) + name) is None


def test_its_format_stays_as_it_is() -> None:
    """What was stored by an older coatcheck of this version opens."""
    assert bytes.fromhex("01 00000001 00000002 00000003 7a 6162 414243") == pack(Contents("z", b"ab", b"ABC"))


def test_what_is_too_large_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "MAX_BYTES", len(pack(ENTRY)))
    assert ENTRY == unpack(pack(ENTRY))
    with pytest.raises(StoreFailed, match="too large"):
        pack(ENTRY._replace(body=ENTRY.body + b" "))


def test_what_it_holds_is_not_shown() -> None:
    assert "<contents>" == repr(ENTRY) == str(ENTRY) == f"{ENTRY}"
    with pytest.raises(InvalidKey) as caught:
        pack(Contents("CANARY\ud800", b"", b""))
    assert "CANARY" not in str(caught.value)
    assert caught.value.__context__ is None
