from __future__ import annotations

import asyncio
import gzip
import json
import math
import threading
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from coatcheck.errors import (
    AuthExpired,
    BadUpstreamBody,
    CacheClosed,
    Forbidden,
    Gone,
    LoadError,
    NotFound,
    RateLimited,
    SettingsError,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from coatcheck.testing.settling import settle
from coatcheck.upstream.client import MIB, UpstreamClient
from upstream.secrets import CANARY, assert_silent
from upstream.server import Asked, LocalUpstream, head, reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from aiohttp.connector import Connection

    from upstream.clock import HandClock

TOKEN = f"token-{CANARY}"
PATH = f"/thing/{CANARY}"
OF_A = head(headers={"Content-Length": "4"}) + b"of a"


async def fetch(client: UpstreamClient, **how: float) -> LoadError:
    """Return the exception of a request that has a secret everywhere it can have one."""
    with pytest.raises(LoadError) as caught:
        await client.request(
            "POST",
            PATH,
            token=TOKEN,
            json={"password": CANARY},
            params={"q": CANARY},
            timeout=how.get("timeout"),
            max_body=None if "max_body" not in how else int(how["max_body"]),
        )
    assert_silent(caught.value)
    return caught.value


class TestRequest:
    async def test_it_sends_what_it_was_given(self, upstream: LocalUpstream, client: UpstreamClient) -> None:
        """Method, token, JSON, and the query of the path together with the parameters."""
        upstream.on("/a%2F%7Eb", reply(b'{"ok": 1}', content_type="application/json; charset=utf-8"))
        response = await client.request(
            "POST", "/a%2F%7Eb?x=1%202&y=%61", token="t", json={"é": [1]}, params={"z": "ü&", "n": 3}
        )
        (asked,) = upstream.asked
        assert (asked.method, asked.target) == ("POST", "/a%2F%7Eb?x=1%202&y=%61&z=%C3%BC%26&n=3")
        assert (asked.token, json.loads(asked.body)) == ("t", {"é": [1]})
        assert asked.headers["content-type"] == "application/json"
        assert (response.status, response.body, response.content_type) == (
            200,
            b'{"ok": 1}',
            "application/json",
        )

    @pytest.mark.parametrize(
        ("said", "kind"),
        [
            ("Application/JSON ; charset=utf-8", "application/json"),
            ("application/json; x*", "application/json"),
            ("application/json; x*0*=", "application/json"),
            (f"application/json; x*{'9' * 5000}=1", "application/json"),
            ("", "application/octet-stream"),
            ("; x*", "application/octet-stream"),
        ],
        ids=["ordinary", "a star", "a section", "a huge section", "empty", "no type"],
    )
    async def test_a_content_type_is_read_however_malformed(
        self, upstream: LocalUpstream, client: UpstreamClient, said: str, kind: str
    ) -> None:
        upstream.on("/x", reply(b"[1]", content_type=said))
        response = await client.request("GET", "/x")
        assert (response.body, response.content_type) == (b"[1]", kind)

    async def test_an_answer_may_have_no_content_type(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        async def answer(asked: Asked, out: asyncio.StreamWriter) -> None:
            out.write(OF_A)

        upstream.on("/x", answer)
        assert (await client.request("GET", "/x")).content_type == "application/octet-stream"

    async def test_without_token_and_json_it_sends_neither(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        upstream.on("/x", reply())
        await client.request("GET", "/x")
        assert not {"authorization", "content-type", "cookie"} & upstream.asked[0].headers.keys()

    async def test_connections_are_reused(self, upstream: LocalUpstream, client: UpstreamClient) -> None:
        upstream.on("/x", reply(b"[1]"))
        for _ in range(5):
            await client.request("GET", "/x")
        assert upstream.connections == 1

    async def test_a_base_url_may_have_a_prefix(self, upstream: LocalUpstream) -> None:
        upstream.on("/prefix/x", reply())
        async with UpstreamClient(upstream.base_url + "/prefix/") as client:
            assert (await client.request("GET", "/x")).status == 200

    @pytest.mark.parametrize("path", ["x", "", "//x y", "/x\r\nHost: y", "/x#y", "/é", "http://evil/"])
    async def test_a_path_that_is_not_quoted_is_not_sent(self, client: UpstreamClient, path: str) -> None:
        with pytest.raises(ValueError, match="quoted"):
            await client.request("GET", path)

    @pytest.mark.parametrize("token", ["", "two words", "CANARY\r\nX: y", "é"])
    async def test_a_token_that_is_no_header_is_not_sent(self, client: UpstreamClient, token: str) -> None:
        with pytest.raises(ValueError, match="token") as caught:
            await client.request("GET", "/x", token=token)
        assert_silent(caught.value)

    async def test_json_that_cannot_be_written_is_not_quoted(self, client: UpstreamClient) -> None:
        """The encoder's own exception holds the text that it failed at, which may be a password."""
        with pytest.raises(ValueError, match="UnicodeEncodeError") as caught:
            await client.request("POST", "/x", json={"password": CANARY + "\ud800"})
        assert type(caught.value) is ValueError
        assert_silent(caught.value)

    async def test_nothing_shows_in_a_repr(self, upstream: LocalUpstream, client: UpstreamClient) -> None:
        upstream.on("/x", reply(b'"CANARY"'))
        response = await client.request("GET", "/x", token=TOKEN)
        assert CANARY not in repr(response)
        assert upstream.base_url not in repr(client)


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (302, UpstreamRejected),
            (400, UpstreamRejected),
            (401, AuthExpired),
            (403, Forbidden),
            (404, NotFound),
            (410, Gone),
            (422, UpstreamRejected),
            (429, RateLimited),
            (500, UpstreamFailed),
            (503, UpstreamFailed),
        ],
    )
    async def test_statuses(
        self, upstream: LocalUpstream, client: UpstreamClient, status: int, kind: type[LoadError]
    ) -> None:
        upstream.on(PATH, reply(b"CANARY", status))
        assert type(await fetch(client)) is kind

    async def test_a_refusal_counts_although_its_body_never_comes(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        """A body that hangs must not turn a refusal, which nothing may hide, into an outage, which may be hidden."""

        async def answer(asked: Asked, out: asyncio.StreamWriter) -> None:
            out.write(head(403, headers={"Content-Length": "1000"}) + b"CANARY")
            await out.drain()
            await asyncio.Event().wait()

        upstream.on(PATH, answer)
        assert type(await fetch(client)) is Forbidden

    async def test_retry_after_is_read_against_the_clock(
        self, upstream: LocalUpstream, clock: HandClock
    ) -> None:
        upstream.on(PATH, reply(b"", 429, Retry_After="Tue, 14 Nov 2023 22:14:20 GMT"))
        async with UpstreamClient(upstream.base_url, clock=clock) as client:
            error = await fetch(client)
        assert isinstance(error, RateLimited)
        assert error.retry_after == 60.0

    async def test_nobody_listens(self, upstream: LocalUpstream) -> None:
        await upstream.stop()
        async with UpstreamClient(upstream.base_url) as client:
            assert type(await fetch(client)) is UpstreamUnreachable

    async def test_no_such_host(self) -> None:
        async with UpstreamClient(f"http://{CANARY}.invalid") as client:
            assert type(await fetch(client)) is UpstreamUnreachable

    @pytest.mark.parametrize(
        "said",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="half a header"),
            pytest.param(b"CANARY\r\n\r\n", id="no HTTP"),
            pytest.param(b"HTTP/1.1 200 OK\r\nX: CANARY" + b"x" * 100_000 + b"\r\n\r\n", id="a huge header"),
            pytest.param(head(headers={"Content-Length": "100"}) + b'{"CANARY": 1', id="half a body"),
            pytest.param(head(headers={"Transfer-Encoding": "chunked"}) + b"5\r\nCANA", id="half a chunk"),
            pytest.param(head(headers={"Transfer-Encoding": "chunked"}) + b"CANARY\r\n", id="no chunk"),
            pytest.param(
                head(headers={"Content-Length": "6", "Content-Encoding": "gzip"}) + b"CANARY", id="no gzip"
            ),
            pytest.param(
                head(headers={"Content-Length": "6", "Content-Encoding": "br"}) + b"CANARY",
                id="not asked for",
            ),
        ],
    )
    async def test_an_answer_that_breaks(
        self, upstream: LocalUpstream, client: UpstreamClient, said: bytes
    ) -> None:
        async def answer(asked: Asked, out: asyncio.StreamWriter) -> None:
            out.write(said)
            await out.drain()
            out.close()

        upstream.on(PATH, answer)
        assert type(await fetch(client)) is UpstreamUnreachable

    async def test_a_reset(self, upstream: LocalUpstream, client: UpstreamClient) -> None:
        async def answer(asked: Asked, out: asyncio.StreamWriter) -> None:
            out.write(head(headers={"Content-Length": "100"}) + b"CANARY")
            await out.drain()
            out.transport.abort()

        upstream.on(PATH, answer)
        assert type(await fetch(client)) is UpstreamUnreachable


class TestDeadline:
    async def test_a_body_that_drips_is_ended(self, upstream: LocalUpstream, client: UpstreamClient) -> None:
        """However often a byte comes, the deadline is for the whole."""
        ended = asyncio.Event()

        async def drip(asked: Asked, out: asyncio.StreamWriter) -> None:
            out.write(head(headers={"Content-Length": "1000000"}))
            try:
                while not out.is_closing():
                    out.write(b" ")
                    await out.drain()
                    await asyncio.sleep(0.005)
            finally:
                ended.set()

        upstream.on(PATH, drip)
        assert type(await fetch(client, timeout=0.1)) is UpstreamTimeout
        await ended.wait()

    async def test_headers_that_never_come(self, upstream: LocalUpstream, client: UpstreamClient) -> None:
        upstream.on(PATH, lambda asked, out: asyncio.sleep(3600))
        error = await fetch(client, timeout=0.05)
        assert type(error) is UpstreamTimeout
        assert str(error) == "no complete answer from the upstream within 0.05 s"

    async def test_waiting_for_a_free_connection_counts(self, upstream: LocalUpstream) -> None:
        asked = asyncio.Event()
        gate = asyncio.Event()

        async def slow(_: Asked, out: asyncio.StreamWriter) -> None:
            asked.set()
            await gate.wait()
            await reply()(_, out)

        upstream.on(PATH, slow)
        async with UpstreamClient(upstream.base_url, connections=1) as client:
            first = asyncio.create_task(client.request("GET", PATH))
            await asked.wait()
            assert type(await fetch(client, timeout=0.05)) is UpstreamTimeout
            gate.set()
            assert (await first).status == 200

    async def test_a_cancelled_call_is_cancelled_and_its_connection_closed(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        """What is left of one user's answer is never read as the beginning of another's."""
        begun = asyncio.Event()

        async def half(asked: Asked, out: asyncio.StreamWriter) -> None:
            out.write(head(headers={"Content-Length": "20"}) + b'{"CANARY":')
            await out.drain()
            begun.set()
            await asyncio.Event().wait()

        upstream.on("/half", half)
        upstream.on("/x", reply(b"[]"))
        task = asyncio.create_task(client.request("GET", "/half"))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await client.request("GET", "/x")).body == b"[]"
        assert [each.connection for each in upstream.asked] == [1, 2]


class TestSize:
    async def test_a_body_as_large_as_allowed_is_read(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        upstream.on("/x", reply(b" " * MIB))
        assert len((await client.request("GET", "/x")).body) == MIB

    async def test_one_byte_more_is_not(self, upstream: LocalUpstream, client: UpstreamClient) -> None:
        upstream.on(PATH, reply(b"CANARY" + b" " * (MIB - 5)))
        assert type(await fetch(client)) is BadUpstreamBody
        upstream.on("/x", reply(b" " * (MIB + 1)))
        assert len((await client.request("GET", "/x", max_body=2 * MIB)).body) == MIB + 1

    @pytest.mark.parametrize("encoding", ["gzip", "deflate"])
    async def test_a_bomb_is_not_unpacked(
        self, upstream: LocalUpstream, client: UpstreamClient, encoding: str
    ) -> None:
        """The cap counts after decompression, and memory stays near it."""
        pack = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
        bomb = b"".join(pack.compress(b" " * MIB) for _ in range(256)) + pack.flush()
        upstream.on(PATH, reply(bomb, Content_Encoding=encoding))
        tracemalloc.start()
        try:
            assert type(await fetch(client)) is BadUpstreamBody
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * MIB

    async def test_gzip_is_unpacked(self, upstream: LocalUpstream, client: UpstreamClient) -> None:
        upstream.on("/x", reply(gzip.compress(b'{"a": 1}'), Content_Encoding="gzip"))
        assert (await client.request("GET", "/x")).body == b'{"a": 1}'

    async def test_an_endless_body_ends_at_the_cap(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        async def endless(asked: Asked, out: asyncio.StreamWriter) -> None:
            out.write(head(headers={"Transfer-Encoding": "chunked"}))
            while not out.is_closing():
                out.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                await out.drain()

        upstream.on(PATH, endless)
        assert type(await fetch(client)) is BadUpstreamBody


class TestNothingIsShared:
    async def test_no_cookie_reaches_another_user(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        """Neither another's nor one's own, nor one that is hard to read."""
        cookie = f"session={CANARY}; Path=/"
        upstream.on("/a", reply(Set_Cookie=cookie))
        upstream.on("/odd", reply(Set_Cookie=f"{CANARY} blank=1"))
        upstream.on("/b", reply())
        await client.request("GET", "/a", token="of-a")
        await client.request("GET", "/odd", token="of-a")
        await client.request("GET", "/b", token="of-b")
        await client.request("GET", "/a", token="of-a")
        assert [asked.token for asked in upstream.asked] == ["of-a", "of-a", "of-b", "of-a"]
        assert not any("cookie" in asked.headers for asked in upstream.asked)

    @pytest.mark.parametrize("length", [None, -1], ids=["whole", "half"])
    async def test_an_answer_that_nobody_asked_for_is_nobodys(
        self, upstream: LocalUpstream, client: UpstreamClient, length: int | None
    ) -> None:
        """It comes when the connection is back in the pool, and goes with it."""
        answered = asyncio.Event()

        async def twice(asked: Asked, out: asyncio.StreamWriter) -> None:
            out.write(OF_A)
            await answered.wait()
            out.write(OF_A[:length])

        upstream.on("/a", twice)
        upstream.on("/b", reply(b"of b"))
        assert (await client.request("GET", "/a", token="of-a")).body == b"of a"
        connector = client._sessions[asyncio.get_running_loop()].connector
        assert connector is not None
        (((idle, _),),) = connector._conns.values()
        answered.set()
        # Until it has reached the client, which has not asked anything yet.
        await settle(until=lambda: idle.should_close)
        for _ in range(2):
            assert (await client.request("GET", "/b", token="of-b")).body == b"of b"
        assert [asked.connection for asked in upstream.asked] == [1, 2, 2]

    async def test_connections_that_are_never_clean_are_given_up(
        self, upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However often a connection is asked for, all of the pool can have been spoiled, and no more."""
        connect = aiohttp.TCPConnector.connect

        async def spoiled(*of: Any, **more: Any) -> Connection:
            connection = await connect(*of, **more)
            assert connection.protocol is not None
            connection.protocol.force_close()
            return connection

        monkeypatch.setattr(aiohttp.TCPConnector, "connect", spoiled)
        async with UpstreamClient(upstream.base_url, connections=2) as client:
            assert type(await fetch(client)) is UpstreamUnreachable
            await settle(until=lambda: upstream.connections == 3)
        assert not upstream.asked

    async def test_environment_and_netrc_are_not_read(
        self, upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text(f"machine localhost login someone password {CANARY}\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.delenv("no_proxy", raising=False)
        upstream.on("/x", reply())
        async with UpstreamClient(upstream.base_url) as client:
            await client.request("GET", "/x")
        assert "authorization" not in upstream.asked[0].headers

    @pytest.mark.parametrize(
        "target",
        ["/elsewhere", "http://169.254.169.254/", "http://[::ffff:127.0.0.1]/", "http://localhost:1/"],
    )
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_redirects_are_not_followed(
        self, upstream: LocalUpstream, client: UpstreamClient, status: int, target: str
    ) -> None:
        upstream.on(PATH, reply(b"", status, Location=target))
        error = await fetch(client)
        assert isinstance(error, UpstreamRejected)
        assert error.status == status
        assert len(upstream.asked) == 1


def event_stream(
    *pieces: bytes, then: Callable[[], Awaitable[object]] | None = None
) -> Callable[..., Awaitable[None]]:
    async def answer(asked: Asked, out: asyncio.StreamWriter) -> None:
        out.write(
            head(headers={"Content-Type": "text/event-stream; charset=utf-8", "Transfer-Encoding": "chunked"})
        )
        for piece in pieces:
            out.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await out.drain()
        if then is not None:
            await then()
        out.write(b"0\r\n\r\n")

    return answer


class TestStream:
    async def test_pieces_are_fed_as_they_come(self, upstream: LocalUpstream, client: UpstreamClient) -> None:
        heard = bytearray()
        first = asyncio.Event()

        def feed(piece: bytes) -> bool:
            heard.extend(piece)
            first.set()
            return False

        # The second piece is not sent before the first was heard.
        upstream.on("/s", event_stream(b"data: 1\n\n", then=first.wait))
        response = await client.stream("POST", "/s", json={"a": 1}, feed=feed)
        assert bytes(heard) == b"data: 1\n\n"
        assert (response.content_type, response.body) == ("text/event-stream", b"")
        assert upstream.asked[0].headers["accept"] == "text/event-stream"

    async def test_who_has_heard_enough_ends_it(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        """A server that never ends its stream is left."""
        upstream.on("/s", event_stream(b"data: 1\n\n", then=asyncio.Event().wait))
        await client.stream("GET", "/s", feed=lambda piece: True)

    async def test_an_answer_that_is_no_stream_is_not_fed(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        upstream.on("/s", reply(b'{"status": "failure"}'))
        response = await client.stream("GET", "/s", feed=lambda piece: pytest.fail("fed"))
        assert response.body == b'{"status": "failure"}'

    async def test_statuses_deadline_and_cap_hold_here_too(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        upstream.on("/401", reply(status=401))
        with pytest.raises(AuthExpired):
            await client.stream("GET", "/401", feed=lambda piece: False)
        upstream.on("/hangs", event_stream(b":ping\n", then=asyncio.Event().wait))
        with pytest.raises(UpstreamTimeout):
            await client.stream("GET", "/hangs", feed=lambda piece: False, timeout=0.05)
        upstream.on("/long", event_stream(b":ping\n" * 100))
        with pytest.raises(BadUpstreamBody):
            await client.stream("GET", "/long", feed=lambda piece: False, max_body=100)


class TestLife:
    @pytest.mark.parametrize(
        "base_url",
        [
            "",
            "localhost",
            "//localhost",
            "ftp://localhost",
            "http://",
            "http://user:CANARY@localhost",
            "http://CANARY@localhost",
            "http://localhost?token=CANARY",
            "http://localhost/#CANARY",
            "http://localhost:99999/CANARY",
            "http://xn--/CANARY",
            "http://CANARY..example",
            f"http://CANARY{'y' * 60}.example",
        ],
    )
    def test_a_base_url_that_cannot_be_used_is_not_quoted(self, base_url: str) -> None:
        with pytest.raises(SettingsError) as caught:
            UpstreamClient(base_url)
        assert_silent(caught.value)

    @pytest.mark.parametrize(
        ("base_url", "asked"),
        [
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[fe80::1%25eth0]/x", "http://[fe80::1%25eth0]/x"),
            ("https://bücher.example/", "https://xn--bcher-kva.example"),
            (f"http://{'y' * 63}.example.", f"http://{'y' * 63}.example."),
        ],
    )
    def test_a_host_may_be_an_address_or_any_name_that_can_be_looked_up(
        self, base_url: str, asked: str
    ) -> None:
        assert UpstreamClient(base_url).base_url == asked

    @pytest.mark.parametrize("figure", ["timeout", "max_body", "connections"])
    @pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf])
    def test_limits_are_positive_and_finite(self, figure: str, wrong: Any) -> None:
        with pytest.raises(SettingsError, match=figure):
            UpstreamClient("http://localhost", **{figure: wrong})

    async def test_a_closed_client_says_so(self, upstream: LocalUpstream) -> None:
        client = UpstreamClient(upstream.base_url)
        upstream.on("/x", reply())
        await client.request("GET", "/x")
        await client.aclose()
        await client.aclose()
        with pytest.raises(CacheClosed):
            await client.request("GET", "/x")

    async def test_pools_of_other_loops_are_closed_with_it(self, upstream: LocalUpstream) -> None:
        """Each through its own loop."""
        upstream.on("/x", reply(b"[1]"))
        client = UpstreamClient(upstream.base_url)
        other = asyncio.new_event_loop()
        thread = threading.Thread(target=other.run_forever)
        thread.start()
        try:
            there = asyncio.run_coroutine_threadsafe(client.request("GET", "/x"), other)
            here = client.request("GET", "/x")
            assert [each.body for each in await asyncio.gather(asyncio.wrap_future(there), here)] == [
                b"[1]"
            ] * 2
            sessions = list(client._sessions.values())
            await client.aclose()
            assert [session.closed for session in sessions] == [True, True]
        finally:
            other.call_soon_threadsafe(other.stop)
            thread.join()
            other.close()

    # A loop that is closed with connections open leaves them to their finalizers, which say so.
    @pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_it_goes_on_in_another_event_loop(self) -> None:
        """Made outside of any loop, used in one that ends and then in the next."""

        async def use(client: UpstreamClient | None) -> UpstreamClient:
            upstream = LocalUpstream()
            await upstream.start()
            if client is None:
                client = UpstreamClient(upstream.base_url)
            else:
                client.base_url = upstream.base_url
            upstream.on("/x", reply(b"[1]"))
            assert (await client.request("GET", "/x")).body == b"[1]"
            assert len(client._sessions) == 1
            await upstream.stop()
            return client

        client = asyncio.run(use(asyncio.run(use(None))))
        asyncio.run(client.aclose())
        assert not client._sessions
