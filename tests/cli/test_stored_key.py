"""What an entry is stored under, read back for people: as it was given, whatever it is."""

from __future__ import annotations

from enum import Enum

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.cli.stored_key import read_back
from coatcheck.engine.keys import encode, encode_arguments


class Colour(Enum):
    RED = 1


class Point(msgspec.Struct, frozen=True):
    x: int


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (-31, "-31"),
        ('a: "b"', '"a: \\"b\\""'),
        (1.5, "1.5"),
        (b"abc", "<3 bytes>"),
        ((1, "x", (None,)), '(1, "x", (null))'),
        (frozenset({1}), "<1>"),
        (Colour.RED, "Colour.RED"),
        (Point(1), "<Point>"),
    ],
)
def test_an_argument_is_shown_as_it_was_given(value: object, text: str) -> None:
    arguments = encode("ann at home") + encode_arguments([value])
    assert ("ann at home", f"zones(account={text})") == read_back("zones(account)", arguments)


def test_more_than_one_and_none_at_all() -> None:
    assert ("", "zones(account=1, size=2)") == read_back(
        "zones(account, size)", encode("") + encode_arguments([1, 2])
    )
    assert ("", "zones") == read_back("zones()", encode(""))
    assert ("", "zones") == read_back("zones(account)", encode(""))


def test_a_long_one_is_its_digest() -> None:
    _, text = read_back("zones(account, size)", encode("") + encode_arguments(["x" * 300, 1]))
    assert text.startswith("zones(#")
    assert len("zones(#0123456789abcdef)") == len(text)


@given(st.text(), st.binary() | st.binary().map(lambda junk: encode("a") + b"(9:" + junk))
def test_whatever_it_holds_it_does_not_raise(signature: str, arguments: bytes) -> None:
    read_back(signature, arguments)
