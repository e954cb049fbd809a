"""An answer before it is sent: what to say and how to send it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"


class Ending(Enum):
    """How sending ends."""

    WHOLE = auto()
    CUT = auto()
    """The connection is closed before the end that was announced."""
    NEVER = auto()
    """Nothing is sent, and the connection stays open."""
    RESET = auto()
    """Nothing is sent, and the connection is aborted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer.

    Attributes:
        status: the HTTP status.
        content_type: as the header says it.
        headers: further headers; a name may occur more than once.
        chunks: the body; more than one piece is sent piece by piece.
        length: what ``Content-Length`` announces when the body is sent in pieces; None does not announce.
        pause: seconds before each piece.
        ending: how sending ends.
        paced: whether the latency of the call is spread over the pieces instead of passing before the first.
    """

    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    chunks: Iterable[bytes] = ()
    length: int | None = None
    pause: float = 0.0
    ending: Ending = Ending.WHOLE
    paced: bool = False

    @property
    def body(self) -> bytes:
        """All pieces as one."""
        return b"".join(self.chunks)

    def instead(self, status: int, body: bytes, content_type: str = JSON) -> Answer:
        """Return another answer with the further headers and the ending of this one."""
        return replace(self.with_body(body), status=status, content_type=content_type, paced=False)

    def with_body(self, body: bytes) -> Answer:
        """Return the same answer with another body, sent in one piece."""
        return replace(self, chunks=(body,), length=None)


class RefusedCall(Exception):
    """The upstream refuses a call: an HTTP status with a failure envelope.

    Attributes:
        status: the HTTP status, repeated as the envelope's ``responseCode``.
        message: for people; holds nothing of what was asked for.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def envelope(status: str, data: object, message: str | None, code: int) -> bytes:
    """Return the common envelope as JSON."""
    return msgspec.json.encode({"status": status, "data": data, "message": message, "responseCode": code})


def refusal(status: int, word: str, message: str) -> Answer:
    """Return a failure envelope under an HTTP status."""
    return Answer(status=status, chunks=(envelope(word, None, message, status),))
