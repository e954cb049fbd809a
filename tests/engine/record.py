"""What happened to a cache, in the order in which it did."""

from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.recorded_catalog import OK, PUT

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from datetime import timedelta

    from coatcheck.engine.entry import Lookup
    from coatcheck.engine.policy import Policy
    from engine.recorded_upstream import Connected


NOWHERE = -1
"""The node of a get that found its cache closed."""


class Load:
    """One call of a loader, or one put."""

    def __init__(
        self, serial: int, user: str, resource: str, arguments: dict[str, Any], api: Connected | None, *, at: int, now: float
    ) -> None:  # fmt: skip
        self.serial = serial
        self.user = user
        self.resource = resource
        self.arguments = arguments
        self.api = api
        self.called = at
        self.called_at = now
        self.node = 0
        self.authority = ""
        self.ended: int | None = None
        self.ended_at: float | None = None
        self.kind: str | None = None
        self.body = b""
        self.stubborn = False
        self.gate: asyncio.Future[tuple[str, int]] | None = None

    def __repr__(self) -> str:
        return f"<load {self.serial} of {self.resource} {self.arguments} for {self.user!r}: {self.kind or 'running'}>"

    @property
    def key(self) -> tuple[str, str, tuple[Any, ...]]:
        return self.user, self.resource, tuple(self.arguments.values())

    @property
    def running(self) -> bool:
        return self.kind is None

    @property
    def waiting(self) -> bool:
        """Whether the test has still to say how it ends."""
        return self.gate is not None and not self.gate.done() and self.ended is None


class Connection:
    """One call of connect."""

    def __init__(self, serial: int, user: str, *, at: int) -> None:
        self.serial = serial
        self.user = user
        self.called = at
        self.gate: asyncio.Future[bool] | None = None
        self.api: Connected | None = None


class Get:
    """One caller's get."""

    def __init__(
        self, user: str, resource: str, *, force: bool, deep: bool, max_age: float | None, passed: dict[str, Any], looks: bool
    ) -> None:  # fmt: skip
        self.user = user
        self.resource = resource
        self.force = force
        self.deep = deep
        self.max_age = max_age
        self.passed = passed
        self.looks = looks
        self.node = NOWHERE
        self.authority = ""
        self.invoked: int | None = None
        self.invoked_at = 0.0
        # The last moment before it at which the loop had nothing to do: what had ended by then was over.
        self.rested = 0
        self.returned: int | None = None
        self.returned_at = 0.0
        self.cancelled = False
        self.value: Any = None
        self.look: Lookup[Any] | None = None
        self.error: BaseException | None = None
        self.task: asyncio.Task[None]

    def __repr__(self) -> str:
        options = {"force": self.force, "deep": self.deep, "max_age": self.max_age, **self.passed}
        told = ", ".join(f"{name}={value!r}" for name, value in options.items() if value)
        ended = (
            "" if self.returned is None else f" -> {self.error!r}" if self.error else f" -> {self.value!r}"
        )
        how = f" {self.look.outcome.value}" if self.look is not None else ""
        return f"<get {self.resource}({told}) for {self.user!r} at {self.invoked}{ended}{how}>"

    @property
    def pending(self) -> bool:
        return not self.task.done()


class Change(NamedTuple):
    """A policy that was put in force: the number of that, the time, and which."""

    number: int
    at: float
    chosen: Policy


class Record:
    """What happened to a cache. Everything gets the next number of one sequence.

    Attributes:
        loads: by serial number; puts are among them.
        clears: user, when it began and when it was done.
        durable: those of them that the store had applied by then.
        clearing: user, and when it began, of those that are not done.
        floors: what raises the floor of keys: user, resource, arguments or None for all, when it began, when it was done.
        dropping: user, resource and arguments, or None for all, of what is being invalidated.
        refusals: loads that ended so.
        policies: by resource.
        rested: when the loop last had nothing to do.
        node: how many caches there were before this one.
        closed: caches that were closed, or began to be.
        read_for: how long all readings of the store have taken.
        ends: sessions that the store said had ended there: user, when it did, and when they were over in memory, too.
        ending: the same of those that may not be over there.
        lost: what had begun by then, no later node can know the age of.
    """

    def __init__(self) -> None:
        self._sequence = itertools.count(1)
        self._serial = itertools.count(1)
        self.loads: dict[int, Load] = {}
        self.connections: list[Connection] = []
        self.connect_failures: list[int] = []
        self.gets: list[Get] = []
        self.clears: list[tuple[str, int, int]] = []
        self.durable: set[tuple[str, int, int]] = set()
        self.clearing: list[tuple[str, int]] = []
        self.floors: list[tuple[str, str, tuple[Any, ...] | None, int, int]] = []
        self.dropping: list[tuple[str, str, tuple[Any, ...] | None]] = []
        self.refusals: list[Load] = []
        self.policies: dict[str, list[Change]] = {}
        self.rested = 0
        self.node = 0
        self.closed = {NOWHERE}
        self.read_for = 0.0
        self.ends: list[tuple[str, int, int]] = []
        self.ending: list[tuple[str, int]] = []
        self.lost = 0

    def next(self) -> int:
        """Return the number of what happens now."""
        return next(self._sequence)

    def next_serial(self) -> int:
        return next(self._serial)

    def begin_clear(self, *users: str) -> int:
        """Note that a clear of these begins; return when."""
        begun = self.next()
        self.clearing += [(user, begun) for user in users]
        return begun

    def end_clear(self, user: str, begun: int, *, durable: bool) -> None:
        clear = (user, begun, self.next())
        self.clearing.remove((user, begun))
        self.clears.append(clear)
        if durable:
            self.durable.add(clear)

    def cleared_since(self, user: str, moment: int, by: float = math.inf) -> bool:
        """Whether a clear began since, done or not."""
        begun = [*self.clearing, *((each, begun) for each, begun, _ in self.clears)]
        return any(each == user and moment < at < by for each, at in begun)

    def cleared_before(self, user: str, moment: int) -> int:
        """Return when the latest clear began that was done before *moment*."""
        return max((begun for each, begun, done in self.clears if each == user and done < moment), default=0)

    def new_node(self, *, out_of_step: set[str], aged: float, lost: bool) -> None:
        """Note that another cache goes on with what is stored; by the wall clock so much time has passed meanwhile.

        What the former one had promised goes on to count, but for users whose stored copy was out of step with its
        memory, and it knew that: of those only clears that the store had applied. A node knows of no policy that another
        had in force before.
        """
        self.node += 1
        self.clearing.clear()
        self.dropping.clear()
        self.clears = [clear for clear in self.clears if clear in self.durable or clear[0] not in out_of_step]
        self.floors = [floor for floor in self.floors if floor[0] not in out_of_step]
        self.refusals = [refusal for refusal in self.refusals if refusal.user not in out_of_step]
        self.policies = {name: [Change(0, 0.0, each[-1].chosen)] for name, each in self.policies.items()}
        for load in self.loads.values():
            load.called_at -= aged
        if lost:
            self.lost = self.next()

    def running(self) -> list[Load]:
        return [load for load in self.loads.values() if load.running]

    def waiting(self) -> list[Load]:
        return [load for load in self.loads.values() if load.waiting]

    def fresh(self, load: Load, moment: int, now: float) -> bool:
        """Whether a load was within its ttl at a moment, and was when each earlier policy ended."""
        return self._within(load, moment, now, lambda chosen: chosen.ttl)

    def alive(self, load: Load, moment: int, now: float) -> bool:
        return self._within(load, moment, now, lambda chosen: chosen.ttl + chosen.stale_if_error)

    def _within(self, load: Load, moment: int, now: float, span: Callable[[Policy], timedelta]) -> bool:
        chosen = self.policies[load.resource][0].chosen
        for change in self.policies[load.resource][1:]:
            if change.number > moment:
                break
            if change.at >= load.called_at + span(chosen).total_seconds():
                return False
            chosen = change.chosen
        return now < load.called_at + span(chosen).total_seconds()


def number_of(load: Load) -> int | None:
    """Return the account number that a load brought, if it did."""
    if load.kind not in {OK, PUT} or not load.body:
        return None
    number: int = json.loads(load.body)["number"]
    return number
