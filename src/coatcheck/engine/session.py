"""One user's handle: the shortest way to a hit, and the public calls around it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar, overload

from coatcheck.engine.entry import PER_CALLER, Cleared, Discreet, Entry, Lookup, Outcome
from coatcheck.engine.home import HomeEnded
from coatcheck.engine.keys import check_argument
from coatcheck.engine.policy import JITTER_STEPS
from coatcheck.engine.resolution import PLAIN, Request, side_by_side
from coatcheck.engine.stats import Count, Removal
from coatcheck.engine.walk import Due, key_of, value_of
from coatcheck.errors import CatalogError, LoaderBroke, UnknownArgument

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Mapping

    from coatcheck.clock import Clock
    from coatcheck.engine.catalog import Catalog, Resource
    from coatcheck.engine.counting import Counting
    from coatcheck.engine.flight import Flight
    from coatcheck.engine.home import Home
    from coatcheck.engine.loads import Loads
    from coatcheck.engine.persistence import Persistence
    from coatcheck.engine.resolution import Resolver
    from coatcheck.engine.sessions import Sessions
    from coatcheck.engine.state import State
    from coatcheck.engine.stats import Ledger
    from coatcheck.engine.walk import Slot, Walker

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")


# Reading a member of an enum costs as much as a dictionary look-up does.
HIT = Outcome.HIT

PEEK: Final = "peek takes none: use lookup"
GET_MANY: Final = "get_many takes none: use get"
"""Calls without arguments, and what takes them."""

ABSENT: Any = object()
"""What `Session._hit` returns when only a load will do."""


class Engine(NamedTuple):
    """The parts of a cache that its session handles work with."""

    catalog: Catalog[Any]
    clock: Clock
    home: Home
    ledger: Ledger
    loads: Loads
    persistence: Persistence | None
    walker: Walker
    resolver: Resolver
    counting: Counting
    rng: random.Random
    sessions: Sessions
    keeping: bool
    tick: float


AtHand = tuple[Callable[[], float], list[Any], object, Engine]
"""What the shortest way takes, the same for all handles of a cache: the clock, the ledger's hits, the origin of the
cache's resources, and the engine for what is left."""


class Session(Discreet, gc=False, eq=False):
    """One user's session: a handle, good for as long as you like, also across clears. Made by `SessionCache.session`.

    Any number of handles may stand for one user. Every method may be called from any task, thread or loop; cancelling
    a caller cancels nobody else and does not stop a load.
    """

    _at_hand: AtHand
    _user: str
    _row: list[Any]

    if TYPE_CHECKING:

        async def get(
            self,
            resource: Resource[T],
            /,
            *,
            force_refresh: bool = False,
            deep: bool = False,
            max_age: timedelta | None = None,
            **arguments: object,
        ) -> T:
            """Return the user's value of *resource*, loading it at most once across callers.

            Args:
                resource: one of the cache's catalog.
                force_refresh: load it anew; joins no load that had begun before this call.
                deep: with ``force_refresh``: load anew what it depends on, too.
                max_age: accept nothing older.
                arguments: the loader's parameters; a dependency not given is resolved from the same session.

            Raises:
                LoadError: nothing usable is held and the load failed; `Unavailable` and `Refused` tell how.
                SessionCleared: the session was cleared while this call waited for something else first.
                MissingArgument, UnknownArgument, UnknownResource, InvalidKey: the call cannot work.
            """
            ...

    else:
        # One mapping for all options: empty, it costs a hit less than looking at each of them would.
        async def get(self, resource, /, **options):
            """See the declaration above, which says what this promises; this is its shortest way."""
            if not options:
                try:
                    clock, hits, origin, engine = self._at_hand
                    row = self._row
                    mark = resource.mark
                    # Both before the clock is read: no other thread comes in between.
                    until = row[mark]
                    answer = row[mark + 1]
                    now = clock()
                    if now < until and resource.origin is origin:
                        hits[mark] += 1
                        row[mark + 2] += 1
                        tick = hits[0]
                        if now > tick:
                            hits[0] = tick = now + engine.tick
                        row[0] = tick
                        return answer if resource.shared else resource.codec.decode(answer)
                except (LookupError, AttributeError):
                    # Nothing held, a foreign resource, or a forked child: told apart below.
                    pass
            return await self._get(resource, options)

    async def lookup(
        self,
        resource: Resource[T],
        /,
        *,
        force_refresh: bool = False,
        deep: bool = False,
        max_age: timedelta | None = None,
        **arguments: object,
    ) -> Lookup[T]:
        """Return the user's value of *resource* and how it was come by: outcome, age, how long it is fresh, its bytes.

        It is loaded at most once across callers.

        Args:
            resource: one of the cache's catalog.
            force_refresh: load it anew; joins no load that had begun before this call.
            deep: with ``force_refresh``: load anew what it depends on, too.
            max_age: accept nothing older.
            arguments: the loader's parameters; a dependency not given is resolved from the same session.

        Raises:
            LoadError: nothing usable is held and the load failed; `Unavailable` and `Refused` tell how.
            SessionCleared: the session was cleared while this call waited for something else first.
            MissingArgument, UnknownArgument, UnknownResource, InvalidKey: the call cannot work.
        """
        request = self._request(resource, options_of(force_refresh, deep, max_age, arguments))
        found = self._from_memory(resource, request)
        return await self._load(resource, request) if found is None else found

    def peek(self, resource: Resource[T], /) -> Lookup[T] | None:
        """Return what is held and fresh, or None. No I/O, in any thread; not counted, and no use of the session.

        Raises:
            MissingArgument, UnknownResource: the call cannot work; what needs an argument is not for this.
        """
        clock, hits, origin, _ = self._at_hand
        if hits:
            try:
                row = self._row
                mark = resource.mark
                # Both before the clock is read: no other thread comes in between.
                until = row[mark]
                slot = row[1][resource.index]
                now = clock()
                if now < until and resource.shared and resource.origin is origin:
                    return Lookup(slot.value, HIT, slot, now)
            except (LookupError, AttributeError):
                pass
        return self._peek(resource)

    @overload
    async def get_many(self, a: Resource[T1], /) -> tuple[T1]: ...
    @overload
    async def get_many(self, a: Resource[T1], b: Resource[T2], /) -> tuple[T1, T2]: ...
    @overload
    async def get_many(self, a: Resource[T1], b: Resource[T2], c: Resource[T3], /) -> tuple[T1, T2, T3]: ...
    @overload
    async def get_many(
        self, a: Resource[T1], b: Resource[T2], c: Resource[T3], d: Resource[T4], /
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    async def get_many(self, /, *resources: Resource[Any]) -> tuple[Any, ...]: ...

    async def get_many(self, /, *resources: Resource[Any]) -> tuple[Any, ...]:
        """Return the values of several resources in order; what can be loaded side by side is.

        Raises:
            LoadError: as `get()`; the first error is raised. Loads that have begun go on and are kept.
            MissingArgument, UnknownResource: the call cannot work; what needs an argument is not for this.
        """
        # A lookup shows no value where a task's result is shown, as the loop does when it is debugged.
        looks = await side_by_side([self._one_of_many(resource) for resource in resources])
        return tuple(look.value for look in looks)

    async def warm(self) -> None:
        """Load every resource whose arguments can be resolved; what can be loaded side by side is.

        Raises:
            LoadError: as `get_many()`.
        """
        self._engine.home.check()
        await self.get_many(*(resource for resource in self._engine.catalog if resource.resolvable))

    async def put(self, resource: Resource[T], value: T, /, **arguments: object) -> None:
        """Hold *value* as if it had been loaded now; a load that began before replaces it no more.

        Dependencies that are not given are resolved as by `get()`.

        Raises:
            WrongType: the value is not of the declared type.
            CatalogError: the resource is derived.
        """
        request = self._request(resource, arguments, gets=False)
        if resource.derived:
            raise CatalogError(f"{resource.name} is derived: put what it is derived from")
        resource.check_complete(arguments)
        body, decoded = resource.codec.accept(value)
        engine = self._engine

        async def store() -> None:
            with engine.resolver.calling(self._user, request) as call:
                await engine.resolver.restore(call.state)
                values, _ = await engine.resolver.arguments(call, resource, request)
                state = call.state
                entry = Entry(
                    value=decoded if resource.codec.shared else PER_CALLER,
                    body=body,
                    started=self._now(),
                    jitter=engine.rng.randrange(JITTER_STEPS + 1),
                )
                # Still at work in the session: evicted before, it would come back with what this replaces.
                with engine.home.step:
                    if engine.keeping and not state.closed:
                        key = key_of(resource, values)
                        due = engine.sessions.drop(state, resource, Removal.REPLACED, key=key)
                        engine.sessions.keep(state, resource, key, entry)
                        engine.loads.begin(due)

        await engine.home.run(store)

    async def invalidate(self, resource: Resource[Any], /, **arguments: object) -> None:
        """Drop a resource's entries under all arguments, or the one under these.

        What depends on it stays, and is reachable again only if the resource reloads to the same value. Of a derived
        resource, what it is derived from is dropped. A load under way answers its callers and is not kept. The store, if
        it answers, has dropped it, too, when this returns.
        """
        request = self._request(resource, arguments, gets=False)
        engine = self._engine
        persistence = engine.persistence

        def drop() -> None:
            state = engine.sessions.states.get(self._user)
            if state is None:
                # Nothing is held; or the cache was closed meanwhile, and the store has not been told.
                engine.home.check()
            else:
                for stored, key in engine.walker.to_invalidate(state, resource, request.passed, self._now()):
                    engine.loads.begin(engine.sessions.drop(state, stored, Removal.INVALIDATED, key=key))

        if persistence is None:
            await engine.home.do(drop)
            return

        async def bring_and_drop() -> None:
            # Which entries there are, and under what arguments, only memory can tell.
            with engine.resolver.calling(self._user, request) as call:
                await engine.resolver.restore(call.state)
                with engine.home.step:
                    drop()
                await persistence.caught_up(call.state)

        await engine.home.run(bring_and_drop)

    async def clear(self) -> Cleared:
        """Drop all that is held for the user, credentials included.

        A get that is invoked after this has returned never returns data whose load began before this was called.
        Callers whose load is under way get its value; it is not kept. What a store holds is never read again, whether
        or not it could apply the clear at once: `Cleared.durable` tells. Cancelling the caller does not stop the clear.
        """
        engine = self._engine

        async def close() -> bool:
            with engine.home.step:
                state = engine.sessions.states.get(self._user)
                applied = None if engine.persistence is None else engine.persistence.clear(self._user, state)
                if state is not None:
                    engine.sessions.close(state, Removal.CLEARED)
            return applied is None or await applied

        return Cleared(durable=await engine.home.run(close))

    async def call(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Return what *work* does with the object that ``connect`` returned for this user; nothing is kept or counted.

        For what must be live. It runs on the cache's home loop; the object stays open until it has ended.

        Raises:
            SessionCleared: the session was cleared before the object was there.
            LoadError: ``connect`` failed. What *work* raises is raised as it is.
            LoaderBroke: *work* had begun when its loop ended. It is not begun twice.
        """
        engine = self._engine
        once = Once(work)

        async def borrow() -> T:
            once.check()
            with engine.home.step:
                now = self._now()
                state = engine.sessions.open(self._user, now)
                state.use(now)
            return await engine.loads.lend(state, once)

        engine.home.check()
        return await engine.home.run(borrow)

    async def _one_of_many(self, resource: Resource[T]) -> Lookup[T]:
        request = self._request(resource, {}, bare=GET_MANY)
        found = self._from_memory(resource, request)
        return await self._load(resource, request) if found is None else found

    async def _get(self, resource: Resource[T], options: Mapping[str, object]) -> T:
        # First of all, for the sake of a crowd that asks for what is being loaded.
        flight = None if options else self._at_hand[3].resolver.join(self._user, resource)
        if flight is not None:
            return await self._share(resource, flight)
        request = self._request(resource, options)
        found = self._ready(resource, request)
        if found is None:
            return (await self._load(resource, request)).value
        state, until, slot = found
        now = self._now()
        if request.passed or state.short_cut(resource, now) is None:
            self._engine.counting.note_hit(state, resource, request.passed, now)
            value: T = value_of(resource, slot)
            return value
        # The first hit on what was just resolved is the sample: timed as a whole, from call to answer.
        answer = await self.get(resource)
        ended = self._now()
        if ended < until:
            self._engine.ledger.tallies[resource.index].hit_latency.record(ended - now)
        return answer

    def _hit(self, resource: Resource[T], options: Mapping[str, object], *, bare: str | None = None) -> T:
        """Do what `get()` does if that is a hit, counted and sampled like one, else return `ABSENT`; no loop is needed."""
        if not options:
            try:
                clock, hits, origin, engine = self._at_hand
                row = self._row
                mark = resource.mark
                # Both before the clock is read: no other thread comes in between.
                until = row[mark]
                answer = row[mark + 1]
                now = clock()
                if now < until and resource.origin is origin:
                    hits[mark] += 1
                    row[mark + 2] += 1
                    tick = hits[0]
                    if now > tick:
                        hits[0] = tick = now + engine.tick
                    row[0] = tick
                    value: T = answer if resource.shared else resource.codec.decode(answer)
                    return value
            except (LookupError, AttributeError):
                pass  # as in get()
        request = self._request(resource, options, bare=bare)
        found = self._ready(resource, request)
        if found is None:
            absent: T = ABSENT
            return absent
        state, until, slot = found
        now = self._now()
        if request.passed or state.short_cut(resource, now) is None:
            self._engine.counting.note_hit(state, resource, request.passed, now)
            held: T = value_of(resource, slot)
            return held
        answer = self._hit(resource, {})
        ended = self._now()
        if ended < until:
            self._engine.ledger.tallies[resource.index].hit_latency.record(ended - now)
        return answer

    async def _share(self, resource: Resource[T], flight: Flight) -> T:
        began = self._now()
        try:
            result = await flight.landing()
        except asyncio.CancelledError:
            self._engine.counting.note_unanswered(self._user, resource, Count.CANCELLED)
            raise
        except BaseException:
            # A load that fails does not raise here; a coroutine that is closed half-way does.
            self._engine.counting.note_unanswered(self._user, resource, Count.FAILED)
            raise
        if not isinstance(result, Entry):
            return (await self._load(resource, PLAIN, (flight, began))).value
        self._engine.counting.note_coalesced(flight.state, resource, self._now() - began)
        value: T = value_of(resource, result)
        return value

    async def _load(
        self, resource: Resource[T], request: Request, shared: tuple[Flight, float] | None = None
    ) -> Lookup[T]:
        engine = self._engine
        began = self._now() if shared is None else shared[1]
        try:
            if shared is not None:
                try:
                    call, slot = await engine.resolver.joined(shared[0])
                except HomeEnded:
                    shared = None
            if shared is None:
                call, slot = await engine.home.run(
                    lambda: engine.resolver.answer(self._user, resource, request)
                )
        except asyncio.CancelledError:
            engine.counting.note_unanswered(self._user, resource, Count.CANCELLED)
            raise
        except BaseException:
            engine.counting.note_unanswered(self._user, resource, Count.FAILED)
            raise
        now = self._now()
        outcome = engine.counting.note_answer(call, resource, now - began)
        return Lookup(value_of(resource, slot), outcome, slot, now)

    def _from_memory(self, resource: Resource[T], request: Request) -> Lookup[T] | None:
        found = self._ready(resource, request)
        if found is None:
            return None
        state, _, slot = found
        now = self._now()
        self._engine.counting.note_hit(state, resource, request.passed, now)
        return Lookup(value_of(resource, slot), HIT, slot, now)

    def _ready(self, resource: Resource[Any], request: Request) -> tuple[State, float, Slot] | None:
        """Return the state, until when it serves and where the get ends, if all on its way is fresh and held.

        The background loads that are due have begun then.
        """
        engine = self._engine
        if not (request.plain() and engine.keeping):
            return None
        state = self._attach()
        if state is None:
            return None
        now = self._now()
        due: list[Due] = []
        try:
            with engine.home.lock:
                found = engine.walker.walk(state, resource, request.passed, now, due)
        except Exception:
            # A derived function that raises, or an argument that is missing: the get has ended here.
            engine.counting.count(state, resource, Count.FAILED)
            raise
        if due:
            engine.walker.refresh(state, due, now)
        return None if found is None else (state, *found)

    def _peek(self, resource: Resource[T]) -> Lookup[T] | None:
        request = self._request(resource, {}, bare=PEEK)
        state = self._attach()
        if state is None:
            return None
        now = self._now()
        found = self._engine.walker.walk(state, resource, request.passed, now, None)
        return None if found is None else Lookup(value_of(resource, found[1]), HIT, found[1], now)

    def _attach(self) -> State | None:
        state = self._engine.sessions.states.get(self._user)
        if state is not None:
            self._row = state.row
        return state

    @property
    def _engine(self) -> Engine:
        return self._at_hand[3]

    @property
    def _now(self) -> Callable[[], float]:
        return self._at_hand[0]

    def _request(
        self,
        resource: Resource[Any],
        options: Mapping[str, object],
        *,
        gets: bool = True,
        bare: str | None = None,
    ) -> Request:
        """Return what the options of a call ask for, having checked that it can be asked here."""
        engine = self._engine
        engine.home.check()
        engine.catalog.check(resource)
        passed = dict(options)
        force: object = False
        deep: object = False
        max_age: object = None
        if gets:
            force, deep = passed.pop("force_refresh", False), passed.pop("deep", False)
            max_age = passed.pop("max_age", None)
        resource.check_names(passed)
        if gets:
            resource.check_complete(passed, bare=bare)
        if not options:
            return PLAIN
        for name, value in passed.items():
            check_argument(name, value)
        if max_age is not None and not isinstance(max_age, timedelta):
            raise UnknownArgument("max_age must be a timedelta, such as timedelta(minutes=5)")
        if max_age is not None and max_age < timedelta(0):
            raise UnknownArgument("max_age must not be negative")
        if deep and not force:
            raise UnknownArgument("deep goes with force_refresh=True")
        seconds = None if max_age is None else max_age.total_seconds()
        return Request(bool(force), bool(deep), seconds, passed)


class Once(Generic[T]):
    """A caller's work that must not be done twice, whoever hands it on to another loop."""

    def __init__(self, work: Callable[[Any], Awaitable[T]]) -> None:
        self._work = work
        self._begun = False

    def check(self) -> None:
        """Return if it has not begun.

        Raises:
            LoaderBroke: it has.
        """
        if self._begun:
            raise LoaderBroke("the loop ended on which this call ran; nobody knows how far it came")

    async def __call__(self, api: Any) -> T:
        """Do it."""
        self.check()
        self._begun = True
        return await self._work(api)


def options_of(
    force_refresh: bool, deep: bool, max_age: timedelta | None, arguments: Mapping[str, object]
) -> dict[str, object]:
    """Return the options and arguments of a get as one mapping, which is empty when nothing special is asked for."""
    options = dict(arguments)
    if force_refresh or deep:
        options.update(force_refresh=force_refresh, deep=deep)
    if max_age is not None:
        options["max_age"] = max_age
    return options


if not TYPE_CHECKING:
    # Readers and tools see the options that the annotations above declare.
    Session.get.__doc__ = "Return the value that `lookup()` returns; parameters and exceptions are the same."
    Session.get.__signature__ = inspect.signature(Session.lookup).replace(return_annotation="T")
