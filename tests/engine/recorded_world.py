"""One cache, a recorded upstream and a recorded history."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from coatcheck.engine.cache import SessionCache
from coatcheck.engine.codec import Body
from coatcheck.engine.entry import Outcome
from coatcheck.engine.limits import Limits
from coatcheck.engine.stats import Cause, gets_of
from engine.audit import audit
from engine.record import Change, Get, Load
from engine.recorded_catalog import DEPENDS, OK, PUT, SAVES_ONE, USERS, Account, Page, make_catalog
from engine.recorded_upstream import RecordedUpstream
from engine.verdicts import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.policy import Policy
    from coatcheck.engine.session import Session
    from engine.shuffled_loop import SteppedLoop

MOST_ROUNDS = 1_000


class World(RecordedUpstream):
    """A cache on a loop of its own, and the record of what happened to it."""

    def __init__(
        self,
        loop: SteppedLoop,
        *,
        limits: Limits | None = None,
        policies: dict[str, Policy] | None = None,
        gated_connect: bool = False,
    ) -> None:
        super().__init__(loop, gated_connect=gated_connect)
        loop.set_exception_handler(lambda _, context: self.complaints.append(f"the loop was told: {context}"))
        self.limits = Limits() if limits is None else limits
        self.catalog = make_catalog()
        self.resources: dict[str, Resource[Any]] = {resource.name: resource for resource in self.catalog}
        self.cache = SessionCache(
            self.catalog,
            connect=self.connect,
            limits=self.limits,
            clock=self.clock,
            rng=random.Random(0),
        )
        # Handles outlive clears, so those that were made once are used on.
        self.handles: dict[str, Session] = {}
        self.judge = Judge(self.record)
        self.record.policies = {
            resource.name: [Change(0, 0.0, resource.policy)]
            for resource in self.catalog
            if not resource.derived
        }
        self._work: list[asyncio.Task[Any]] = []
        self._unjudged: list[Get] = []
        self._demanding = False
        # Off when a test asks the cache past `get()`.
        self.counting = True
        for name, chosen in (policies or {}).items():
            self.set_policy(name, chosen)

    def check(self) -> None:
        """Judge every get that has ended since, and raise the first complaint.

        Raises:
            AssertionError: something was not as promised.
        """
        while self._unjudged:
            get = self._unjudged.pop(0)
            try:
                self.judge.judge(get)
            except AssertionError as error:
                error.add_note(repr(get))
                raise
        assert not self.complaints, self.complaints[0]

    # -- what callers do ------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run what is expected not to fail."""
        task = self.loop.create_task(work)
        self._work.append(task)
        return task

    def soon(self, chance: random.Random, *steps: Callable[[], object]) -> None:
        """Do each of *steps* some turns from now."""
        for step in steps:
            self._in_turns(chance.randrange(8), step)

    def _in_turns(self, number: int, step: Callable[[], object]) -> None:
        if number == 0:
            self.loop.call_soon(step)
        else:
            self.loop.call_soon(self._in_turns, number - 1, step)

    def get(
        self, user: str, resource: str, *, force: bool = False, deep: bool = False, max_age: float | None = None,
        looks: bool = True, **passed: Any,
    ) -> Get:  # fmt: skip
        """Begin a caller's get."""
        get = Get(user, resource, force=force, deep=deep, max_age=max_age, passed=passed, looks=looks)
        get.task = self.loop.create_task(self._ask(get))
        self.record.gets.append(get)
        return get

    def handle(self, user: str) -> Session:
        if user not in self.handles:
            self.handles[user] = self.cache.session(user)
        return self.handles[user]

    def cancel(self, get: Get) -> None:
        if get.pending:
            get.cancelled = True
            get.task.cancel()

    def peek(self, user: str, resource: str) -> None:
        """Look into memory as a thread without a loop would, and judge what is seen like a hit."""
        get = Get(user, resource, force=False, deep=False, max_age=None, passed={}, looks=True)
        before = tuple(self.cache.users())
        get.invoked, get.invoked_at, get.rested = self.record.next(), self.clock.now, self.record.rested
        get.look = self.handle(user).peek(self.resources[resource])
        get.returned, get.returned_at = self.record.next(), self.clock.now
        assert self.cache.users() == before, "a look made a session"
        if get.look is not None:
            assert get.look.outcome is Outcome.HIT
            get.value = get.look.value
            self.judge.judge(get)

    async def clear(self, user: str) -> None:
        begun = self.record.next()
        await self.cache.clear(user)
        self.record.clears.append((user, begun, self.record.next()))
        self.quiet_since[user] = begun

    async def clear_all(self) -> None:
        begun = self.record.next()
        await self.cache.clear_all()
        done = self.record.next()
        for user in USERS:
            self.record.clears.append((user, begun, done))
            self.quiet_since[user] = begun

    async def invalidate(self, user: str | None, resource: str, **passed: Any) -> None:
        begun = self.record.next()
        chosen = self.resources[resource]
        if user is None:
            await self.cache.invalidate(chosen)
        else:
            await self.handle(user).invalidate(chosen, **passed)
        done = self.record.next()
        named: tuple[str, tuple[Any, ...] | None]
        if resource == "page" and passed:
            named = ("page", (passed["number"], passed.get("region", "eu")))
        else:
            named = (resource, None)
        for each in USERS if user is None else (user,):
            below = {"number": ("account",), "card": ("page", "notes")}.get(resource, (named[0],))
            self.record.floors.extend((each, name, named[1], begun, done) for name in below)

    async def put(self, user: str, resource: str, content: int = 1, **passed: Any) -> None:
        """Put a value under arguments that need no load."""
        self.quiet_since.pop(user, None)
        given = (
            {"number": passed["number"], "region": passed.get("region", "eu")}
            if resource == "page"
            else passed
        )
        load = Load(self.record.next_serial(), user, resource, given, None, at=0, now=0.0)
        value = self.content(load, content)
        if isinstance(value, Body):
            value = msgspec.json.decode(value.content, type=Page if resource == "page" else Account)
            load.body = msgspec.json.encode(value)
        begun = self.record.next()
        await self.handle(user).put(self.resources[resource], value, **passed)
        if isinstance(value, dict):
            value.clear()
        # Nothing ran between the storing and here.
        load.called = load.ended = self.record.next()
        load.called_at = load.ended_at = self.clock.now
        load.kind = PUT
        self.record.loads[load.serial] = load
        self.record.floors.append((*load.key, begun, load.called))

    def set_policy(self, resource: str, chosen: Policy) -> None:
        self.check()
        self.record.policies[resource].append(Change(self.record.next(), self.clock.now, chosen))
        self.cache.set_policy(self.resources[resource], chosen)

    def busy(self) -> bool:
        """Whether some work that a test began has not ended; what has must not have failed."""
        for task in self._work:
            if task.done():
                task.result()
        self._work = [task for task in self._work if not task.done()]
        return bool(self._work)

    async def _ask(self, get: Get) -> None:
        get.invoked, get.invoked_at, get.rested = self.record.next(), self.clock.now, self.record.rested
        self.quiet_since.pop(get.user, None)
        self._demanding = self._demanding or get.force or get.max_age is not None
        options: dict[str, Any] = dict(get.passed)
        if get.force:
            options.update(force_refresh=True, deep=get.deep)
        if get.max_age is not None:
            options["max_age"] = timedelta(seconds=get.max_age)
        session = self.handle(get.user)
        try:
            if get.looks:
                get.look = await session.lookup(self.resources[get.resource], **options)
                get.value = get.look.value
            else:
                get.value = await session.get(self.resources[get.resource], **options)
        except BaseException as error:
            get.error = error
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            get.returned, get.returned_at = self.record.next(), self.clock.now
            self._unjudged.append(get)

    # -- taking steps ---------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Run until nothing is ready, and check all."""
        self.loop.drain()
        self.at_rest()

    def answer_all(self, kind: str = OK, number: int = 1) -> None:
        """Let every log-in succeed and every load end alike, until none is left."""
        for _ in range(MOST_ROUNDS):
            self.drain()
            if not self.connecting() and not self.record.waiting():
                return
            for connection in self.connecting():
                self.finish_connect(connection)
            self.finish_those(kind=kind, number=number)
        raise AssertionError("loads begin without end")

    def held(self, user: str, *resources: str, number: int = 1) -> None:
        """Have these loaded and held."""
        for resource in resources:
            self.get(user, resource)
        self.answer_all(number=number)

    def one(self, resource: str) -> Load:
        """Return the one load of *resource* that waits to be ended."""
        [load] = [load for load in self.record.waiting() if load.resource == resource]
        return load

    def wait_for(self, resource: str) -> Load:
        """Let other loads end well until one of *resource* runs; return it."""
        for _ in range(MOST_ROUNDS):
            self.drain()
            found = [load for load in self.record.waiting() if load.resource == resource]
            if found:
                return found[-1]
            for connection in self.connecting():
                self.finish_connect(connection)
            self.finish_those()
        raise AssertionError(f"no load of {resource} begins")

    # -- verdicts on the whole ------------------------------------------------------------------------------------

    def at_rest(self) -> None:
        """Check what holds whenever nothing is ready to run.

        Raises:
            AssertionError: it does not.
        """
        self.record.rested = self.record.next()
        self.check()
        running = self.record.running()
        if not running and not self.connecting():
            for get in self.record.gets:
                assert not get.pending, f"{get} waits for nothing"
            assert not self.busy(), "a caller waits for nothing"
        for load in running:
            assert load.api is not None
            assert load.api.closed == 0, f"{load} runs on a closed connection"
        self._check_single_flight(running)
        assert len(running) <= self.limits.max_loads
        for api in {load.api for load in running if load.api is not None}:
            assert sum(load.api is api for load in running) <= self.limits.max_loads_per_user
        audit(self.cache, self.clock.now)

    def _check_single_flight(self, running: list[Load]) -> None:
        by_key: dict[tuple[Any, ...], list[Load]] = {}
        for load in running:
            if not self._below_floor(load):
                by_key.setdefault(load.key, []).append(load)
        for loads in by_key.values():
            assert len(loads) <= (2 if self._demanding else 1), f"side by side: {loads}"

    def _below_floor(self, load: Load) -> bool:
        """Whether a running load is one that nobody can join any more."""
        user, resource, arguments = load.key
        return (
            any(each == user and done > load.called for each, _, done in self.record.clears)
            or any(
                (each, name) == (user, resource) and asked in (None, arguments) and done > load.called
                for each, name, asked, _, done in self.record.floors
            )
            or any(
                each.key == load.key and each.called > load.called and each.ended
                for each in self.record.loads.values()
            )
            or any(
                refused.user == user
                and (resource in DEPENDS and refused.resource in DEPENDS[resource])
                and (refused.ended or 0) > load.called
                for refused in self.record.refusals
            )
        )

    def finale(self) -> None:
        """End everything in order and check that nothing is left: no load, no task, no byte, no count.

        Raises:
            AssertionError: something is.
        """
        try:
            self.answer_all()
            for get in self.record.gets:
                assert not get.pending, f"{get} never ended"
            if self.counting:
                self._check_counts()
            left = [task for task in asyncio.all_tasks(self.loop) if not is_sweep(task)]
            assert not left, f"tasks left: {left}"
            assert not self.cache._loads._flights
            assert self.cache._refresher._running == 0
            for state in self.cache._sessions.states.values():
                assert state.at_rest(), f"{state} is not at rest"
                assert state.flights is None
                assert state.gate is None
            assert self.cache._loads._slots._free == self.limits.max_loads
            assert len(self.cache.users()) <= self.limits.max_sessions
        finally:
            self.close()
        self.check()
        for api in self.apis:
            assert api.closed == 1, f"a connection of {api.user!r} was closed {api.closed} times"

    def close(self) -> None:
        """Close the cache and the loop, whatever has happened."""
        loop = self.loop
        try:
            for load in self.record.waiting():
                load.stubborn = False
                self.finish(load)
            closing = loop.create_task(self.cache.aclose())
            loop.drain()
            closing.result()
            left = asyncio.all_tasks(loop)
            assert not left, f"tasks left after the close: {left}"
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.drain()
            loop.close()
            # The collector does not look into handles: one in a circle with its cache would keep both for ever, and so
            # would one in the frame of a traceback.
            self.handles.clear()
            for get in self.record.gets:
                if get.error is not None:
                    get.error.with_traceback(None)

    def _check_counts(self) -> None:
        # Straight from the ledger: `stats()` also works out quantiles, which takes longer than many a whole example.
        ledger = self.cache._ledger
        assert ledger.abandoned == 0
        ended = [get for get in self.record.gets if get.returned is not None]
        for name, resource in self.resources.items():
            tally = ledger.tallies[resource.index]
            shown = gets_of(resource, ledger, ledger.hits[resource.mark], tally.counts)
            mine = [get for get in ended if get.resource == name]
            told = f"{name}: {shown}, loads by cause {tally.causes}, by end {tally.ends}"
            assert shown.gets == len(mine), told
            assert shown.gets == (
                shown.hits
                + shown.stale_hits
                + shown.coalesced
                + shown.misses
                + shown.failed
                + shown.cancelled
            )
            cancelled = sum(isinstance(get.error, asyncio.CancelledError) for get in mine)
            failed = sum(get.error is not None for get in mine) - cancelled
            assert (shown.cancelled, shown.failed) == (cancelled, failed), told
            if all(get.looks for get in mine):
                outcomes = [get.look.outcome for get in mine if get.look is not None]
                assert [shown.hits, shown.stale_hits, shown.coalesced, shown.misses] == [
                    outcomes.count(outcome)
                    for outcome in (Outcome.HIT, Outcome.STALE_HIT, Outcome.COALESCED, Outcome.MISS)
                ], told
            loads = sum(load.resource == name and load.kind != PUT for load in self.record.loads.values())
            assert shown.loads == loads == sum(tally.causes), told
            assert tally.loading == 0, told
            assert sum(tally.ends) == loads, told
            assert tally.causes[Cause.GET] <= shown.gets - shown.hits - shown.coalesced, told
            assert shown.calls_saved == sum(map(cost_of, answered(mine))) - loads, told


def is_sweep(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task is the one that a cache keeps for as long as it lives."""
    return str(getattr(task.get_coro(), "__qualname__", "")).endswith("_sweep")


def answered(gets: Iterable[Get]) -> list[Get]:
    """Return the gets that were given a value."""
    return [get for get in gets if get.error is None]


def cost_of(get: Get) -> int:
    """Return what a get would have cost without a cache."""
    if get.resource == "page" and "number" in get.passed:
        return 1
    if get.resource == "digest" and get.passed:
        # An account that is passed leaves the number to be resolved, and the other way round.
        return 1 if len(get.passed) == 2 else 2
    return 1 if get.resource == "rows" and get.passed else SAVES_ONE[get.resource]
