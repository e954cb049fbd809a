"""What a cache counts and tells, for those who look after it: metrics, spans and logs. None of them names a user.

::

    from coatcheck.telemetry import CacheCollector, LogObserver, SpanObserver, all_of

    cache = SessionCache(catalog, connect=connect, on_event=all_of(LogObserver(), SpanObserver()))
    prometheus_client.REGISTRY.register(CacheCollector(cache.stats))

`CacheCollector` needs ``coatcheck[prometheus]``, `SpanObserver` needs ``coatcheck[otel]``; each is imported when it is
first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coatcheck.telemetry.logs import LogObserver
from coatcheck.telemetry.observers import all_of

if TYPE_CHECKING:
    from coatcheck.telemetry.otel import SpanObserver as SpanObserver
    from coatcheck.telemetry.prometheus import CacheCollector as CacheCollector

# Not all of them: `from coatcheck.telemetry import *` must work without the extras.
__all__ = ["LogObserver", "all_of"]


def __getattr__(name: str) -> object:
    if name == "CacheCollector":
        from coatcheck.telemetry.prometheus import CacheCollector  # noqa: PLC0415

        return CacheCollector
    if name == "SpanObserver":
        from coatcheck.telemetry.otel import SpanObserver  # noqa: PLC0415

        return SpanObserver
    raise AttributeError(f"module 'coatcheck.telemetry' has no attribute {name!r}")
