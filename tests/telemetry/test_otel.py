"""A load is a span: what, why, how it ended, after how many requests, from when to when; and nothing of the user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from coatcheck import Catalog, SessionCache
from coatcheck.attempts import attempts
from coatcheck.engine.events import LoadEnded, SessionEnded
from coatcheck.engine.stats import Cause, End, Removal
from coatcheck.errors import UpstreamFailed
from coatcheck.telemetry import SpanObserver
from coatcheck.testing import FakeClock

ANN = "ann@example.com"


class Spans:
    """Keeps what was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def all(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    yield made
    made.provider.shutdown()


async def test_a_load_is_a_span_from_the_call_of_the_loader_to_its_end(spans: Spans) -> None:
    clock = FakeClock(wall=1_700_000_000.0)
    catalog: Catalog[str] = Catalog("traced")

    @catalog.resource
    async def account(api: str) -> int:
        counted = attempts.get()
        assert counted is not None
        counted.made += 2
        clock.jump(1.5)
        return 1

    async with SessionCache(
        catalog, connect=str, clock=clock, on_event=SpanObserver(spans.provider)
    ) as cache:
        session = cache.session(ANN)
        # What the caller traces is no parent: the load may go on without it, and for others.
        with spans.provider.get_tracer("caller").start_as_current_span("request"):
            await session.get(account)
        await session.get(account)
        await cache.settled()

        span, request = sorted(spans.all(), key=lambda each: each.name)
        assert "request" == request.name
        assert "load account" == span.name
        assert span.parent is None
        assert span.context is not None
        assert request.context is not None
        assert span.context.trace_id != request.context.trace_id
        assert {
            "coatcheck.resource": "account",
            "coatcheck.cause": "get",
            "coatcheck.outcome": "stored",
            "coatcheck.attempts": 2,
        } == span.attributes
        assert StatusCode.UNSET is span.status.status_code
        assert (1_700_000_000_000_000_000, 1_700_000_001_500_000_000) == (span.start_time, span.end_time)


async def test_a_load_that_failed_says_with_what(spans: Spans) -> None:
    catalog: Catalog[str] = Catalog("traced")

    @catalog.resource
    async def account(api: str) -> int:
        raise UpstreamFailed("503", status=503)

    async with SessionCache(catalog, connect=str, on_event=SpanObserver(spans.provider)) as cache:
        with contextlib.suppress(UpstreamFailed):
            await cache.session(ANN).get(account)
        await cache.settled()

        (span,) = spans.all()
        assert span.attributes is not None
        assert "UpstreamFailed" == span.attributes["error.type"]
        assert "failed" == span.attributes["coatcheck.outcome"]
        assert StatusCode.ERROR is span.status.status_code
        assert () == tuple(span.events)


def test_a_span_tells_nothing_of_the_user(spans: Spans) -> None:
    observe = SpanObserver(spans.provider)
    observe(LoadEnded("account", Cause.FORCE, End.STORED, 1.0, ended=5.0, pseudonym="0123456789abcdef"))

    (span,) = spans.all()
    assert "0123456789abcdef" not in span.to_json()


def test_a_span_has_no_parent_wherever_it_is_made(spans: Spans) -> None:
    with spans.provider.get_tracer("caller").start_as_current_span("request"):
        SpanObserver(spans.provider)(LoadEnded("account", Cause.GET, End.STORED, 1.0, ended=5.0))

    (span, _) = spans.all()
    assert "load account" == span.name
    assert span.parent is None


def test_nothing_but_loads_is_a_span(spans: Spans) -> None:
    SpanObserver(spans.provider)(SessionEnded(Removal.CLEARED, 3))

    assert () == spans.all()


def test_without_a_provider_the_global_one_is_used(monkeypatch: pytest.MonkeyPatch, spans: Spans) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: spans.provider)
    SpanObserver()(LoadEnded("account", Cause.GET, End.STORED, 1.0, ended=5.0))

    assert 1 == len(spans.all())
