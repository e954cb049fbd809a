"""Runs loads: at home, in an empty context, within the slots and to the deadline; then keeps what may be kept."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from typing import TYPE_CHECKING, Any, TypeVar, cast

from coatcheck.attempts import Attempts, attempts
from coatcheck.engine.connections import Connections, end_of_session
from coatcheck.engine.entry import PER_CALLER, Entry
from coatcheck.engine.events import LoadEnded
from coatcheck.engine.flight import Failed, Flight, own_copy
from coatcheck.engine.home import HomeEnded, tell
from coatcheck.engine.policy import JITTER_STEPS, expiry, may_hide
from coatcheck.engine.slots import Pace, Slots
from coatcheck.engine.stats import Cause, Count, End, Removal
from coatcheck.errors import CacheClosed, LoaderBroke, LoadTimeout, Refused

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Coroutine

    from coatcheck.clock import Clock
    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.events import Tell
    from coatcheck.engine.home import Home
    from coatcheck.engine.limits import Limits
    from coatcheck.engine.policy import Rule
    from coatcheck.engine.sessions import Sessions
    from coatcheck.engine.slots import Gate, Ticket
    from coatcheck.engine.state import State
    from coatcheck.engine.stats import Ledger

T = TypeVar("T")

chain_of_loads: contextvars.ContextVar[tuple[Flight, ...]] = contextvars.ContextVar(
    "coatcheck.chain_of_loads", default=()
)
"""The loads that the current task was begun inside of."""


class Permit:
    """The slots that one load occupies: first its user's, then one of all. Given back once, by whoever comes first."""

    def __init__(self, *gates: Gate, ticket: Ticket) -> None:
        self._gates = gates
        self._ticket = ticket
        self._held: list[Gate] = []
        self._returned = False

    async def take(self) -> None:
        """Wait for the slots: in order of arrival, background loads after those that callers wait for."""
        for gate in self._gates:
            taken = await gate.take(self._ticket)
            if taken:
                self._held.append(gate)
            if self._returned:
                self.give_back()
                raise asyncio.CancelledError

    def give_back(self) -> None:
        """Free the slots, also under a loader that has not ended."""
        self._returned = True
        while self._held:
            self._held.pop().give_back()


class Loads:
    """The loads of one cache."""

    def __init__(
        self, *, sessions: Sessions, home: Home, connect: Callable[[str], Any], rules: list[Rule], limits: Limits,
        ledger: Ledger, clock: Clock, rng: random.Random, tell: Tell, keeping: bool,
    ) -> None:  # fmt: skip
        self._sessions = sessions
        self._home = home
        self._rules = rules
        self._limits = limits
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._tell = tell
        self._keeping = keeping
        self._flights: set[Flight] = set()
        self._callers: set[object] = set()
        # The loop itself keeps only weak references to tasks.
        self._tasks: set[asyncio.Task[Any]] = set()
        # What lets time pass until another load may begin, and what was given up and has not ended: waited for by nobody.
        self._timers: set[asyncio.Task[Any]] = set()
        self._abandoned: set[asyncio.Future[Any]] = set()
        self._connections = Connections(
            home=home,
            connect=connect,
            clock=clock,
            spawn=self.spawn,
            begin=self._spawn_inside,
            disown=self._disown,
        )
        self._slots: Slots
        self._pace: Pace | None
        self._open_gates()

    def launch(
        self,
        state: State,
        resource: Resource[Any],
        key: str,
        values: tuple[object, ...],
        *,
        cause: Cause,
        forced: bool,
    ) -> Flight:
        """Begin a load, or queue it behind a forced one of the same key. Within a step.

        Raises:
            SessionCleared: the state is closed.
            CacheClosed: with the whole cache.
        """
        if state.closed:
            raise end_of_session(self._home)
        flight = Flight(key, state=state, resource=resource, values=values, cause=cause, forced=forced)
        # What began in the background is no part of the load inside of which it happened to begin.
        if cause is not Cause.REFRESH:
            flight.inside = running_chain()
        flight.landed = self._home.loop.create_future()
        state.loading += 1
        self._flights.add(flight)
        if not self._keeping or state.flying().admit(flight):
            self._start(flight)
        return flight

    def begin(self, flights: list[Flight]) -> None:
        """Start loads that had to wait for others of their key."""
        for flight in flights:
            if flight.state.closed:
                self._land(flight, Failed(end_of_session(self._home)))
            else:
                self._start(flight)

    def dismiss(self, state: State) -> None:
        """Close a closed session's connection once its loads have ended; fail those that have not begun."""
        if state.flights is not None:
            for flight in state.flights.all():
                if not flight.called:
                    self._land(flight, Failed(end_of_session(self._home)))
                    if flight.task is not None:
                        flight.task.cancel()
        self._connections.release(state)

    def enter(self, state: State) -> object:
        """Note that a caller is at work in a session, as if it were a load; return what stands for that caller."""
        caller = object()
        self._callers.add(caller)
        state.loading += 1
        return caller

    def leave(self, state: State, caller: object) -> None:
        """Note that this caller's work has ended; does nothing when its loop is home no longer."""
        with self._home.lock:
            if caller in self._callers:
                self._callers.discard(caller)
                state.loading -= 1
                self._rest(state)

    async def lend(self, state: State, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do *work* with the session's connection, which stays open meanwhile, also across a clear.

        Raises:
            SessionCleared: the state was closed before the connection was there.
        """
        with self._home.step:
            if state.closed:
                raise end_of_session(self._home)
            caller = self.enter(state)
        try:
            api = await self._connections.in_time(state)
            if state.closed:
                raise end_of_session(self._home)
            return await work(api)
        finally:
            self.leave(state, caller)

    def spawn(self, work: Any, *, inside: tuple[Flight, ...] = ()) -> asyncio.Task[Any]:
        """Run *work* as a task that this cache owns, in a context that is empty but for the loads that it is inside of."""
        context = contextvars.Context()
        context.run(chain_of_loads.set, inside)
        task = self._home.loop.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _spawn_inside(self, work: Any) -> asyncio.Task[Any]:
        """Do the same as a part of the loads that the caller runs inside of: they hold the slots for it."""
        return self.spawn(work, inside=running_chain())

    def _disown(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)

    async def settled(self) -> None:
        """Return when no load and no closing of a connection is under way."""
        while True:
            with self._home.step:
                tasks = list(self._tasks)
            if not tasks:
                return
            await asyncio.wait(tasks)

    def abort(self) -> None:
        """Cancel every load: the cache closes, or its loop ends."""
        for timer in self._timers:
            timer.cancel()
        for flight in list(self._flights):
            if flight.task is not None:
                flight.task.cancel()

    def abandon(self, states: list[State], former: asyncio.AbstractEventLoop) -> None:
        """Forget the loads and connections of a loop that has ended. Should it run again, they end then."""
        for flight in self._flights:
            if flight.called:
                tally = self._ledger.tallies[flight.resource.index]
                tally.loading -= 1
                tally.ends[End.FAILED] += 1
            tell(former, functools.partial(_abandon, flight))
        self._flights = set()
        for timer in self._timers:
            tell(former, timer.cancel)
        self._callers = set()
        self._tasks = set()
        self._timers = set()
        self._open_gates()
        for state in states:
            state.flights = None
            state.gate = None
            state.connection = None
            state.loading = 0

    def _start(self, flight: Flight) -> None:
        flight.task = self.spawn(self._run(flight), inside=(*flight.inside, flight))

    async def _run(self, flight: Flight) -> None:
        with self._home.lock:
            permit = self._permit(flight)
        seconds = self._rules[flight.resource.index].deadline
        attempts.set(Attempts(deadline=self._clock.monotonic() + seconds))
        loading = asyncio.create_task(self._load(flight, permit))
        deadline = asyncio.create_task(self._clock.sleep(seconds))
        result: Entry | Failed
        late = False
        try:
            await asyncio.wait({loading, deadline}, return_when=asyncio.FIRST_COMPLETED)
            if loading.cancelled():
                result = Failed(_broke(flight))
            elif loading.done():
                result = loading.result()
            else:
                late = True
                result = Failed(
                    LoadTimeout(f"{flight.resource.name}: the load did not end before its deadline")
                )
        except asyncio.CancelledError:
            closed = self._home.closed
            result = Failed(CacheClosed("the cache was closed during this load") if closed else HomeEnded())
        # Not in a finally: when a loop is closed under its tasks there is nothing left to cancel them on.
        deadline.cancel()
        permit.give_back()
        if not loading.done():
            self._let_go(flight, loading)
        self._land(flight, result, late=late)

    def _permit(self, flight: Flight) -> Permit:
        gates: list[Gate] = []
        # Of a load within another the parent holds slots already; waiting for more could be waiting for itself.
        if not flight.inside and flight in self._flights:
            state: State = flight.state
            if state.gate is None:
                state.gate = Slots(self._limits.max_loads_per_user)
            gates += [state.gate, self._slots]
        if self._pace is not None:
            gates.append(self._pace)
        return Permit(*gates, ticket=flight.ticket)

    def _open_gates(self) -> None:
        self._slots = Slots(self._limits.max_loads)
        pace = self._limits.max_loads_per_second
        self._pace = None if pace is None else Pace(pace, clock=self._clock, spawn=self._time)

    def _time(self, work: Coroutine[None, None, None]) -> None:
        timer = self._home.loop.create_task(work, context=contextvars.Context())
        self._timers.add(timer)
        timer.add_done_callback(self._timers.discard)

    def _let_go(self, flight: Flight, loading: asyncio.Task[Entry | Failed]) -> None:
        loading.cancel()
        self._ledger.abandoned += 1
        self._abandoned.add(loading)
        loading.add_done_callback(self._ended_at_last)
        with self._home.lock:
            if flight in self._flights:
                self._connections.give_up(flight.state)

    def _ended_at_last(self, loading: asyncio.Task[Entry | Failed]) -> None:
        self._ledger.abandoned -= 1
        self._abandoned.discard(loading)

    async def _load(self, flight: Flight, permit: Permit) -> Entry | Failed:
        resource: Resource[Any] = flight.resource
        try:
            await permit.take()
            api = await self._connections.of(flight.state)
            with self._home.step:
                if flight.state.closed:
                    return Failed(end_of_session(self._home))
                self._note_begin(flight)
            arguments = {
                parameter.name: value
                for parameter, value in zip(resource.parameters, flight.values, strict=True)
            }
            body, value = resource.codec.accept(await resource.loader(api, **arguments))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return Failed(_broke(flight))
        except Exception as error:  # noqa: BLE001 - it is handed to those who wait for this load
            return Failed(error)
        except BaseException as error:  # noqa: BLE001 - let through, it would end the loop and everybody's loads
            return Failed(LoaderBroke(f"{resource.name}: the loader raised {type(error).__name__}"))
        return Entry(
            value=value if resource.codec.shared else PER_CALLER,
            body=body,
            started=flight.started,
            jitter=self._rng.randrange(JITTER_STEPS + 1),
        )

    def _note_begin(self, flight: Flight) -> None:
        flight.begin(self._clock.monotonic())
        index = flight.resource.index
        tally = self._ledger.tallies[index]
        tally.causes[flight.cause] += 1
        tally.counts[Count.LOADS] += 1
        tally.loading += 1
        flight.state.count(index, Count.LOADS)

    def _land(self, flight: Flight, result: Entry | Failed, *, late: bool = False) -> None:
        with self._home.lock:
            if flight in self._flights:
                self._take_in(flight, result, late=late)
            else:
                _give_up(flight)  # another loop is home

    def _take_in(self, flight: Flight, result: Entry | Failed, *, late: bool) -> None:
        self._flights.discard(flight)
        state: State = flight.state
        state.loading -= 1
        following = None if state.flights is None else state.flights.end(flight)
        try:
            end = self._settle(flight, result, late=late)
        except Exception as error:  # noqa: BLE001 - a foreign error may raise when it is asked for anything; all wait for this
            what = type(error).__name__
            result, end = (
                Failed(LoaderBroke(f"{flight.resource.name}: keeping its result met a {what}")),
                End.FAILED,
            )
        if flight.called:
            self._note_end(flight, result, end)
        if not flight.landed.done():
            flight.landed.set_result(result)
        if state.flights is not None and not state.flights:
            state.flights = None
        if following is not None:
            if isinstance(result, Failed) and isinstance(result.error, CacheClosed | HomeEnded):
                self._land(following, result)
            else:
                self.begin([following])
        self._rest(state)

    def _rest(self, state: State) -> None:
        if state.loading == 0:
            state.gate = None
            if state.closed:
                self.dismiss(state)
            # It may have been what kept its session when another had to make room.
            self._sessions.make_room()

    def _settle(self, flight: Flight, result: Entry | Failed, *, late: bool) -> End:
        state: State = flight.state
        if isinstance(result, Failed):
            if not (state.closed or isinstance(result.error, HomeEnded)):
                self._note_failure(flight, result.error)
            return End.LATE if late else End.FAILED
        if not self._keeping:
            return End.DISABLED
        if state.closed:
            return End.CLEARED
        if flight.overtaken:
            return End.OVERTAKEN
        self._sessions.keep(state, flight.resource, flight.key, result)
        return End.STORED

    def _note_failure(self, flight: Flight, error: BaseException) -> None:
        state: State = flight.state
        rule = self._rules[flight.resource.index]
        now = self._clock.monotonic()
        if flight.cause is Cause.REFRESH:
            self._ledger.tallies[flight.resource.index].refresh_failures += 1
        if flight.overtaken:
            self._note_late_refusal(flight, error)
            return
        if isinstance(error, Refused):
            due = self._sessions.drop(state, flight.resource, Removal.REFUSED, key=flight.key)
            try:
                if error.revokes_dependents:
                    due += self._sessions.revoke(state, flight.resource)
                if rule.negative_ttl > 0:
                    # Without the frames that it went through: they hold what the loader had in its hands.
                    known = cast("Refused", own_copy(error).with_traceback(None))
                    state.refusals = {**(state.refusals or {}), flight.key: (known, now + rule.negative_ttl)}
            finally:
                # Also if a foreign error raises when it is asked: others wait for these.
                self.begin(due)
            return
        entry = state.entry(flight.key)
        if entry is not None:
            retry_at = now + rule.throttle
            # What may not be hidden delays the next background load, but not one that a caller waits for.
            delayed = retry_at if may_hide(error) else min(retry_at, expiry(rule, entry.started))
            state.retries = {**(state.retries or {}), flight.key: delayed}

    def _note_late_refusal(self, flight: Flight, error: BaseException) -> None:
        """Drop what is held if a refusal is younger, though what is younger still will decide what comes in its place."""
        state: State = flight.state
        entry = state.entry(flight.key)
        if isinstance(error, Refused) and entry is not None and entry.started < flight.started:
            self._sessions.drop(state, flight.resource, Removal.REFUSED, key=flight.key, raise_floor=False)
            if error.revokes_dependents:
                self.begin(self._sessions.revoke(state, flight.resource))

    def _note_end(self, flight: Flight, result: Entry | Failed, end: End) -> None:
        tally = self._ledger.tallies[flight.resource.index]
        seconds = self._clock.monotonic() - flight.started
        tally.loading -= 1
        tally.ends[end] += 1
        tally.load_latency.record(seconds)
        error = result.error if isinstance(result, Failed) else None
        # A load that was called lands in its own context.
        sent = attempts.get()
        self._tell(
            flight.state.user,
            lambda pseudonym: LoadEnded(
                flight.resource.name,
                flight.cause,
                end,
                seconds,
                error=None if error is None else type(error).__name__,
                refused=isinstance(error, Refused),
                attempts=0 if sent is None else sent.made,
                ended=self._clock.wall(),
                pseudonym=pseudonym,
            ),
        )


def running_chain() -> tuple[Flight, ...]:
    """Return the loads that the current task runs inside of; what a loader has left running may outlive its load."""
    chain = chain_of_loads.get()
    return tuple(flight for flight in chain if not flight.landed.done()) if chain else chain


def _broke(flight: Flight) -> LoaderBroke:
    return LoaderBroke(f"{flight.resource.name}: the loader was cancelled from within")


def _abandon(flight: Flight) -> None:
    if flight.task is not None:
        flight.task.cancel()
    _give_up(flight)


def _give_up(flight: Flight) -> None:
    """Let those who still wait for it, on a loop that was home, ask the loop that is."""
    if not flight.landed.done():
        flight.landed.set_result(Failed(HomeEnded()))
