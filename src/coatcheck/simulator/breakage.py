"""Faults of the way: the status, the headers, the connection, the size and the pace of an answer."""

from __future__ import annotations

import zlib
from dataclasses import replace
from itertools import chain, repeat
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from coatcheck.simulator.answer import HTML, JSON, Answer, Ending, envelope
from coatcheck.simulator.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator


MIB = 1024 * 1024
_BLANKS = b" " * 65536
_PAGE = "<!DOCTYPE html>\n<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n"

# No line break may get into a header.
HeaderText = Annotated[str, Meta(pattern=r"\A[^\r\n\x00]*\Z")]
Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
Size = Annotated[int, Meta(ge=0, le=1024 * MIB)]


class Status(Rule, frozen=True, tag="status"):
    """Another HTTP status: with a failure envelope, an HTML page or the text given."""

    status: Annotated[int, Meta(ge=200, le=599)]
    retry_after: HeaderText | None = None
    html: bool = False
    body: str | None = None

    def spoil(self, answer: Answer) -> Answer:
        """Replace the answer."""
        if self.retry_after is not None:
            answer = replace(answer, headers=(*answer.headers, ("Retry-After", self.retry_after)))
        if self.body is not None:
            body = self.body.encode(errors="replace")
            return answer.instead(self.status, body, HTML if self.html else JSON)
        if self.html:
            return answer.instead(self.status, _page(f"Error {self.status}"), HTML)
        message = f"Simulated status {self.status}"
        return answer.instead(self.status, envelope("failure", None, message, self.status))


class Html(Rule, frozen=True, tag="html"):
    """A 200 with an HTML page, as a proxy's log-in page would be."""

    def spoil(self, answer: Answer) -> Answer:
        """Replace the answer."""
        return answer.instead(200, _page("Please log in"), HTML)


class Redirect(Rule, frozen=True, tag="redirect"):
    """A redirect to somewhere else."""

    location: HeaderText
    status: Literal[301, 302, 303, 307, 308] = 302

    def spoil(self, answer: Answer) -> Answer:
        """Replace the answer."""
        return replace(
            answer.instead(self.status, b""), headers=(*answer.headers, ("Location", self.location))
        )


class SetCookie(Rule, frozen=True, tag="set_cookie"):
    """The honest answer with a cookie."""

    name: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]+\Z")] = "portal_session"
    value: Annotated[str, Meta(pattern=r"\A[^\r\n\x00;]*\Z")] = "simulated"

    def spoil(self, answer: Answer) -> Answer:
        """Add the header."""
        return replace(answer, headers=(*answer.headers, ("Set-Cookie", f"{self.name}={self.value}; Path=/")))


class Delay(Rule, frozen=True, tag="delay"):
    """So many milliseconds more before anything is sent; not scaled by the latency factor."""

    ms: Milliseconds


class SlowBody(Rule, frozen=True, tag="slow_body"):
    """The body drips: so many bytes at a time, and a pause before each."""

    interval_ms: Milliseconds = 1000.0
    bytes: Annotated[int, Meta(ge=1)] = 1

    def spoil(self, answer: Answer) -> Answer:
        """Cut the body into drops; its whole length is announced."""
        body = answer.body
        drops = tuple(body[start : start + self.bytes] for start in range(0, len(body), self.bytes))
        return replace(answer, chunks=drops, length=len(body), pause=self.interval_ms / 1000, paced=False)


class Hang(Rule, frozen=True, tag="hang"):
    """Not even headers come, and the connection stays open."""

    def spoil(self, answer: Answer) -> Answer:
        """Never send."""
        return replace(answer, ending=Ending.NEVER)


class Reset(Rule, frozen=True, tag="reset"):
    """The connection is aborted instead of an answer."""

    def spoil(self, answer: Answer) -> Answer:
        """Abort instead of sending."""
        return replace(answer, ending=Ending.RESET)


class Cut(Rule, frozen=True, tag="cut"):
    """The connection is closed within the body: after so many bytes, or in its middle."""

    after: Annotated[int, Meta(ge=0)] | None = None

    def spoil(self, answer: Answer) -> Answer:
        """Send the beginning, with the length of the whole announced."""
        body = answer.body
        kept = len(body) // 2 if self.after is None else min(self.after, max(0, len(body) - 1))
        return replace(answer, chunks=(body[:kept],), length=len(body), ending=Ending.CUT)


class HugeBody(Rule, frozen=True, tag="huge_body"):
    """The honest answer and blanks after it, up to a size: good JSON, only far too long."""

    bytes: Size = 64 * MIB
    declared: bool = True

    def spoil(self, answer: Answer) -> Answer:
        """Lengthen the body; announce its length if *declared*, else send it in chunks without."""
        body = answer.body
        size = max(self.bytes, len(body))
        chunks = chain((body,), _blanks(size - len(body)))
        return replace(answer, chunks=chunks, length=size if self.declared else None, paced=False)


class GzipBomb(Rule, frozen=True, tag="gzip_bomb"):
    """The same as ``huge_body``, compressed to about a thousandth."""

    bytes: Size = 64 * MIB

    def spoil(self, answer: Answer) -> Answer:
        """Lengthen the body and compress it."""
        body = answer.body
        headers = (*answer.headers, ("Content-Encoding", "gzip"))
        chunks = _gzipped(chain((body,), _blanks(self.bytes - len(body))))
        return replace(answer, chunks=chunks, length=None, headers=headers, paced=False)


def _page(title: str) -> bytes:
    return _PAGE.format(title).encode()


def _blanks(count: int) -> Iterator[bytes]:
    blocks, rest = divmod(max(0, count), len(_BLANKS))
    return chain(repeat(_BLANKS, blocks), (_BLANKS[:rest],))


def _gzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    gzip = zlib.compressobj(wbits=31)
    for chunk in chunks:
        yield gzip.compress(chunk)
    yield gzip.flush()
