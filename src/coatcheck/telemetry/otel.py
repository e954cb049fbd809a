"""Loads as OpenTelemetry spans."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from coatcheck.engine.events import LoadEnded
from coatcheck.errors import MissingExtra

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Status, StatusCode
except ModuleNotFoundError as missing:
    raise MissingExtra(
        "coatcheck.telemetry.otel needs opentelemetry: install coatcheck[otel]", name=missing.name
    ) from None

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from coatcheck.engine.events import Event

NANOSECONDS = 1_000_000_000


class SpanObserver:
    """An observer for ``on_event`` that makes a span of each load: from the call of the loader to its end.

    A span is named after the resource and has these attributes: ``coatcheck.resource``, ``coatcheck.cause``,
    ``coatcheck.outcome``, ``coatcheck.attempts`` (requests sent) and, of a load that failed, ``error.type``. It tells
    nothing of the user. It has no parent: a load belongs to all who wait for it, and goes on without them.

    Args:
        tracer_provider: the global one when not given.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(
            "coatcheck", metadata.version("coatcheck"), tracer_provider=tracer_provider
        )

    def __call__(self, event: Event) -> None:
        """Make a span, if a load has ended."""
        if not isinstance(event, LoadEnded):
            return
        attributes: dict[str, str | int] = {
            "coatcheck.resource": event.resource,
            "coatcheck.cause": event.cause.name.lower(),
            "coatcheck.outcome": event.end.name.lower(),
            "coatcheck.attempts": event.attempts,
        }
        if event.error is not None:
            attributes["error.type"] = event.error
        ended = round(event.ended * NANOSECONDS)
        span = self._tracer.start_span(
            f"load {event.resource}",
            context=Context(),
            attributes=attributes,
            start_time=ended - round(event.seconds * NANOSECONDS),
        )
        if event.error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)
