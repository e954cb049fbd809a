"""Secrets planted in ids, tokens, bodies and URLs come out nowhere: no log, metric, span, event, exception or repr."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from upstream.secrets import CANARY, assert_silent
from upstream.server import Answer, Asked, LocalUpstream, reply

from coatcheck import Body, Catalog, Policy, Resource, SessionCache
from coatcheck.engine.events import Event, LoadEnded
from coatcheck.errors import InvalidKey, LoadError
from coatcheck.telemetry import CacheCollector, LogObserver, SpanObserver, all_of
from coatcheck.upstream.breaker import Breaker
from coatcheck.upstream.client import UpstreamClient
from coatcheck.upstream.retry import Retry

USER = f"{CANARY}-user@example.com"
TOKEN = f"{CANARY}-token"
ZONE = f"{CANARY}-zone"

GOOD = f'{{"name": "{CANARY}"}}'.encode()
STATUSES = (200, 201, 302, 400, 401, 403, 404, 410, 418, 429, 500, 502, 503)
GARBLED = (
    f'{{"name": "{CANARY}"'.encode(),
    f'{{"name": ["{CANARY}"]}}'.encode(),
    f'{{"{CANARY}": "{CANARY}"}}'.encode(),
    f"<html>{CANARY}</html>".encode(),
    f'"{CANARY}'.encode() + b"\xff\xfe",
)


class Api(msgspec.Struct):
    """What the loaders get."""

    client: UpstreamClient
    token: str
    path: str = f"/{CANARY}-path"


class Account(msgspec.Struct, frozen=True):
    name: str


@pytest_asyncio.fixture
async def server() -> AsyncIterator[LocalUpstream]:
    made = LocalUpstream()
    await made.start()
    yield made
    await made.stop()


async def drop(asked: Asked, out: asyncio.StreamWriter) -> None:
    """Break the connection within the answer."""
    out.write(f"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nX-{CANARY}: {CANARY}\r\n\r\n{CANARY}".encode())
    await out.drain()
    out.close()


async def mumble(asked: Asked, out: asyncio.StreamWriter) -> None:
    """Answer in something that is no HTTP."""
    out.write(f"{CANARY} {CANARY}\r\n\r\n".encode())
    await out.drain()
    out.close()


class Scene:
    """A cache in front of a server, observed by everything there is."""

    def __init__(self, server: LocalUpstream) -> None:
        self.server = server
        self.told: list[Event] = []
        self.errors: list[BaseException] = []
        self.exporter, self.provider = InMemorySpanExporter(), TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.breaker = Breaker(threshold=1_000)
        self.client = UpstreamClient(
            server.base_url, breaker=self.breaker, timeout=5, retry=Retry(backoff=0.001)
        )
        catalog: Catalog[Api] = Catalog("secret")
        hour = timedelta(hours=1)
        policy = Policy(ttl=hour, stale_if_error=hour, negative_ttl=timedelta(seconds=60))

        @catalog.resource(policy)
        async def account(api: Api, zone: str = ZONE) -> Body[Account]:
            response = await api.client.request(
                "POST",
                api.path,
                token=api.token,
                json={"zone": zone, "secret": CANARY},
                params={CANARY: CANARY},
                safe=True,
            )
            return Body(response.body)

        @catalog.resource(policy)
        async def tokens(api: Api, account: Account) -> str:
            return f"{api.token} of {account.name}"

        @catalog.resource(policy)
        async def broken(api: Api) -> str:
            raise RuntimeError(f"{CANARY}: the loader's own")

        self.account, self.tokens, self.broken = account, tokens, broken
        self.cache = SessionCache(
            catalog,
            connect=lambda user: Api(self.client, TOKEN),
            on_event=all_of(self.told.append, SpanObserver(self.provider), LogObserver()),
        )
        self.session = self.cache.session(USER)

    def answer(self, answer: Answer) -> None:
        self.server.on(f"/{CANARY}-path", answer)

    async def ask(self, resource: Resource[Any], **options: Any) -> None:
        try:
            await self.session.get(resource, **options)
        except LoadError as error:
            self.errors.append(error)

    async def suffer(self) -> None:
        """Let everything happen that can go wrong."""
        for number, status in enumerate(STATUSES):
            self.answer(reply(GOOD, status, location=f"/{CANARY}", x_secret=CANARY, retry_after="0"))
            await self.ask(self.account, force_refresh=True)
            await self.ask(self.account, zone=f"{ZONE}-{number}")
            await self.ask(self.account, zone=f"{ZONE}-{number}")
        for garbled in GARBLED:
            self.answer(reply(garbled))
            await self.ask(self.account, force_refresh=True)
        for answer in (drop, mumble):
            self.answer(answer)
            await self.ask(self.account, force_refresh=True)
        self.answer(reply(GOOD))
        await self.session.get(self.tokens, force_refresh=True, deep=True)
        with pytest.raises(RuntimeError):  # as it is: that one is the caller's
            await self.session.get(self.broken)
        for bad in (f"{CANARY}\0", f"{CANARY}\udcff", CANARY * 100):
            with pytest.raises(InvalidKey) as refused:
                self.cache.session(bad)
            self.errors.append(refused.value)

    async def reprs(self) -> str:
        """Return how everything that somebody may hold shows itself."""
        look = await self.session.lookup(self.tokens)
        state = self.cache._sessions.states[USER]
        held = (
            self.cache,
            self.session,
            self.client,
            look,
            state,
            *state.slots,
            self.cache.stats(),
        )
        return " ".join(map(repr, held))

    def metrics(self) -> str:
        registry = CollectorRegistry()
        registry.register(CacheCollector(self.cache.stats, breaker=self.breaker.state))
        return generate_latest(registry).decode()


async def test_no_secret_comes_out(server: LocalUpstream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    scene = Scene(server)
    async with scene.client, scene.cache as cache:
        await scene.suffer()
        reprs = await scene.reprs()
        await cache.clear(USER)
        await cache.settled()
        metrics = scene.metrics()
    scene.provider.shutdown()
    spans = scene.exporter.get_finished_spans()

    # It was all there to be told.
    assert CANARY in server.asked[0].target
    assert TOKEN == server.asked[0].token
    assert CANARY.encode() in server.asked[0].body
    assert {"LoadEnded", "RefusalServed", "SessionEnded"} <= {type(event).__name__ for event in scene.told}
    assert {
        "AuthExpired", "BadUpstreamBody", "Forbidden", "Gone", "InvalidKey", "NotFound", "RateLimited",
        "UpstreamFailed", "UpstreamRejected", "UpstreamUnreachable",
    } == {type(error).__name__ for error in scene.errors}  # fmt: skip
    assert len(spans) == sum(isinstance(event, LoadEnded) for event in scene.told) > 30
    assert len(caplog.records) > 30

    shown = {
        "a log": [caplog.text, *(repr(vars(record)) for record in caplog.records)],
        "a metric": [metrics],
        "a span": [span.to_json() for span in spans],
        "an event": [repr(event) for event in scene.told],
        "a repr": [reprs],
    }
    for where, texts in shown.items():
        assert not any(CANARY.lower() in text.lower() for text in texts), where
    for error in scene.errors:
        assert_silent(error)
