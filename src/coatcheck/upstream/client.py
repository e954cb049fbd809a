"""JSON over HTTP to one upstream, for all users, with nothing of one user left behind for the next."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import msgspec

from coatcheck.clock import Clock, SystemClock
from coatcheck.errors import (
    BadUpstreamBody,
    CacheClosed,
    LoadError,
    MissingExtra,
    SettingsError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from coatcheck.upstream.breaker import Breaker
from coatcheck.upstream.cooldown import Cooldown, Cooldowns
from coatcheck.upstream.retry import Retries, Retry
from coatcheck.upstream.statuses import retry_after, status_error
from coatcheck.upstream.tokens import sendable

try:
    import aiohttp
    from aiohttp.http import HttpProcessingError
    from yarl import URL

    from coatcheck.upstream.connector import CleanConnector
except ModuleNotFoundError as missing:
    raise MissingExtra(
        "coatcheck.upstream.client needs aiohttp: install coatcheck[ipc]", name=missing.name
    ) from None

if TYPE_CHECKING:
    import random

MIB = 1024 * 1024

MAX_BODY = MIB
"""Bytes that a body may have, after decompression, unless the call says otherwise."""

TIMEOUT = 30.0
"""Seconds from the call to the last byte of the body, unless the call says otherwise."""

EVENT_STREAM = "text/event-stream"

Feed = Callable[[bytes], bool]
"""Takes the next bytes of a stream; returns whether it has heard enough."""

_BUFFER = 64 * 1024
_PATH = re.compile(r"/[!-\"$-~]*")


@dataclass(frozen=True, slots=True)
class Response:
    """A successful answer.

    Attributes:
        status: from 200 to 299.
        body: decompressed and whole; empty if it was fed to a stream's reader.
        content_type: in lower case and without parameters; ``application/octet-stream`` if the answer has none.
    """

    status: int
    body: bytes = field(repr=False)
    content_type: str


@dataclass(frozen=True, slots=True, repr=False)
class _Request:
    method: str
    url: URL
    headers: Mapping[str, str]
    body: bytes | None
    max_body: int


class UpstreamClient:
    """A pooled HTTP client for one origin.

    One client serves all users, concurrently: a request carries just the token that it was given; no cookie is kept,
    no redirect followed, no proxy or ``.netrc`` read from the environment. Nothing is opened before the first
    request. Each event loop that uses the client gets a pool of its own; that of an ended loop is dropped.

    Cancelling a call closes its connection, so that no other request can read the rest of its answer. Nor does any
    get a connection on which the upstream has said something since the last answer.

    A safe call that fails may be tried once more, within its time; a user whom the upstream asked to pause sends
    nothing until then; and when requests fail one after the other, all are turned away for a while.

    Exceptions and logs hold no token, URL, header or byte of a body.

    Attributes:
        base_url: what it asks.
        breaker: of this origin; ``breaker.state()`` is for the stats.
        retries: how many calls were made again.
        cooldowns: the users whom this origin asked to pause.
    """

    def __init__(
        self,
        base_url: str,
        *,
        clock: Clock | None = None,
        timeout: float = TIMEOUT,
        max_body: int = MAX_BODY,
        connections: int = 100,
        retry: Retry | None = None,
        breaker: Breaker | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Check the settings; open nothing.

        Args:
            base_url: ``http`` or ``https``, host, perhaps a port and a path prefix, nothing else.
            clock: for dates in ``Retry-After``, and for everything that waits or pauses; the cache's.
            timeout: seconds for a whole request, tries, waits and waiting for a free connection included.
            max_body: bytes of a body after decompression.
            connections: open at once, for each event loop.
            retry: when a safe call is tried again.
            breaker: of this origin, instead of one with its own defaults.
            rng: draws how long to wait.

        Raises:
            SettingsError: one of them cannot be used.
        """
        # Asked this way round, since NaN is neither.
        if not all(0 < figure < math.inf for figure in (timeout, max_body, connections)):
            raise SettingsError(
                "timeout, max_body and connections of the upstream client must be positive and finite"
            )
        self.base_url = _checked_base(base_url)
        self._clock = SystemClock() if clock is None else clock
        self._timeout = timeout
        self._max_body = max_body
        self._connections = connections
        self.breaker = Breaker(clock=self._clock) if breaker is None else breaker
        self.retries = Retries(retry, clock=self._clock, rng=rng)
        self.cooldowns = Cooldowns(clock=self._clock, rng=rng)
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        self._closed = False

    async def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        json: object = None,
        params: Mapping[str, str | int] | None = None,
        timeout: float | None = None,
        max_body: int | None = None,
        safe: bool = False,
        cooldown: Cooldown | None = None,
    ) -> Response:
        """Send one request and return its answer, whole.

        Args:
            method: in capitals.
            path: begins with a slash, is quoted already, and may have a query.
            token: sent as ``Authorization: Bearer``; None sends no such header.
            json: what the body is to say; None sends no body.
            params: added to the query of the path.
            timeout: seconds for everything, instead of the client's.
            max_body: bytes after decompression, instead of the client's.
            safe: it changes nothing, so it may be sent twice.
            cooldown: the user's: asked before the request leaves, and told what its answer asks for.

        Raises:
            Unavailable: `UpstreamTimeout`, `UpstreamUnreachable`, `UpstreamFailed`, `RateLimited`, or
                `BadUpstreamBody` for a body that is too large. What is in the body is not looked at. At once, and
                without a request: `BreakerOpen`, and `RateLimited` during a pause of the user.
            Refused: `AuthExpired`, `Forbidden`, `NotFound` or `Gone`.
            UpstreamRejected: any other status that is no success, redirects included.
            CacheClosed: the client was closed.
            ValueError: the path, the token or the JSON cannot be sent; nothing of them is in the message.
        """
        request = self._request(
            method, path, token, json=json, params=params, max_body=max_body, accept="application/json"
        )
        return await self._send(request, timeout, None, safe=safe, cooldown=cooldown)

    async def stream(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        json: object = None,
        params: Mapping[str, str | int] | None = None,
        timeout: float | None = None,
        max_body: int | None = None,
        safe: bool = False,
        cooldown: Cooldown | None = None,
        feed: Feed,
    ) -> Response:
        """Send one request and hand its event stream to *feed* piece by piece, as it comes.

        It ends when the stream does, or when *feed* returns True; then the connection is closed. An answer that is no
        event stream is not fed but returned in the body. Parameters and exceptions are those of `request`; an
        exception after the first piece means that the stream broke: it is not tried again, even if it is safe. What
        *feed* raises passes through.
        """
        request = self._request(
            method, path, token, json=json, params=params, max_body=max_body, accept=EVENT_STREAM
        )
        return await self._send(request, timeout, feed, safe=safe, cooldown=cooldown)

    async def aclose(self) -> None:
        """Close all connections; requests under way fail, later ones raise `CacheClosed`. May be repeated."""
        self._closed = True
        here = asyncio.get_running_loop()
        while self._sessions:
            loop, session = self._sessions.popitem()
            if loop is here or loop.is_closed():
                await _close(session)
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(session.close(), loop))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _request(
        self,
        method: str,
        path: str,
        token: str | None,
        *,
        json: object,
        params: Mapping[str, str | int] | None,
        max_body: int | None,
        accept: str,
    ) -> _Request:
        if _PATH.fullmatch(path) is None:
            raise ValueError("a path begins with a slash and is quoted")
        # Taken as it is: quoting it anew could change what it says.
        url = URL(f"{self.base_url}{path}", encoded=True)
        headers = {"Accept": accept, "Accept-Encoding": "gzip", "User-Agent": "coatcheck"}
        if token is not None:
            if not sendable(token):
                raise ValueError("the token cannot be sent in a header")
            headers["Authorization"] = f"Bearer {token}"
        body = None
        if json is not None:
            body = _encoded(json)
            headers["Content-Type"] = "application/json"
        return _Request(
            method,
            url if params is None else url.extend_query(params),
            headers,
            body,
            self._max_body if max_body is None else max_body,
        )

    async def _send(
        self,
        request: _Request,
        timeout: float | None,
        feed: Feed | None,
        *,
        safe: bool,
        cooldown: Cooldown | None,
    ) -> Response:
        heard = False

        def listen(piece: bytes) -> bool:
            nonlocal heard
            heard = True
            assert feed is not None
            return feed(piece)

        async def send(seconds: float) -> Response:
            return await self._exchange(request, seconds, None if feed is None else listen)

        @contextmanager
        def gate(seconds: float) -> Iterator[None]:
            # The breaker inside: a request that its user's pause holds back tells it nothing.
            with nullcontext() if cooldown is None else cooldown.guard(), self.breaker.guard(seconds):
                yield

        return await self.retries.run(
            send,
            seconds=self._timeout if timeout is None else timeout,
            safe=safe,
            gate=gate,
            again=lambda: not heard and not self.breaker.refuses(),
        )

    async def _exchange(self, request: _Request, seconds: float, feed: Feed | None) -> Response:
        session = await self._session()
        failure: LoadError
        try:
            # aiohttp's own read timeout begins anew with every chunk.
            async with asyncio.timeout(seconds):
                return await self._converse(session, request, feed)
        except TimeoutError:
            failure = UpstreamTimeout(f"no complete answer from the upstream within {seconds:g} s")
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            failure = UpstreamUnreachable(f"the connection to the upstream failed ({type(error).__name__})")
        # Raised here, since within `except` aiohttp's exception, which holds URL and headers, would become the context.
        raise failure

    async def _converse(
        self, session: aiohttp.ClientSession, request: _Request, feed: Feed | None
    ) -> Response:
        response = await session.request(
            request.method, request.url, headers=request.headers, data=request.body, allow_redirects=False
        )
        try:
            if not 200 <= response.status < 300:
                # The status alone decides: a body that drips or breaks must not turn a refusal into an outage.
                wait = retry_after(response.headers.get("Retry-After"), self._clock.wall())
                raise status_error(response.status, retry_after=wait)
            body = bytearray()
            content_type = _content_type(response)
            fed = feed if content_type == EVENT_STREAM else None
            size = 0
            # Inflated piece by piece with backpressure: what is in memory stays near the cap.
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if size > request.max_body:
                    limit = request.max_body
                    raise BadUpstreamBody(f"the body has more than {limit} bytes", limit=limit)
                if fed is None:
                    body += chunk
                elif fed(chunk):
                    break
            return Response(response.status, bytes(body), content_type)
        finally:
            # After the last byte the connection is back in the pool and this closes nothing.
            response.close()

    async def _session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise CacheClosed("the upstream client was closed")
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            session = self._sessions[loop] = aiohttp.ClientSession(
                connector=CleanConnector(limit=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                # Also how much is inflated at once.
                read_bufsize=_BUFFER,
                trust_env=False,
            )
            # It would send a GET again by itself when the connection breaks: twice per try, unseen by budget and breaker.
            # There is no public way to say so; a test counts what arrives.
            session._retry_connection = False  # noqa: SLF001
            for other in [other for other in self._sessions if other.is_closed()]:
                await _close(self._sessions.pop(other))
        return session


def _content_type(response: aiohttp.ClientResponse) -> str:
    # aiohttp's own property raises anything at parameters that are malformed.
    said = response.headers.get("Content-Type", "")
    return said.partition(";")[0].strip().lower() or "application/octet-stream"


async def _close(session: aiohttp.ClientSession) -> None:
    # On an ended loop callbacks of its futures cannot run any more; nobody waits for them either.
    with suppress(RuntimeError):
        await session.close()


def _checked_base(base_url: str) -> str:
    try:
        url = URL(base_url)
        host = url.host
        # What a lookup begins with; at a label that is too long it raises there, and no OSError.
        (url.raw_host or "").encode("idna")
    except (TypeError, ValueError):
        url, host = URL(), None
    plain = url.user is None and url.password is None and not url.query_string and not url.fragment
    if url.scheme not in {"http", "https"} or not host or not plain:
        raise SettingsError("the upstream's base URL must be http(s)://host[:port][/prefix] and nothing else")
    return str(url).rstrip("/")


def _encoded(json: object) -> bytes:
    try:
        return msgspec.json.encode(json)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        problem = type(error).__name__
    # Raised here, since a UnicodeEncodeError holds the text, which may be a password.
    raise ValueError(f"the request cannot be written as JSON ({problem})")
