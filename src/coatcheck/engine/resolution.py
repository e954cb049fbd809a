"""Gets resolved at home, where loads are: through what a resource depends on to an entry, held or to be loaded."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from coatcheck.engine.connections import retrieve
from coatcheck.engine.entry import Alias, Entry, Outcome
from coatcheck.engine.events import RefusalServed
from coatcheck.engine.flight import ANY, NOT_YET_BEGUN, Flight, own_copy
from coatcheck.engine.loads import running_chain
from coatcheck.engine.policy import Freshness, expiry, judge, may_hide
from coatcheck.engine.stats import Cause
from coatcheck.engine.walk import derived, key_of, value_of
from coatcheck.errors import ReentrantLoad, Refused

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping

    from coatcheck.clock import Clock
    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.events import Tell
    from coatcheck.engine.home import Home
    from coatcheck.engine.loads import Loads
    from coatcheck.engine.persistence import Persistence
    from coatcheck.engine.policy import Rule
    from coatcheck.engine.refresh import Refresher
    from coatcheck.engine.sessions import Sessions
    from coatcheck.engine.state import State
    from coatcheck.engine.walk import Slot


class Request(NamedTuple):
    """What one get asks for.

    Attributes:
        force: accept no load whose loader had been called before this get.
        deep: the same for what the resource depends on.
        max_age: accept nothing older, in seconds.
        passed: the caller's arguments, by name.
    """

    force: bool = False
    deep: bool = False
    max_age: float | None = None
    passed: Mapping[str, object] = {}

    def __repr__(self) -> str:
        return "<request>"

    def plain(self) -> bool:
        """Tell whether whatever is fresh will do."""
        return not self.force and self.max_age is None

    def young(self, entry: Entry, now: float) -> bool:
        """Tell whether the caller accepts an entry of that age."""
        return self.max_age is None or now - entry.started <= self.max_age

    def accepts(self, entry: Entry, now: float) -> bool:
        """Tell whether the caller accepts an entry that was held before."""
        return not self.force and self.young(entry, now)


PLAIN = Request()


class Call:
    """One caller's get under way: what it has had to do so far.

    Attributes:
        led: it began a load.
        joined: it joined one.
        stale: something that it was served is past its ttl.
        memo: dependencies on the way, so that one get resolves each only once; apart, those of which more is asked
            than that they be fresh.
    """

    __slots__ = ("joined", "led", "memo", "request", "stale", "state")

    def __init__(self, state: State, request: Request) -> None:
        self.state = state
        self.request = request
        self.led = False
        self.joined = False
        self.stale = False
        self.memo: dict[tuple[int, bool], asyncio.Task[Slot]] = {}

    def end(self) -> None:
        """Leave what is still on the way to itself; loads that have begun go on."""
        for task in self.memo.values():
            task.add_done_callback(retrieve)
            task.cancel()

    def outcome(self) -> Outcome:
        """Return how the get was answered."""
        if self.stale:
            return Outcome.STALE_HIT
        if self.led:
            return Outcome.MISS
        return Outcome.COALESCED if self.joined else Outcome.HIT


class Resolver:
    """Resolves gets of one cache."""

    def __init__(
        self, *, sessions: Sessions, loads: Loads, refresher: Refresher, home: Home, rules: list[Rule], clock: Clock, tell: Tell, keeping: bool, persistence: Persistence | None,
    ) -> None:  # fmt: skip
        self._persistence = persistence
        self._sessions = sessions
        self._loads = loads
        self._refresher = refresher
        self._home = home
        self._rules = rules
        self._clock = clock
        self._tell = tell
        self._keeping = keeping

    # -- at home, with loads ----------------------------------------------------------------------------------------

    async def answer(self, user: str, resource: Resource[Any], request: Request) -> tuple[Call, Slot]:
        """Answer one caller's get. It is counted by who hands it over: a home that ends may leave that to another."""
        with self.calling(user, request) as call:
            await self.restore(call.state)
            return call, await self._reach(call, resource, request, leaf=True)

    def join(self, user: str, resource: Resource[Any]) -> Flight | None:
        """Return the load that a plain get has only to wait for: at home, what a crowd finds that asks for one cold entry.

        Nothing if there is anything else to it, the resource being none of ours included. That load keeps the session
        from being evicted.

        Raises:
            ForkedCache: this is a forked child.
        """
        state = self._sessions.states.get(user)
        flights = None if state is None else state.flights
        if state is None or flights is None or getattr(resource, "parameters", True):
            return None
        home = self._home
        home.check_process()
        # A step, but for what entering one costs: of a crowd everyone comes by here before the load has even begun.
        with home.lock:
            if state.flights is not flights or state.refusals is not None or not home.is_here():
                return None
            flight = flights.to_join(resource.key)
            if flight is None or state.closed or state.entry(resource.key) is not None or running_chain():
                return None
            state.use(self._clock.monotonic())
            if flight.ticket.background:
                flight.ticket.hasten()
            return flight

    async def joined(self, flight: Flight) -> tuple[Call, Slot]:
        """Return what a load brought that `join()` returned, once it has landed; of one that failed, what may hide that."""
        call = Call(flight.state, PLAIN)
        call.joined = True
        return call, self._leaf(flight.resource, await self._landing(call, flight, PLAIN), math.inf)

    async def restore(self, state: State) -> None:
        """Bring what is stored of a session into memory, once."""
        if self._persistence is not None and self._keeping:
            await self._persistence.restore(state)

    @contextlib.contextmanager
    def calling(self, user: str, request: Request) -> Iterator[Call]:
        """Open the user's session for one call, and keep it from being evicted between two loads of that call."""
        with self._home.step:
            now = self._clock.monotonic()
            state = self._sessions.open(user, now)
            state.use(now)
            caller = self._loads.enter(state)
        call = Call(state, request)
        try:
            yield call
        finally:
            call.end()
            self._loads.leave(state, caller)

    async def arguments(
        self, call: Call, resource: Resource[Any], request: Request
    ) -> tuple[list[object], list[Slot]]:
        """Return the loader's arguments in declared order, and what those that were not passed were resolved to."""
        if not resource.parameters:
            return [], []
        # What is asked of a derived resource is asked of what it is derived from.
        inherited = request._replace(passed={}) if resource.derived or request.deep else PLAIN
        wanted = [
            parameter.dependency
            for parameter in resource.parameters
            if parameter.dependency is not None and parameter.name not in request.passed
        ]
        reached = await self._reach_all(call, wanted, inherited)
        values: list[object] = []
        for parameter in resource.parameters:
            if parameter.name in request.passed:
                values.append(request.passed[parameter.name])
            elif parameter.dependency is None:
                values.append(parameter.value_of_default(resource.name))
            else:
                values.append(value_of(parameter.dependency, reached[parameter.dependency.index]))
        return values, list(reached.values())

    async def _reach(self, call: Call, resource: Resource[Any], request: Request, *, leaf: bool) -> Slot:
        values, parents = await self.arguments(call, resource, request)
        expires = min((parent.expires for parent in parents), default=math.inf)
        if resource.derived:
            started = min((parent.started for parent in parents), default=self._clock.monotonic())
            return derived(resource, values, started=started, expires=expires)
        entry = await self._obtain(call, resource, values, request, leaf=leaf)
        return self._leaf(resource, entry, expires)

    def _leaf(self, resource: Resource[Any], entry: Entry, expires: float) -> Alias:
        own = expiry(self._rules[resource.index], entry.started)
        return Alias(value=entry.value, body=entry.body, started=entry.started, expires=min(expires, own))

    async def _reach_all(self, call: Call, wanted: list[Resource[Any]], request: Request) -> dict[int, Slot]:
        if not wanted:
            return {}
        if len(wanted) == 1 and not call.memo:
            # The usual chain needs no task of its own for each link.
            return {wanted[0].index: await self._reach(call, wanted[0], request, leaf=False)}
        plain = request.plain()
        for resource in wanted:
            if (resource.index, plain) not in call.memo:
                call.memo[resource.index, plain] = asyncio.create_task(
                    self._reach(call, resource, request, leaf=False)
                )
        tasks = {resource.index: call.memo[resource.index, plain] for resource in wanted}
        await first_error(list(tasks.values()))
        return {index: task.result() for index, task in tasks.items()}

    async def _obtain(
        self, call: Call, resource: Resource[Any], values: list[object], request: Request, *, leaf: bool
    ) -> Entry:
        state = call.state
        key = key_of(resource, values)
        now = self._clock.monotonic()
        rule = self._rules[resource.index]
        entry = state.entry(key)
        freshness = Freshness.DEAD if entry is None else judge(rule, entry.started, entry.jitter, now)
        if entry is not None and request.accepts(entry, now):
            if freshness in (Freshness.FRESH, Freshness.AGEING):
                if freshness is Freshness.AGEING:
                    self._refresher.ahead(state, resource, key, tuple(values), now)
                return entry
            if freshness is Freshness.STALE and now < state.retry_at(key):
                call.stale = True
                return entry
        self._check_reentry(state, key, resource)
        self._check_refusals(state, resource, key, request, now)
        with self._home.step:
            flight = self._join_or_lead(call, resource, key, values, request, now, leaf=leaf)
        if freshness is Freshness.STALE and rule.soft_timeout is not None and not request.force:
            waited = now - flight.started if flight.called else 0.0
            if not await self._ends_within(flight, rule.soft_timeout - waited):
                held = self._servable(call, resource, key, request)
                if held is not None:
                    return held
        return await self._landing(call, flight, request)

    def _join_or_lead(
        self, call: Call, resource: Resource[Any], key: str, values: list[object], request: Request, now: float, *,
        leaf: bool,
    ) -> Flight:  # fmt: skip
        since = ANY
        if request.force:
            since = NOT_YET_BEGUN
        elif request.max_age is not None:
            since = now - request.max_age
        flight = None
        if self._keeping and call.state.flights is not None:
            flight = call.state.flights.to_join(key, since)
        if flight is not None:
            call.joined = True
            flight.ticket.hasten()
            if call.state.flights is not None and running_chain():
                call.state.flights.excuse(key)
            return flight
        cause = Cause.FORCE if request.force else Cause.GET if leaf else Cause.DEPENDENCY
        flight = self._loads.launch(
            call.state, resource, key, tuple(values), cause=cause, forced=since is not ANY
        )  # fmt: skip
        call.led = True
        if call.state.flights is not None and flight.inside:
            call.state.flights.excuse(key)
        return flight

    async def _landing(self, call: Call, flight: Flight, request: Request) -> Entry:
        """Return what a load brings; when it fails, the held entry, if one may hide that failure."""
        result = await flight.landing()
        if isinstance(result, Entry):
            return result
        held = None
        if isinstance(result.error, Refused) and self._persistence is not None:
            # Who is told of it may rely on it: it does not come back by a crash either.
            await self._persistence.caught_up(call.state)
        if not request.force and may_hide(result.error):
            held = self._servable(call, flight.resource, flight.key, request)
        if held is None:
            raise own_copy(result.error)
        return held

    async def _ends_within(self, flight: Flight, patience: float) -> bool:
        """Wait for a load no longer than *patience* seconds, and tell whether it has ended."""
        if not flight.landed.done() and patience > 0:
            timer = asyncio.create_task(self._clock.sleep(patience))
            try:
                waited_for: set[asyncio.Future[Any]] = {flight.landed, timer}
                await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
        return flight.landed.done()

    def _servable(self, call: Call, resource: Resource[Any], key: str, request: Request) -> Entry | None:
        """Return the held entry in place of a failure or of further waiting, if it may be served still."""
        now = self._clock.monotonic()
        entry = call.state.entry(key)
        if entry is None or not request.young(entry, now):
            return None
        freshness = judge(self._rules[resource.index], entry.started, entry.jitter, now)
        if freshness is Freshness.DEAD:
            return None
        call.stale = call.stale or freshness is Freshness.STALE
        return entry

    def _check_refusals(
        self, state: State, resource: Resource[Any], key: str, request: Request, now: float
    ) -> None:
        if state.refusals is None or request.force:
            return
        known = state.refusals.get(key)
        if known is not None and now < known[1]:
            refusal = type(known[0]).__name__
            self._tell(state.user, lambda pseudonym: RefusalServed(resource.name, refusal, pseudonym))
            raise own_copy(known[0])

    def _check_reentry(self, state: State, key: str, resource: Resource[Any]) -> None:
        if any(flight.state is state and flight.key == key for flight in running_chain()):
            raise ReentrantLoad(
                f"{resource.name}: its loader asked for what it is loading; use another resource"
            )


async def first_error(tasks: list[asyncio.Task[Any]]) -> None:
    """Wait for all; when one fails, raise its error at once. The others go on."""
    if not tasks:
        return
    await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        if task.done() and not task.cancelled():
            error = task.exception()
            if error is not None:
                raise error


async def side_by_side(work: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run all at once and return their results in order; when one fails, the others are cancelled."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await first_error(tasks)
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        # Let them end here, not after the caller has gone on.
        await asyncio.gather(*tasks, return_exceptions=True)
