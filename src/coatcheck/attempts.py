"""What a load and the requests that it makes tell each other, across the floors between them."""

from __future__ import annotations

import math
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Attempts:
    """The requests of one load.

    Whoever runs the load sets one in the load's context; whoever sends requests counts them in it. Log-ins, which
    serve many loads, run in a context of their own and are not counted.

    Attributes:
        made: requests that left, repeated ones included.
        deadline: when the load ends whatever happens, on the monotonic clock of the cache.
    """

    made: int = 0
    deadline: float = math.inf


attempts: ContextVar[Attempts | None] = ContextVar("coatcheck.attempts", default=None)
"""Those of the load that runs in this context; None outside of loads."""
