"""The envelope that most answers come in, and what it takes for one to be a success."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from coatcheck.errors import BadUpstreamBody, LoadError, UpstreamFailed
from coatcheck.upstream.statuses import status_error
from coatcheck.upstream.strict_json import strict_json, typed

T = TypeVar("T")

# Codes that say the same in an envelope as in a status line. Any other code just says that the call failed.
_LIKE_STATUSES = frozenset({401, 403, 404, 410, 429})


@dataclass(frozen=True, slots=True)
class Payload(Generic[T]):
    """What a call brought, twice.

    Attributes:
        raw: the JSON as it came, with the fields that our types do not know; a copy, bound to no larger buffer.
        value: the same, typed.
    """

    raw: bytes = field(repr=False)
    value: T = field(repr=False)


class _Envelope(msgspec.Struct, frozen=True, gc=False):
    # `message` is left out: it may hold names, and nothing we raise may.
    status: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    response_code: object = msgspec.field(name="responseCode", default=None)


def open_envelope(body: bytes) -> msgspec.Raw:
    """Return ``data`` as it came from the body of a successful HTTP answer.

    Raises:
        Refused: a failure with the code 401, 403, 404 or 410, as if it were the HTTP status; so does `RateLimited`.
        UpstreamFailed: any other ``status`` than ``success``; its ``response_code`` is the envelope's code.
        BadUpstreamBody: no strict JSON, no envelope, or ``data`` is absent or null. An empty list is a value.
    """
    strict_json(body)
    envelope = typed(body, _Envelope, "the envelope")
    if envelope.status != "success":
        raise _failure(envelope.response_code)
    if bytes(envelope.data) == b"null":
        raise BadUpstreamBody("the envelope reports success and brings no data")
    return envelope.data


def unwrap(body: bytes, type_: type[T]) -> Payload[T]:
    """Return ``data`` of an envelope as *type_*, and as it came.

    Raises:
        LoadError: as for `open_envelope`; `BadUpstreamBody` if ``data`` is not of that type.
    """
    return payload(open_envelope(body), type_)


def payload(raw: bytes | msgspec.Raw, type_: type[T]) -> Payload[T]:
    """Return *raw*, a part of a body that `open_envelope` accepted, as *type_*, and as it came.

    Raises:
        BadUpstreamBody: it is not of that type.
    """
    return Payload(bytes(raw), typed(raw, type_, "the data"))


def _failure(code: object) -> LoadError:
    if not isinstance(code, int):
        return UpstreamFailed("the envelope reports a failure", status=200)
    if code in _LIKE_STATUSES:
        return status_error(code)
    return UpstreamFailed(f"the envelope reports a failure ({code})", status=200, response_code=code)
