from __future__ import annotations

import json

import msgspec
import pytest
from upstream.secrets import CANARY, assert_silent
from upstream.server import success

from coatcheck.errors import (
    AuthExpired,
    BadUpstreamBody,
    Forbidden,
    Gone,
    LoadError,
    NotFound,
    RateLimited,
    UpstreamFailed,
)
from coatcheck.ipc.envelope import open_envelope, unwrap
from coatcheck.ipc.models import Engagement, Zone


def failure(status: object = "failure", code: object = None, **more: object) -> bytes:
    return json.dumps(
        {"status": status, "data": CANARY, "message": CANARY, "responseCode": code, **more}
    ).encode()


def test_value_and_raw_say_the_same() -> None:
    """The raw has what our types do not know, byte by byte as it came."""
    raw = b'{"id" : 4101,  "new": {"x": [1.50, "\\u00e9"]}, "engagementName": null}'
    opened = unwrap(b'{"responseCode": 200, "data": ' + raw + b', "status": "success"}', Engagement)
    assert opened.raw == raw
    assert type(opened.raw) is bytes
    assert opened.value == Engagement(id=4101)


@pytest.mark.parametrize("code", [0, 200, None, "0", [1]])
def test_success_goes_by_the_status_word(code: object) -> None:
    assert unwrap(success([], responseCode=code), tuple[Zone, ...]).value == ()


@pytest.mark.parametrize(
    "envelope", [b'{"status":"success","data":[]}', b'{"status":"success","data":[],"message":null}']
)
def test_an_empty_list_is_a_value(envelope: bytes) -> None:
    assert unwrap(envelope, tuple[Zone, ...]).raw == b"[]"


@pytest.mark.parametrize("value", [0, False, "", {}])
def test_so_is_everything_else_but_null(value: object) -> None:
    assert unwrap(success(value), msgspec.Raw).raw == json.dumps(value).encode()


@pytest.mark.parametrize("word", ["failure", "failed", "error", "Success", "SUCCESS", ""])
def test_any_other_word_is_a_failure(word: str) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        open_envelope(failure(word, 17))
    assert (caught.value.status, caught.value.response_code) == (200, 17)
    assert_silent(caught.value)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(401, AuthExpired), (403, Forbidden), (404, NotFound), (410, Gone), (429, RateLimited)],
)
def test_codes_like_statuses_mean_the_same(code: int, kind: type[LoadError]) -> None:
    """A refusal within HTTP 200 is a refusal, which nothing may hide."""
    with pytest.raises(kind) as caught:
        open_envelope(failure(code=code))
    assert_silent(caught.value)


@pytest.mark.parametrize("code", [None, 0, 1, 200, 500, "403", CANARY, {"a": CANARY}])
def test_other_codes_only_say_that_it_failed(code: object) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        open_envelope(failure(code=code))
    assert caught.value.response_code == (code if isinstance(code, int) else None)
    assert_silent(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>CANARY</html>",
        b'{"error": "CANARY"}',
        b'["CANARY"]',
        b'{"status": "success"}',
        b'{"status": "success", "data": null}',
        b'{"status": null, "data": "CANARY"}',
        b'{"status": 200, "data": "CANARY"}',
        b'{"status": "success", "data": ["CANARY"]}',
        b'{"status": "success", "data": {"CANARY": 1}}',
        b'{"status": "success", "data": [{"zoneId": "CANARY", "zoneName": "x"}]}',
        b'{"status": "success", "data": [{"zoneName": "CANARY"}]}',
        b'{"status": "success", "data": [], "status": "failure"}',
        b'{"status": "success", "data": [], "more": NaN}',
        b'{"status": "success", "data": [], "message": "CANARY \xff"}',
        b'{"status": "success", "data": []} CANARY',
    ],
)
def test_what_is_no_envelope_is_no_value(body: bytes) -> None:
    with pytest.raises(BadUpstreamBody) as caught:
        unwrap(body, tuple[Zone, ...])
    assert_silent(caught.value)


def test_a_payload_does_not_show_itself() -> None:
    opened = unwrap(success({"id": 1, "engagementName": CANARY}), Engagement)
    assert CANARY not in repr(opened)
