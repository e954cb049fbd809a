"""What a cache is made of, looked at before anything begins: a mistake there is told where it was made."""

from __future__ import annotations

from typing import Any

from coatcheck.engine.catalog import Catalog
from coatcheck.engine.limits import Limits
from coatcheck.engine.schedule import Schedule
from coatcheck.errors import SettingsError

STORE = ("open", "put", "delete", "forget", "clear", "clear_all", "aclose")
CLOCK = ("monotonic", "wall", "sleep")


def check_parts(
    *, catalog: object, connect: object, store: object, authority: object, limits: object, clock: object,
    on_event: object, schedule: object,
) -> None:  # fmt: skip
    """Accept the arguments of a cache.

    Raises:
        SettingsError: one cannot be what it is given for.
    """
    wrong = None
    if not isinstance(catalog, Catalog):
        wrong = "catalog must be a Catalog"
    elif not callable(connect):
        wrong = (
            "connect must be callable: it is called with a user id and returns what that user's loaders get"
        )
    elif store is not None and not _has(store, STORE):
        wrong = "store must be a store, such as SQLiteStore(path)"
    elif not (authority is None or callable(authority)):
        wrong = "authority must be callable: it is called with a user id"
    elif not (limits is None or isinstance(limits, Limits)):
        wrong = "limits must be Limits(...)"
    elif clock is not None and not _has(clock, CLOCK):
        wrong = "clock must be a clock, such as SystemClock()"
    elif not (on_event is None or callable(on_event)):
        wrong = "on_event must be callable; several become one by coatcheck.telemetry.all_of(...)"
    elif not (schedule is None or isinstance(schedule, Schedule)):
        wrong = "schedule must be Schedule(every=...)"
    if wrong is not None:
        raise SettingsError(wrong)


def _has(part: Any, methods: tuple[str, ...]) -> bool:
    return not isinstance(part, type) and all(callable(getattr(part, name, None)) for name in methods)
