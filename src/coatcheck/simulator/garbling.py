"""Faults of the text: bodies that are no JSON, not good JSON, or not what was agreed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from coatcheck.simulator.answer import Answer, envelope
from coatcheck.simulator.calls import Shape
from coatcheck.simulator.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Callable


_ENVELOPES = frozenset({Shape.ENVELOPE})
_NOT_STREAMS = frozenset({Shape.ENVELOPE, Shape.LOGIN})


class InvalidJson(Rule, frozen=True, tag="invalid_json"):
    """Text that is no JSON at all, under the content type of JSON."""

    def spoil(self, answer: Answer) -> Answer:
        """Replace the body."""
        return answer.with_body(b"{status: success, data: [")


class TruncatedJson(Rule, frozen=True, tag="truncated_json"):
    """The first half of the body, sent as though it were the whole."""

    def spoil(self, answer: Answer) -> Answer:
        """Drop the second half."""
        body = answer.body
        return answer.with_body(body[: len(body) // 2])


class ByteOrderMark(Rule, frozen=True, tag="bom"):
    """The body behind a byte order mark."""

    def spoil(self, answer: Answer) -> Answer:
        """Put the mark in front."""
        return answer.with_body(b"\xef\xbb\xbf" + answer.body)


class WrongCharset(Rule, frozen=True, tag="wrong_charset"):
    """The body in UTF-16, under a header that says UTF-8."""

    def spoil(self, answer: Answer) -> Answer:
        """Encode it anew."""
        return answer.with_body(answer.body.decode(errors="replace").encode("utf-16"))


class DuplicateKeys(Rule, frozen=True, tag="duplicate_keys"):
    """An envelope that says failure first and then, with the same keys, what is true."""

    shapes = _ENVELOPES

    def spoil(self, answer: Answer) -> Answer:
        """Put the other members in front."""
        return answer.with_body(b'{"status":"failure","data":null,' + answer.body[1:])


class DeepJson(Rule, frozen=True, tag="deep_json"):
    """Data that is an array within an array, and so on."""

    shapes = _ENVELOPES
    depth: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000

    def spoil(self, answer: Answer) -> Answer:
        """Replace the data."""
        return answer.with_body(
            envelope("success", msgspec.Raw(b"[" * self.depth + b"]" * self.depth), "success", 0)
        )


class NotANumber(Rule, frozen=True, tag="nan"):
    """Every id is NaN, which is no JSON, though some readers take it."""

    shapes = _ENVELOPES

    def spoil(self, answer: Answer) -> Answer:
        """Replace the ids."""
        return _edited(answer, lambda data: _with_ids(data, lambda _: msgspec.Raw(b"NaN")))


class BigInt(Rule, frozen=True, tag="big_int"):
    """Every id has thousands of digits."""

    shapes = _ENVELOPES
    digits: Annotated[int, Meta(ge=20, le=1_000_000)] = 5000

    def spoil(self, answer: Answer) -> Answer:
        """Replace the ids."""
        number = msgspec.Raw(b"9" * self.digits)
        return _edited(answer, lambda data: _with_ids(data, lambda _: number))


class WrongType(Rule, frozen=True, tag="wrong_type"):
    """Every id is a string of its digits."""

    shapes = _ENVELOPES

    def spoil(self, answer: Answer) -> Answer:
        """Replace the ids."""
        return _edited(answer, lambda data: _with_ids(data, str))


class LoneSurrogate(Rule, frozen=True, tag="lone_surrogate"):
    """Every text ends in half a character, which fails only where it is encoded again."""

    shapes = _ENVELOPES

    def spoil(self, answer: Answer) -> Answer:
        """Lengthen the texts."""
        return _edited(answer, _with_half_characters)


class FailureEnvelope(Rule, frozen=True, tag="failure_envelope"):
    """A 200 whose envelope reports a failure."""

    word: str = "failure"
    response_code: int = 500
    message: str | None = "Simulated failure"

    def spoil(self, answer: Answer) -> Answer:
        """Replace the answer."""
        return answer.instead(200, envelope(self.word, None, self.message, self.response_code))


class DataNull(Rule, frozen=True, tag="data_null"):
    """A success without data."""

    shapes = _ENVELOPES

    def spoil(self, answer: Answer) -> Answer:
        """Replace the data."""
        return _edited(answer, lambda _: None)


class EmptyList(Rule, frozen=True, tag="empty_list"):
    """A success with nothing in its lists."""

    shapes = _ENVELOPES

    def spoil(self, answer: Answer) -> Answer:
        """Empty the data, or, where it is an object, the lists in it."""
        return _edited(answer, _emptied)


def _edited(answer: Answer, edit: Callable[[Any], object]) -> Answer:
    """Return the answer with other data; an answer that brings none stays as it is."""
    if answer.status != 200 or not answer.content_type.startswith("application/json"):
        return answer
    try:
        document = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, RecursionError):
        # Another fault was here before.
        return answer
    if not isinstance(document, dict) or "data" not in document:
        return answer
    return answer.with_body(msgspec.json.encode({**document, "data": edit(document["data"])}))


def _with_ids(node: Any, change: Callable[[int], object]) -> object:
    if isinstance(node, list):
        return [_with_ids(item, change) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: change(value) if type(value) is int and key.lower().endswith("id") else _with_ids(value, change)
        for key, value in node.items()
    }


def _with_half_characters(node: Any) -> object:
    if isinstance(node, list):
        return [_with_half_characters(item) for item in node]
    if isinstance(node, dict):
        return {key: _with_half_characters(value) for key, value in node.items()}
    if isinstance(node, str):
        return msgspec.Raw(msgspec.json.encode(node)[:-1] + rb"\ud800" + b'"')
    return node


def _emptied(data: Any) -> object:
    if isinstance(data, list):
        return []
    if isinstance(data, dict):
        return {key: [] if isinstance(value, list) else value for key, value in data.items()}
    return data
