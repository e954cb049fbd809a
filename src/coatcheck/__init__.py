"""A session per user in front of a slow API: fetched once, answered at once, never shown to another."""

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
from coatcheck.errors import CoatcheckError

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
    "SystemClock",
    "current_user",
]
