"""Single flight: at most one running load for a key; the first caller leads, later ones join.

Work in flight is owned by identity. The floor of a key, the earliest load start that it accepts, is kept as a mark on
the loads that began below it: a load that was *overtaken* answers its own waiters and is not kept.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from coatcheck.engine.slots import Ticket
from coatcheck.engine.stats import Cause

if TYPE_CHECKING:
    import asyncio

    from coatcheck.engine.entry import Entry

ANY = -math.inf
"""Join a load whenever it began."""

NOT_YET_BEGUN = math.inf
"""Join a load only if its loader has not been called yet."""


class Failed(NamedTuple):
    """How a flight ended that brought no entry. A result, not an exception, so none goes unretrieved."""

    error: BaseException

    def __repr__(self) -> str:
        return f"<failed: {type(self.error).__name__}>"


class Flight:
    """One load of one key.

    Attributes:
        forced: asked for by a caller that accepts no load that had begun before.
        inside: the loads that this one runs inside of.
        called: whether the loader was called.
        started: when it was.
        overtaken: began below the key's floor; not to be kept.
        overtakes: the ordinary load that this forced one overtakes when its loader is called.
        following: the forced load that begins when this one has ended.
        ticket: what it waits for slots with.
        landed: resolves to what the load brought. It belongs to the home loop.
        waiters: one future for each caller that waits for that.
    """

    __slots__ = (
        "called",
        "cause",
        "following",
        "forced",
        "inside",
        "key",
        "landed",
        "overtaken",
        "overtakes",
        "resource",
        "started",
        "state",
        "task",
        "ticket",
        "values",
        "waiters",
    )  # fmt: skip

    def __init__(
        self, key: str, *, state: Any, resource: Any, values: tuple[object, ...], cause: Cause, forced: bool
    ) -> None:
        self.key = key
        self.state = state
        self.resource = resource
        self.values = values
        self.cause = cause
        self.forced = forced
        self.inside: tuple[Flight, ...] = ()
        self.called = False
        self.started = ANY
        self.overtaken = False
        self.overtakes: Flight | None = None
        self.following: Flight | None = None
        self.landed: asyncio.Future[Entry | Failed]
        self.ticket = Ticket(background=cause is Cause.REFRESH)
        self.task: asyncio.Task[None] | None = None
        self.waiters: list[asyncio.Future[Entry | Failed]] = []

    def begin(self, now: float) -> None:
        """Note that the loader is called *now*; what it overtakes is below the floor from here on."""
        self.called = True
        self.started = now
        if self.overtakes is not None:
            self.overtakes.overtaken = True
            self.overtakes = None

    async def landing(self) -> Entry | Failed:
        """Return what the load brings, on the home loop. Cancelling who waits for it touches nobody else.

        `asyncio.shield` promises the same; for a thousand who wait it takes several times as long.
        """
        if self.landed.done():
            return self.landed.result()
        if not self.waiters:
            self.landed.add_done_callback(self._wake)
        waiter: asyncio.Future[Entry | Failed] = self.landed.get_loop().create_future()
        self.waiters.append(waiter)
        return await waiter

    def _wake(self, landed: asyncio.Future[Entry | Failed]) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(landed.result())


class SingleFlight:
    """The loads of one session, by key."""

    __slots__ = ("_current",)

    def __init__(self) -> None:
        self._current: dict[str, Flight] = {}

    def __len__(self) -> int:
        return len(self._current)

    def running(self, key: str) -> Flight | None:
        """Return the newest load of *key*."""
        return self._current.get(key)

    def to_join(self, key: str, begun_since: float = ANY) -> Flight | None:
        """Return a load that a caller may join who accepts one that began at *begun_since* or later."""
        flight = self._current.get(key)
        while flight is not None:
            if not flight.called or flight.started >= begun_since:
                return flight
            flight = flight.following
        return None

    def admit(self, flight: Flight) -> bool:
        """Take in a load that nobody runs yet, and tell whether it may begin at once.

        A forced load overtakes an ordinary one and waits for another forced one.
        """
        current = self._current.get(flight.key)
        if current is not None and current.forced:
            current.following = flight
            return False
        flight.overtakes = current
        self._current[flight.key] = flight
        return True

    def end(self, flight: Flight) -> Flight | None:
        """Take out a load that has ended, and return the one that may begin now."""
        if self._current.get(flight.key) is not flight:
            return None
        overtakes = flight.overtakes
        if overtakes is None or overtakes.landed.done():
            return self._succeed(flight)
        # It failed before its loader was called: what it was to overtake runs on, and is still the one to join.
        following, flight.following = flight.following, None
        if following is None:
            self._current[flight.key] = overtakes
        else:
            following.overtakes = overtakes
            self._current[flight.key] = following
        return following

    def excuse(self, key: str) -> None:
        """Let no load of *key* wait for a slot any more: somebody who has one waits for the newest."""
        flight = self._current.get(key)
        while flight is not None:
            flight.ticket.excuse()
            flight = flight.following

    def raise_floor(self, keys: list[str] | None = None) -> list[Flight]:
        """Let nothing be kept that has begun, for these keys or all; return the loads that may begin now."""
        due = []
        for key in list(self._current) if keys is None else keys:
            flight = self._current.get(key)
            if flight is None:
                continue
            if not flight.called:
                if flight.overtakes is not None:
                    flight.overtakes.overtaken = True
                continue
            flight.overtaken = True
            following = self._succeed(flight)
            if following is not None:
                due.append(following)
        return due

    def all(self) -> list[Flight]:
        """Return every load that can still be joined."""
        found = []
        for flight in self._current.values():
            each: Flight | None = flight
            while each is not None:
                found.append(each)
                each = each.following
        return found

    def _succeed(self, flight: Flight) -> Flight | None:
        following = flight.following
        flight.following = None
        if following is None:
            del self._current[flight.key]
        else:
            self._current[flight.key] = following
        return following


def own_copy(error: BaseException) -> BaseException:
    """Return an equal exception for one waiter: one object raised in many would grow its traceback in each.

    One of which there can be no second is returned itself.
    """
    try:
        twin = copy.copy(error)
        if type(twin) is not type(error):
            raise TypeError
    except Exception:  # noqa: BLE001 - a foreign class may be uncopyable in any way
        try:
            twin = type(error).__new__(type(error))
            twin.args = error.args
            twin.__dict__.update(error.__dict__)
        except Exception:  # noqa: BLE001 - in every way
            return error
    twin.__cause__ = error.__cause__
    twin.__suppress_context__ = error.__suppress_context__
    return twin.with_traceback(error.__traceback__)
