"""One cache after the other, a recorded upstream, perhaps a store, and a recorded history."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from coatcheck.engine.cache import SessionCache
from coatcheck.engine.codec import Body
from coatcheck.engine.entry import Outcome
from coatcheck.engine.guarded import LONGEST_PAUSE
from coatcheck.engine.limits import Limits
from coatcheck.engine.stats import Cause, Removal, gets_of
from coatcheck.engine.store import Owner
from coatcheck.errors import CacheClosed
from engine.audit import audit
from engine.invariants import check_in_step
from engine.record import Change, Get, Load
from engine.recorded_catalog import DEPENDS, OK, PUT, SAVES_ONE, USERS, Account, Page, make_catalog
from engine.recorded_store import Line
from engine.recorded_upstream import RecordedUpstream
from engine.verdicts import Judge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator

    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.policy import Policy
    from coatcheck.engine.session import Session
    from engine.hand_clock import HandClock
    from engine.recorded_store import Disk
    from engine.shuffled_loop import SteppedLoop

    MakeDisk = Callable[[HandClock], Disk]

T = TypeVar("T")

MOST_ROUNDS = 1_000

PAUSES = 8
"""The longest pauses of what had failed that may pass before it is used again."""


class World(RecordedUpstream):
    """A cache on a loop of its own, and the record of what happened to it.

    Attributes:
        line: leads from the cache to its store; None without one.
    """

    def __init__(
        self,
        loop: SteppedLoop,
        *,
        limits: Limits | None = None,
        policies: dict[str, Policy] | None = None,
        gated_connect: bool = False,
        disk: MakeDisk | None = None,
    ) -> None:
        super().__init__(loop, gated_connect=gated_connect)
        loop.set_exception_handler(lambda _, context: self.complaints.append(f"the loop was told: {context}"))
        self.limits = Limits() if limits is None else limits
        self.catalog = make_catalog()
        self.resources: dict[str, Resource[Any]] = {resource.name: resource for resource in self.catalog}
        # Handles outlive clears, so those that were made once are used on.
        self.handles: dict[str, Session] = {}
        self.judge = Judge(self.record, stored=disk is not None)
        self.disk = None if disk is None else disk(self.clock)
        self.line: Line | None = None
        self._late: list[asyncio.Task[Any]] = []
        self._ended_since_rest: list[tuple[str, int]] = []
        self.cache = self._start()
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
        if self.line is not None:
            self.record.read_for = self.line.read_for
            self.record.ending = self._ended_since_rest
        while self._unjudged:
            get = self._unjudged.pop(0)
            try:
                self.judge.judge(get)
            except AssertionError as error:
                error.add_note(repr(get))
                raise
        assert not self.complaints, self.complaints[0]

    # -- the store ------------------------------------------------------------------------------------------------

    def _start(self) -> SessionCache[Any]:
        store: Line | None = None
        if self.disk is not None:
            store = self.line = Line(
                self.disk.start(), self.clock, read_for=self.record.read_for, ended=self._note_end
            )
        cache = SessionCache(
            self.catalog,
            connect=self.connect,
            store=store,
            authority=lambda _: self.authority,
            limits=self.limits,
            clock=self.clock,
            rng=random.Random(0),
        )
        # Loads are cancelled in the order of a set, which is that of their addresses: another one in each run.
        cache._loads._flights = InOrder()
        return cache

    @property
    def notices_set_back(self) -> bool:
        """Whether a wall clock set back between two nodes is noticed."""
        return self.disk is not None and self.disk.keeps_dates

    @property
    def beneath(self) -> Line:
        assert self.line is not None
        return self.line

    def arrive_late(self, index: int) -> None:
        """Let an operation arrive that nobody waits for any more."""
        self._late.append(self.loop.create_task(_done(self.beneath.arrival(index)())))

    def evict(self, user: str) -> None:
        """Take a session out of memory, as if room had to be made, if that may be done now."""
        state = self.cache._sessions.states.get(user)
        if state is not None and state.at_rest():
            self.cache._sessions.close(state, Removal.EVICTED)

    def restart(self, *, crash: bool = False, aged: float = 0.0, authority: str | None = None) -> None:
        """End the cache and let another go on with what is stored.

        Args:
            crash: whatever it does, nothing of that reaches the store from now on.
            aged: how much further the wall clock is set meanwhile; set back, it is by more than a moment.
            authority: with whose rights the next one loads, if with others.
        """
        assert self.disk is not None
        line, was_well = self.beneath, self.beneath.well
        out_of_step, moment = self._out_of_step(), self.record.next()
        self.record.closed.add(self.record.node)
        for load in self.record.waiting():
            load.stubborn = False
            if not load.running:
                self.finish(load)  # given up, and waiting all the same
        if crash:
            line.cut()
        self._end_cache()
        self.check()
        assert not self.busy(), "a caller waits for a cache that is closed"
        if self.counting:
            self._check_counts()
        self.disk.end(crash=crash)
        self.clock.ahead += aged
        if not crash and was_well:
            out_of_step = set()
        else:
            self.judge.forget(out_of_step, since=moment)
        self.record.new_node(out_of_step=out_of_step, aged=max(aged, 0.0), lost=aged < 0)
        self.handles.clear()
        self.authority = self.authority if authority is None else authority
        self.cache = self._start()
        for name, changes in self.record.policies.items():
            self.cache.set_policy(self.resources[name], changes[-1].chosen)

    def _out_of_step(self) -> set[str]:
        """Return the users whose stored copy the cache itself knows not to be what memory is."""
        persistence = self.cache._persistence
        assert persistence is not None
        states = self.cache._sessions.states
        return {
            user
            for user in USERS
            if not persistence._repairs.trusted(user)
            or (user in states and (outbox := states[user].outbox) is not None and outbox.writes)
        }

    def _note_end(self, user: str, session: bytes) -> None:
        """Note that somebody else has ended a session; one that was ended here is nobody's any more."""
        state = self.cache._sessions.states.get(user)
        if state is not None and state.outbox is not None and state.outbox.id == session:
            self._ended_since_rest.append((user, self.record.next()))

    def clear_elsewhere(self, user: str) -> None:
        """Clear a session past the cache."""
        owner = Owner(self.catalog.name, user)
        self._late.append(self.loop.create_task(self.beneath.clear_elsewhere(owner)))

    def _end_cache(self) -> None:
        """Close the cache, however long its store makes it take."""
        closing = self.loop.create_task(self.cache.aclose())
        for _ in range(MOST_ROUNDS):
            self.loop.drain()
            if closing.done() and (self.line is None or not self.line.hanging):
                break
            self.clock.pass_time(1)
        closing.result()
        self.loop.drain()
        for task in self._late:
            task.result()
        self._late.clear()

    def calm_down(self) -> None:
        """Let nothing more go astray, and time pass until memory and store are in step.

        Raises:
            AssertionError: they do not come to be, or are not alike then.
        """
        line = self.beneath
        line.heal()
        self.answer_all()
        persistence = self.cache._persistence
        assert persistence is not None
        for _ in range(PAUSES):
            stats = persistence.stats()
            if not (stats.distrusted_users or stats.distrusts_everyone or stats.writes_waiting):
                break
            self.clock.pass_time(LONGEST_PAUSE)
            self.answer_all()
        else:
            raise AssertionError(f"the store works again, and is not used: {persistence.stats()}")
        checking = self.loop.create_task(
            check_in_step(self.cache, line, alone=not line.arrived, every_read_succeeded=False)
        )
        self.drain()
        checking.result()

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
        get.node, get.authority = self.record.node, self.authority
        get.look = self.handle(user).peek(self.resources[resource])
        get.returned, get.returned_at = self.record.next(), self.clock.now
        assert self.cache.users() == before, "a look made a session"
        if get.look is not None:
            assert get.look.outcome is Outcome.HIT
            get.value = get.look.value
            self.judge.judge(get)

    async def clear(self, user: str) -> None:
        begun = self.record.begin_clear(user)
        cleared = await self._unless_closed(self.cache.clear(user))
        if cleared is not None:
            self._note_clear(user, begun, durable=cleared.durable)

    async def clear_all(self) -> None:
        begun = self.record.begin_clear(*USERS)
        cleared = await self._unless_closed(self.cache.clear_all())
        if cleared is not None:
            for user in USERS:
                self._note_clear(user, begun, durable=cleared.durable)

    def _note_clear(self, user: str, begun: int, *, durable: bool) -> None:
        self.record.end_clear(user, begun, durable=durable)
        if not any(get.user == user and (get.invoked or 0) > begun for get in self.record.gets):
            self.quiet_since[user] = begun

    async def _unless_closed(self, work: Awaitable[T]) -> T | None:
        """Return what *work* returns; None if the cache was closed meanwhile: what it did then is promised to nobody."""
        node = self.record.node
        try:
            answer = await work
        except CacheClosed:
            if node not in self.record.closed:
                raise
            return None
        return None if node in self.record.closed else answer

    async def invalidate(self, user: str | None, resource: str, **passed: Any) -> None:
        begun = self.record.next()
        chosen = self.resources[resource]
        work = (
            self.cache.invalidate(chosen) if user is None else self.handle(user).invalidate(chosen, **passed)
        )
        arguments = None
        if resource == "page" and passed:
            arguments = (passed["number"], passed.get("region", "eu"))
        names = {"number": ("account",), "card": ("page", "notes")}.get(resource, (resource,))
        below = [(each, name, arguments) for each in (USERS if user is None else (user,)) for name in names]
        self.record.dropping += below
        if await self._unless_closed(_done(work)) is not None:
            done = self.record.next()
            self.record.floors += [(*each, begun, done) for each in below]
        for each in below:
            if each in self.record.dropping:  # another node knows nothing of what was asked of the one before
                self.record.dropping.remove(each)

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
        load.node, load.authority = self.record.node, self.authority
        try:
            await self.handle(user).put(self.resources[resource], value, **passed)
        except CacheClosed:
            assert load.node in self.record.closed, "the cache was not closed meanwhile"
            return
        if isinstance(value, dict):
            value.clear()
        # Nothing ran between the storing and here.
        load.called = load.ended = self.record.next()
        load.called_at = load.ended_at = self.clock.now
        load.kind = PUT
        self.record.loads[load.serial] = load
        if load.node not in self.record.closed:
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
        get.authority = self.authority
        if not self.cache._home.closed:
            get.node = self.record.node
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
        self.record.ends += [(*end, self.record.next()) for end in self._ended_since_rest]
        self._ended_since_rest.clear()
        running = self.record.running()
        if not running and not self.connecting() and (self.line is None or not self.line.hanging):
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
            self.record.cleared_since(user, load.called)
            or any(each == user and told > load.called for each, told, _ in self.record.ends)
            or any(
                (each, name) == (user, resource) and asked in (None, arguments) and done > load.called
                for each, name, asked, _, done in self.record.floors
            )
            or any(each in self.record.dropping for each in (load.key, (user, resource, None)))
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
            if self.line is not None:
                self.calm_down()
            self.answer_all()
            for get in self.record.gets:
                assert not get.pending, f"{get} never ended"
            if self.counting:
                self._check_counts()
            left = [task for task in asyncio.all_tasks(self.loop) if not is_housekeeping(task)]
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
            self.record.closed.add(self.record.node)
            self._end_cache()
            left = asyncio.all_tasks(loop)
            assert not left, f"tasks left after the close: {left}"
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.drain()
            loop.close()
            if self.disk is not None:
                self.disk.wipe()
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
        node = self.record.node
        ended = [get for get in self.record.gets if get.returned is not None and get.node == node]
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
            loads = sum(
                load.resource == name and load.kind != PUT and load.node == node
                for load in self.record.loads.values()
            )
            assert shown.loads == loads == sum(tally.causes), told
            assert tally.loading == 0, told
            assert sum(tally.ends) == loads, told
            assert tally.causes[Cause.GET] <= shown.gets - shown.hits - shown.coalesced, told
            assert shown.calls_saved == sum(map(cost_of, answered(mine))) - loads, told


class InOrder(set[Any]):
    """A set that is gone through in the order in which it was filled."""

    def __init__(self) -> None:
        self._order: dict[Any, None] = {}

    def __iter__(self) -> Iterator[Any]:
        return iter(self._order)

    def add(self, element: Any) -> None:
        super().add(element)
        self._order[element] = None

    def discard(self, element: Any) -> None:
        super().discard(element)
        self._order.pop(element, None)


async def _done(work: Awaitable[object]) -> bool:
    """Return that it was done."""
    await work
    return True


def is_housekeeping(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task is one that a cache may have at rest: its sweep, or what ended deadlines nobody waits for."""
    return str(getattr(task.get_coro(), "__qualname__", "")).endswith(("_sweep", "Deadlines._sleep"))


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
