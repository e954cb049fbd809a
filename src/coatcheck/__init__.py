"""A session per user in front of a slow API: fetched once, answered at once, never shown to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coatcheck.clock import Clock, SystemClock
from coatcheck.engine.cache import SessionCache
from coatcheck.engine.catalog import Catalog, Resource
from coatcheck.engine.codec import Body
from coatcheck.engine.entry import Cleared, Lookup, Outcome
from coatcheck.engine.keys import current_user
from coatcheck.engine.limits import Limits
from coatcheck.engine.policy import Policy
from coatcheck.engine.schedule import Schedule
from coatcheck.engine.session import Session
from coatcheck.engine.sync import SyncCache, SyncSession
from coatcheck.errors import CoatcheckError, MissingExtra

if TYPE_CHECKING:
    from coatcheck.bootstrap import api_executor_service as api_executor_service

__all__ = [
    "Body",
    "Catalog",
    "Cleared",
    "Clock",
    "CoatcheckError",
    "Limits",
    "Lookup",
    "Outcome",
    "Policy",
    "Resource",
    "Schedule",
    "Session",
    "SessionCache",
    "SyncCache",
    "SyncSession",
    "SystemClock",
    "current_user",
]


# Not in `__all__`: `from coatcheck import *` must work without the extras.
def __getattr__(name: str) -> object:
    if name != "api_executor_service":
        raise AttributeError(f"module 'coatcheck' has no attribute {name!r}")
    # Only here: it brings HTTP and settings with it, which are extras and take their time to import.
    try:
        from coatcheck.bootstrap import api_executor_service  # noqa: PLC0415
    except (ModuleNotFoundError, MissingExtra) as error:
        missing = error.name or ""
    else:
        return api_executor_service
    if missing.partition(".")[0] == "coatcheck":
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
    raise MissingExtra(
        f"api_executor_service needs {missing}, an extra: install coatcheck[ipc]", name=missing
    )
