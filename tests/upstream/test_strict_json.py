from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.errors import BadUpstreamBody
from coatcheck.upstream.strict_json import MAX_DEPTH, strict_json, typed
from upstream.secrets import assert_silent

ZOO = {
    "empty": b"",
    "blank": b"  ",
    "truncated": b'{"CANARY": [1, 2',
    "trailing data": b'{} "CANARY"',
    "html": b"<html>CANARY</html>",
    "not a number": b"NaN",
    "infinity": b"[Infinity]",
    "minus infinity": b"[-Infinity]",
    "duplicate names": b'{"CANARY": 1, "CANARY": 2}',
    "duplicate names by escape": b'{"a": 1, "\\u0061": "CANARY"}',
    "duplicate names deep inside": b'[{"x": [{"CANARY": [], "b": 1, "CANARY": 2}]}]',
    "deep arrays": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"CANARY":' * 100_000 + b"1" + b"}" * 100_000,
    "a level too deep": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "long int": b"1" * 5_000,
    "long int that fits Python": b"[" + b"9" * 1_000 + b"]",
    "float out of range": b"1e400",
    "leading zero": b"01",
    "lone high surrogate": b'"CANARY \\ud800"',
    "lone low surrogate": b'"\\udc00 CANARY"',
    "half a pair": b'"\\ud800\\u0041"',
    "encoded surrogate": b'"CANARY \xed\xa0\x80"',
    "byte order mark": b"\xef\xbb\xbf{}",
    "invalid UTF-8": b'"CANARY \xff"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "Latin-1": '"CANARY é"'.encode("latin-1"),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "control character": b'"a\x01b"',
    "trailing comma": b"[1,]",
    "single quotes": b"{'a': 1}",
}


@pytest.mark.parametrize("body", ZOO.values(), ids=ZOO.keys())
def test_what_is_not_strict_is_refused(body: bytes) -> None:
    """Each is refused with our own exception, which quotes nothing of it."""
    with pytest.raises(BadUpstreamBody) as caught:
        strict_json(body)
    assert_silent(caught.value)


@pytest.mark.parametrize("body", ZOO.values(), ids=ZOO.keys())
def test_it_is_refused_in_a_place_that_nobody_reads(body: bytes) -> None:
    """An unknown field is skipped by the typed reader, so this check must not skip it."""
    with pytest.raises(BadUpstreamBody):
        strict_json(b'{"known": 1, "unknown": ' + body + b"}")


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"null", None),
        (b"[]", []),
        (b"0", 0),
        (b' {"a": {"a": [1, {"a": 2}]}, "b": {"a": 3}} ', {"a": {"a": [1, {"a": 2}]}, "b": {"a": 3}}),
        (b'{"colon: \\" : {[": "}: \\\\"}', {'colon: " : {[': "}: \\"}),
        (b'"\\ud83d\\ude00"', "😀"),
        (b"18446744073709551616", 2**64),
        (b'{"1111111111111111111111111111111111111111": 1}', {"1" * 40: 1}),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)),
        (b'{"CANARY": 1, "canary": 2}', {"CANARY": 1, "canary": 2}),
    ],
)
def test_what_is_strict_is_read(body: bytes, value: object) -> None:
    assert strict_json(body) == value


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON, st.booleans())
def test_it_agrees_with_the_standard_library(value: object, ascii_only: bool) -> None:
    """Whatever the standard library writes is read as the same value."""
    assert strict_json(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8")) == value


@given(st.binary())
def test_any_bytes_give_a_value_or_our_exception(body: bytes) -> None:
    with contextlib.suppress(BadUpstreamBody):
        strict_json(body)


class Known(msgspec.Struct):
    id: int
    kind: str = ""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"id": "CANARY"}', "Expected `int`, got `str` - at `$.id`"),
        (b'{"CANARY": 1}', "Object missing required field `id`"),
        (b"[1]", "Expected `object`, got `array`"),
        (b'{"id": 1.5}', "Expected `int`, got `float`"),
    ],
)
def test_a_mismatch_tells_the_place_and_not_the_content(body: bytes, reason: str) -> None:
    with pytest.raises(BadUpstreamBody, match="the thing is not of the declared type: ") as caught:
        typed(body, Known, "the thing")
    assert reason in str(caught.value)
    assert_silent(caught.value)


def test_a_reason_that_could_quote_is_not_given() -> None:
    """msgspec quotes an unknown variant; only the class of its exception is told."""

    class Variant(msgspec.Struct, tag="known"):
        pass

    with pytest.raises(BadUpstreamBody) as caught:
        typed(b'{"type": "CANARY"}', Variant, "the thing")
    assert "ValidationError" in str(caught.value)
    assert_silent(caught.value)
