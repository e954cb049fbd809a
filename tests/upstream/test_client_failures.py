"""The client before an upstream that fails: a second try, the breaker and the pauses, over HTTP."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from coatcheck.attempts import Attempts, attempts
from coatcheck.errors import (
    BadUpstreamBody,
    BreakerOpen,
    Forbidden,
    LoadError,
    RateLimited,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from coatcheck.upstream.client import UpstreamClient
from coatcheck.upstream.retry import CALLS_PER_RETRY
from upstream.clock import SkippingClock
from upstream.secrets import CANARY, assert_silent
from upstream.server import Answer, Asked, LocalUpstream, head, reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATH = f"/thing/{CANARY}"
TOKEN = f"token-{CANARY}"
ANN = f"ann@{CANARY}"
BOB = f"bob@{CANARY}"

OK = reply(b"[1]")
DOWN = reply(CANARY.encode(), 503)


def in_turn(*answers: Answer) -> Answer:
    """Answer with each once, then with the last again and again."""
    waiting = list(answers)

    async def answer(asked: Asked, out: asyncio.StreamWriter) -> None:
        await (waiting.pop(0) if len(waiting) > 1 else waiting[0])(asked, out)

    return answer


async def abort(asked: Asked, out: asyncio.StreamWriter) -> None:
    out.transport.abort()


async def cut(asked: Asked, out: asyncio.StreamWriter) -> None:
    out.write(head(headers={"Content-Type": "application/json", "Content-Length": "100"}) + b'{"CANARY')
    await out.drain()
    out.close()


async def hang(asked: Asked, out: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def events(*pieces: bytes, then: Answer) -> Answer:
    async def answer(asked: Asked, out: asyncio.StreamWriter) -> None:
        out.write(head(headers={"Content-Type": "text/event-stream", "Content-Length": "1000"}))
        for piece in pieces:
            out.write(piece)
        await out.drain()
        await then(asked, out)

    return answer


@pytest.fixture
def skipping() -> SkippingClock:
    return SkippingClock()


@pytest_asyncio.fixture
async def client(upstream: LocalUpstream, skipping: SkippingClock) -> AsyncIterator[UpstreamClient]:
    """A client that may repeat two calls, and has forgotten nothing since."""
    upstream.on("/earn", OK)
    async with UpstreamClient(upstream.base_url, clock=skipping, rng=random.Random(1)) as made:
        for _ in range(2 * CALLS_PER_RETRY):
            await made.request("GET", "/earn", safe=True)
        upstream.asked.clear()
        yield made


async def failure(
    client: UpstreamClient, *, user: str | None = None, safe: bool = True, timeout: float | None = None
) -> LoadError:
    with pytest.raises(LoadError) as caught:
        await client.request(
            "POST",
            PATH,
            token=TOKEN,
            json=CANARY,
            safe=safe,
            cooldown=None if user is None else client.cooldowns.of(user),
            timeout=timeout,
        )
    assert_silent(caught.value)
    assert CANARY not in repr(client)
    return caught.value


class TestRetry:
    @pytest.mark.parametrize(
        "broken", [DOWN, reply(b"", 500), abort, cut], ids=["503", "500", "reset", "cut"]
    )
    async def test_a_failure_that_passes_is_not_seen(
        self, upstream: LocalUpstream, client: UpstreamClient, skipping: SkippingClock, broken: Answer
    ) -> None:
        """The second request says what the first said."""
        upstream.on(PATH, in_turn(broken, OK))
        response = await client.request("POST", PATH, token=TOKEN, json={"a": 1}, safe=True)
        assert response.body == b"[1]"
        first, second = upstream.asked
        assert (first.token, first.body) == (second.token, second.body) == (TOKEN, b'{"a":1}')
        assert len(skipping.slept) == 1
        assert client.retries.repeated == 1

    async def test_two_tries_are_all(self, upstream: LocalUpstream, client: UpstreamClient) -> None:
        upstream.on(PATH, DOWN)
        assert type(await failure(client)) is UpstreamFailed
        assert len(upstream.asked) == 2

    @pytest.mark.parametrize("method", ["GET", "POST"])
    @pytest.mark.parametrize("broken", [DOWN, abort, cut], ids=["503", "reset", "cut"])
    async def test_what_is_not_safe_is_sent_once(
        self, upstream: LocalUpstream, client: UpstreamClient, broken: Answer, method: str
    ) -> None:
        """The HTTP library repeats nothing by itself either."""
        upstream.on(PATH, broken)
        with pytest.raises((UpstreamFailed, UpstreamUnreachable)):
            await client.request(method, PATH)
        assert len(upstream.asked) == 1

    @pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 410, 429])
    async def test_what_would_be_answered_the_same_is_sent_once(
        self, upstream: LocalUpstream, client: UpstreamClient, skipping: SkippingClock, status: int
    ) -> None:
        upstream.on(PATH, reply(CANARY.encode(), status))
        await failure(client)
        assert len(upstream.asked) == 1
        assert skipping.slept == []

    async def test_a_timeout_has_used_up_the_time(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        upstream.on(PATH, hang)
        assert type(await failure(client, timeout=0.05)) is UpstreamTimeout
        assert len(upstream.asked) <= 1

    async def test_without_the_time_for_it_there_is_no_second_try(
        self, upstream: LocalUpstream, client: UpstreamClient, skipping: SkippingClock
    ) -> None:
        """Neither by the request's own time nor by that of the load."""
        upstream.on(PATH, DOWN)
        skipping.meanwhile = lambda: pytest.fail("waited")
        token = attempts.set(Attempts(deadline=skipping.monotonic() + 0.1))
        try:
            await failure(client)
        finally:
            attempts.reset(token)
        assert len(upstream.asked) == 1

    async def test_the_requests_of_a_load_are_counted(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        upstream.on(PATH, in_turn(DOWN, OK))
        load = Attempts()
        token = attempts.set(load)
        try:
            await client.request("GET", PATH, safe=True)
        finally:
            attempts.reset(token)
        assert load.made == len(upstream.asked) == 2

    async def test_while_a_part_fails_a_tenth_is_repeated(
        self, upstream: LocalUpstream, skipping: SkippingClock
    ) -> None:
        dice = random.Random(7)

        async def flaky(asked: Asked, out: asyncio.StreamWriter) -> None:
            await (DOWN if dice.random() < 0.3 else OK)(asked, out)

        upstream.on(PATH, flaky)
        async with UpstreamClient(upstream.base_url, clock=skipping) as client:
            for number in range(1, 301):
                try:
                    await client.request("GET", PATH, safe=True)
                except BreakerOpen:
                    skipping.advance(60.0)
                except UpstreamFailed:
                    pass
                assert client.retries.repeated * 10 <= number
            assert client.retries.repeated > 20
            assert len(upstream.asked) == client.retries.calls + client.retries.repeated


class TestStream:
    async def test_one_that_said_nothing_is_tried_again(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        upstream.on(PATH, in_turn(DOWN, events(b"data: 1\n\n", then=hang)))
        heard: list[bytes] = []

        def feed(piece: bytes) -> bool:
            heard.append(piece)
            return True

        await client.stream("POST", PATH, safe=True, feed=feed)
        assert heard == [b"data: 1\n\n"]

    async def test_one_that_was_heard_is_not(self, upstream: LocalUpstream, client: UpstreamClient) -> None:
        """The listener would hear the beginning twice."""
        upstream.on(PATH, events(b"data: 1\n\n", then=abort))
        heard: list[bytes] = []

        def feed(piece: bytes) -> bool:
            heard.append(piece)
            return False

        with pytest.raises(UpstreamUnreachable):
            await client.stream("POST", PATH, safe=True, feed=feed)
        assert heard == [b"data: 1\n\n"]
        assert len(upstream.asked) == 1
        assert client.breaker.state().failures == 1


class TestPauses:
    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize(
        ("header", "seconds"),
        [("7", 7.0), ("Tue, 14 Nov 2023 22:13:27 GMT", 7.0), ("999999999", 300.0)],
        ids=["seconds", "date", "far too long"],
    )
    async def test_nothing_of_the_user_leaves_until_then(
        self,
        upstream: LocalUpstream,
        client: UpstreamClient,
        skipping: SkippingClock,
        status: int,
        header: str,
        seconds: float,
    ) -> None:
        skipping.unix = 1_700_000_000.0
        upstream.on(PATH, reply(CANARY.encode(), status, Retry_After=header))
        await failure(client, user=ANN)
        assert len(upstream.asked) == 1

        error = await failure(client, user=ANN)
        assert isinstance(error, RateLimited)
        assert error.retry_after is not None
        assert seconds <= error.retry_after <= min(seconds * 1.1, 300.0)
        skipping.advance(seconds - 0.1)
        assert isinstance(await failure(client, user=ANN, safe=False), RateLimited)
        assert len(upstream.asked) == 1

        skipping.advance(error.retry_after - seconds + 0.1)
        upstream.on(PATH, OK)
        await client.request("GET", PATH, cooldown=client.cooldowns.of(ANN))
        assert len(upstream.asked) == 2
        assert len(client.cooldowns) == 0

    @pytest.mark.parametrize("header", ["-5", "0", "Tue, 14 Nov 2023 22:00:00 GMT"])
    async def test_a_time_that_has_passed_asks_for_none(
        self, upstream: LocalUpstream, client: UpstreamClient, header: str
    ) -> None:
        upstream.on(PATH, reply(b"", 429, Retry_After=header))
        await failure(client, user=ANN)
        assert len(client.cooldowns) == 0

    @pytest.mark.parametrize("header", ["soon", "", "1e3", "nan"])
    async def test_a_429_that_cannot_be_read_asks_for_a_short_one(
        self, upstream: LocalUpstream, client: UpstreamClient, header: str
    ) -> None:
        upstream.on(PATH, reply(b"", 429, Retry_After=header))
        await failure(client, user=ANN)
        assert 1.0 <= client.cooldowns.remaining(ANN) <= 1.1

    async def test_others_go_on(self, upstream: LocalUpstream, client: UpstreamClient) -> None:
        upstream.on(PATH, in_turn(reply(b"", 429, Retry_After="7"), OK))
        await failure(client, user=ANN)
        await client.request("GET", PATH, cooldown=client.cooldowns.of(BOB))
        assert client.breaker.state().failures == 0

    async def test_a_retry_that_waits_does_not_leave_either(
        self, upstream: LocalUpstream, client: UpstreamClient, skipping: SkippingClock
    ) -> None:
        """Another call of the user was told to pause meanwhile."""
        upstream.on(PATH, DOWN)
        skipping.meanwhile = lambda: client.cooldowns.begin(ANN, 7.0)
        assert isinstance(await failure(client, user=ANN), RateLimited)
        assert len(upstream.asked) == 1


class TestBreaker:
    async def opened(self, upstream: LocalUpstream, client: UpstreamClient) -> None:
        upstream.on(PATH, DOWN)
        for _ in range(5):
            await failure(client, safe=False)
        assert client.breaker.state().state == "open"
        upstream.asked.clear()

    async def test_while_it_is_open_nothing_leaves_and_nobody_waits(
        self, upstream: LocalUpstream, client: UpstreamClient, skipping: SkippingClock
    ) -> None:
        await self.opened(upstream, client)
        for user in (ANN, BOB):
            error = await failure(client, user=user)
            assert isinstance(error, BreakerOpen)
            assert error.retry_after == 10.0
        assert upstream.asked == []
        assert skipping.slept == []
        assert len(client.cooldowns) == 0

    @pytest.mark.parametrize("answer", [OK, reply(b"", 403), reply(b"", 429)], ids=["200", "403", "429"])
    async def test_the_probes_answer_closes_it(
        self, upstream: LocalUpstream, client: UpstreamClient, skipping: SkippingClock, answer: Answer
    ) -> None:
        await self.opened(upstream, client)
        skipping.advance(10.0)
        asked, gate = asyncio.Event(), asyncio.Event()

        async def held(told: Asked, out: asyncio.StreamWriter) -> None:
            asked.set()
            await gate.wait()
            await answer(told, out)

        upstream.on(PATH, held)
        probe = asyncio.create_task(client.request("GET", PATH, safe=True))
        await asked.wait()
        assert isinstance(await failure(client), BreakerOpen)
        gate.set()
        await asyncio.wait((probe,))
        assert probe.exception() is None or isinstance(probe.exception(), (Forbidden, RateLimited))
        assert len(upstream.asked) == 1
        assert client.breaker.state().state == "closed"

    async def test_a_probe_is_sent_once(
        self, upstream: LocalUpstream, client: UpstreamClient, skipping: SkippingClock
    ) -> None:
        """Its failure opens the breaker again; a retry would have to wait for that."""
        await self.opened(upstream, client)
        skipping.advance(10.0)
        assert isinstance(await failure(client), UpstreamFailed)
        assert len(upstream.asked) == 1
        assert skipping.slept == []
        assert client.breaker.state().retry_in == 20.0

    async def test_a_cancelled_probe_frees_its_place(
        self, upstream: LocalUpstream, client: UpstreamClient, skipping: SkippingClock
    ) -> None:
        await self.opened(upstream, client)
        skipping.advance(10.0)
        asked = asyncio.Event()

        async def held(told: Asked, out: asyncio.StreamWriter) -> None:
            asked.set()
            await hang(told, out)

        upstream.on(PATH, held)
        probe = asyncio.create_task(client.request("GET", PATH))
        await asked.wait()
        probe.cancel()
        await asyncio.wait((probe,))
        upstream.on(PATH, OK)
        assert (await client.request("GET", PATH)).status == 200
        assert client.breaker.state().state == "closed"

    async def test_a_probe_that_hangs_ends_with_its_time(
        self, upstream: LocalUpstream, client: UpstreamClient, skipping: SkippingClock
    ) -> None:
        await self.opened(upstream, client)
        skipping.advance(10.0)
        upstream.on(PATH, hang)
        assert isinstance(await failure(client, timeout=0.05), UpstreamTimeout)
        assert client.breaker.state().retry_in == 20.0

    async def test_a_retry_that_would_be_turned_away_is_not_waited_for(
        self, upstream: LocalUpstream, client: UpstreamClient, skipping: SkippingClock
    ) -> None:
        upstream.on(PATH, DOWN)
        for _ in range(4):
            await failure(client, safe=False)
        assert isinstance(await failure(client), UpstreamFailed)
        assert skipping.slept == []
        assert client.retries.repeated == 0

    async def test_bodies_that_are_too_large_do_not_open_it(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        upstream.on(PATH, reply(b" " * 1_000))
        for _ in range(10):
            with pytest.raises(BadUpstreamBody):
                await client.request("GET", PATH, max_body=100)
        assert client.breaker.state().state == "closed"

    async def test_an_upstream_that_is_not_there_opens_it(self, upstream: LocalUpstream) -> None:
        await upstream.stop()
        async with UpstreamClient(upstream.base_url) as client:
            for _ in range(5):
                assert isinstance(await failure(client), UpstreamUnreachable)
            assert isinstance(await failure(client), BreakerOpen)

    async def test_loads_given_up_at_their_deadline_open_it(
        self, upstream: LocalUpstream, client: UpstreamClient, skipping: SkippingClock
    ) -> None:
        """A load's time is up before that of its request; without this an upstream that hangs would never show."""
        asked = asyncio.Event()

        async def held(told: Asked, out: asyncio.StreamWriter) -> None:
            asked.set()
            await hang(told, out)

        async def load() -> None:
            attempts.set(Attempts(deadline=skipping.monotonic() + 20.0))
            await client.request("GET", PATH, safe=True)

        upstream.on(PATH, held)
        for _ in range(5):
            asked.clear()
            loading = asyncio.create_task(load())
            await asked.wait()
            skipping.advance(20.0)
            loading.cancel()
            await asyncio.wait((loading,))
        assert client.breaker.state().state == "open"
