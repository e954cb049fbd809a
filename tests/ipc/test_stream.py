from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.ipc.stream import Event, EventStream

SAID = (
    b"\xef\xbb\xbfdata: first\n\n: hello\n"
    b"event: endpoint\nid: 21\nretry: 5\ndata: {\ndata:  1}\n\n"
    b":ping\n\n"
    b"data\n\n"
    b"event: dropped without data\n\n"
    b"data:x\nnonsense\n\n"
    b":ping\nevent: complete\ndata: done\n\n"
)
EVENTS = [
    Event("message", b"first"),
    Event("endpoint", b"{\n 1}"),
    Event("message", b""),
    Event("message", b"x"),
    Event("complete", b"done"),
]


def read(*pieces: bytes) -> list[Event]:
    stream = EventStream()
    events = [event for piece in pieces for event in stream.feed(piece)]
    return events + stream.finish()


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_every_line_ending_is_read(ending: bytes) -> None:
    assert read(SAID.replace(b"\n", ending)) == EVENTS


@given(
    ending=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    cuts=st.lists(st.integers(0, 2 * len(SAID)), max_size=20).map(sorted),
)
def test_it_does_not_matter_where_the_bytes_are_cut(ending: bytes, cuts: list[int]) -> None:
    said = SAID.replace(b"\n", ending)
    ends = [0, *(min(cut, len(said)) for cut in cuts), len(said)]
    assert read(*(said[start:end] for start, end in itertools.pairwise(ends))) == EVENTS


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_byte_by_byte(ending: bytes) -> None:
    assert read(*(bytes([byte]) for byte in SAID.replace(b"\n", ending))) == EVENTS


def test_an_event_is_given_as_soon_as_it_ends() -> None:
    stream = EventStream()
    assert stream.feed(b"data: 1\n") == []
    assert stream.feed(b"\n") == [Event("message", b"1")]
    assert stream.feed(b"data: 2\r\n\r\n") == [Event("message", b"2")]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_an_orderly_end_completes_the_last_event(end: bytes) -> None:
    assert read(b"event: complete\ndata: done" + end) == [Event("complete", b"done")]


def test_an_event_that_was_not_finished_is_not_given() -> None:
    assert EventStream().feed(b"event: endpoint\ndata: {}\n") == []
