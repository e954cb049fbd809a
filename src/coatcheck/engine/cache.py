"""The cache of one program: sessions by user, policies in force, limits, and its life from first use to close."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from coatcheck.clock import SystemClock
from coatcheck.engine.counting import Counting
from coatcheck.engine.entry import Cleared
from coatcheck.engine.events import Feed
from coatcheck.engine.home import Home, HomeEnded, tell
from coatcheck.engine.keys import check_user
from coatcheck.engine.limits import Limits
from coatcheck.engine.loads import Loads
from coatcheck.engine.parts import check_parts
from coatcheck.engine.persistence import Persistence
from coatcheck.engine.policy import Policy, PolicyAdvice, Rule, in_force
from coatcheck.engine.refresh import Refresher
from coatcheck.engine.resolution import Resolver
from coatcheck.engine.row import TICK
from coatcheck.engine.schedule import Scheduler
from coatcheck.engine.session import Engine, Session
from coatcheck.engine.sessions import Sessions
from coatcheck.engine.state import opened
from coatcheck.engine.stats import (
    CacheStats,
    Ledger,
    Removal,
    UserStats,
    gets_of,
    resource_stats,
    sum_of,
)
from coatcheck.engine.walk import Walker
from coatcheck.errors import CacheClosed, PolicyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from types import TracebackType
    from typing import Self

    from coatcheck.clock import Clock
    from coatcheck.engine.catalog import Catalog, Resource
    from coatcheck.engine.events import Event
    from coatcheck.engine.schedule import Schedule
    from coatcheck.engine.state import State
    from coatcheck.engine.store import Store

Api = TypeVar("Api")

# The sweep: how often, how many sessions between two looks at what else the loop has to do, and after how long
# without use a session that holds nothing goes.
SWEEP_SECONDS = 300.0
SWEEP_SLICE = 20
IDLE_SECONDS = 600.0


class SessionCache(Generic[Api]):
    """A session per user in front of a slow API.

    Nothing happens before the first use. Loads run on one event loop, the home of the cache; gets may come from any
    loop or thread, and hits are served where they are asked. ``async with`` closes it at the end; without, call
    `aclose()`.

    Args:
        catalog: what can be asked for. It takes no further declarations from here on.
        connect: called with a user id when a session's first load needs it; returns the object that the user's
            loaders get, or an awaitable of it. Its ``aclose()``, if any, is awaited when the session has ended.
        store: keeps sessions beneath memory, across restarts. It belongs to this cache, which closes it; None for memory
            alone.
        authority: tells whence, and with whose rights, a user's data is loaded: a stored session that was loaded under
            another is cleared, not read. None from it: nothing of that user is stored or read. Not needed where it never
            changes for a user.
        limits: bounds of memory and of work.
        clock: the time.
        on_event: called with small frozen events, in order, in a thread of its own: it may be slow, and it may raise.
            Events that it is too slow for are dropped and counted. It must not wait for this cache to settle or close.
        pseudonym_key: at least 16 random bytes, the same for all processes in whose events a user is to have one
            pseudonym; drawn anew for each cache when not given.
        enabled: False makes every get load and keeps nothing.
        schedule: refreshes what users seen lately hold, also when they ask for nothing; None for not.
        rng: where jitter comes from.

    Raises:
        SettingsError: an argument cannot be what it is given for.
        StoreFailed: the store is closed.
    """

    def __init__(
        self,
        catalog: Catalog[Api],
        *,
        connect: Callable[[str], Api | Awaitable[Api]],
        store: Store | None = None,
        authority: Callable[[str], str | None] | None = None,
        limits: Limits | None = None,
        clock: Clock | None = None,
        on_event: Callable[[Event], object] | None = None,
        pseudonym_key: bytes | None = None,
        enabled: bool = True,
        schedule: Schedule | None = None,
        rng: random.Random | None = None,
    ) -> None:
        check_parts(
            catalog=catalog, connect=connect, store=store, authority=authority, limits=limits, clock=clock,
            on_event=on_event, schedule=schedule,
        )  # fmt: skip
        catalog.seal()
        limits = Limits() if limits is None else limits
        clock = SystemClock() if clock is None else clock
        rng = random.Random() if rng is None else rng  # noqa: S311 - spreads loads; nothing is kept secret by it
        self._catalog = catalog
        self._clock = clock
        self._rules: list[Rule] = [in_force(resource.policy) for resource in catalog]
        self._feed = Feed(on_event, key=pseudonym_key)
        self._ledger = Ledger(tuple(catalog))
        self._home = Home(moved_in=self._move_in, forked=self._fork)
        self._sessions = Sessions(
            catalog,
            rules=self._rules,
            limits=limits,
            ledger=self._ledger,
            tell=self._tell,
            dismiss=self._dismiss,
        )
        self._persistence = (
            None
            if store is None
            else Persistence(
                store,
                catalog=catalog,
                sessions=self._sessions,
                home=self._home,
                rules=self._rules,
                clock=clock,
                rng=rng,
                authority=authority,
            )
        )

        self._loads = Loads(
            sessions=self._sessions, home=self._home, connect=connect, rules=self._rules, limits=limits,
            ledger=self._ledger, clock=clock, rng=rng, tell=self._tell, keeping=enabled,
        )  # fmt: skip
        self._refresher = Refresher(self._loads, self._home, limits)
        self._walker = Walker(
            sessions=self._sessions, refresher=self._refresher, home=self._home, rules=self._rules
        )
        resolver = Resolver(
            sessions=self._sessions, loads=self._loads, refresher=self._refresher, home=self._home,
            rules=self._rules, clock=clock, tell=self._tell, keeping=enabled, persistence=self._persistence,
        )  # fmt: skip
        self._scheduler = (
            None
            if schedule is None
            else Scheduler(
                schedule,
                sessions=self._sessions,
                walker=self._walker,
                refresher=self._refresher,
                clock=clock,
                rng=rng,
            )
        )
        self._engine = Engine(
            catalog=catalog,
            clock=clock,
            home=self._home,
            ledger=self._ledger,
            loads=self._loads,
            persistence=self._persistence,
            walker=self._walker,
            resolver=resolver,
            counting=Counting(sessions=self._sessions, ledger=self._ledger, tell=self._tell),
            rng=rng,
            sessions=self._sessions,
            keeping=enabled,
            tick=TICK if isinstance(clock, SystemClock) else 0.0,
        )
        # What handles of users that hold nothing look into: never written.
        self._nothing = opened("", len(catalog), 0.0, self._sessions.places)
        self._nothing.closed = True
        # At hand for `session()`, which every request goes through.
        self._rows = self._sessions.rows
        self._at_hand = (clock.monotonic, self._ledger.hits, catalog.origin, self._engine)
        self._chores: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<SessionCache {self._catalog.name}: {len(self._sessions.states)} sessions>"

    async def __aenter__(self) -> Self:
        self._home.check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def session(self, user: str) -> Session:
        """Return a handle of the user's session. It occupies nothing until something is loaded.

        Raises:
            InvalidKey: *user* cannot own a session.
        """
        # A subclass of str may compare as it likes; what owns a session is the text.
        if type(user) is not str:
            user = check_user(user)
        try:
            return Session(self._at_hand, user, self._rows[user])
        except KeyError:
            pass  # it shows the user, so nothing may be raised from it
        return Session(self._at_hand, check_user(user), self._nothing.row)

    async def clear(self, user: str) -> Cleared:
        """Drop all that is held for *user*; see `Session.clear`. An empty or missing user is an error, never everyone.

        Raises:
            InvalidKey: *user* cannot own a session.
        """
        return await self.session(user).clear()

    async def clear_all(self) -> Cleared:
        """Drop all sessions, with the promise of `Session.clear` for each."""

        async def close() -> bool:
            with self._home.step:
                applied = None if self._persistence is None else self._persistence.clear_all()
                for state in list(self._sessions.states.values()):
                    self._sessions.close(state, Removal.CLEARED)
            return applied is None or await applied

        return Cleared(durable=await self._home.run(close))

    async def invalidate(self, resource: Resource[Any]) -> None:
        """Drop a resource's entries of every user, under all arguments; see `Session.invalidate`."""
        self._check(resource)

        stored = {each for each, _ in self._walker.to_invalidate(self._nothing, resource, {}, 0.0)}

        async def drop() -> None:
            with self._home.step:
                since = 0.0 if self._persistence is None else self._persistence.forgetting(stored)
                for state in list(self._sessions.states.values()):
                    for each in stored:
                        self._loads.begin(self._sessions.drop(state, each, Removal.INVALIDATED, stored=False))
            if self._persistence is not None:
                await self._persistence.forget(stored, since)

        await self._home.run(drop)

    def set_policy(self, resource: Resource[Any], policy: Policy) -> None:
        """Put another policy in force, for what is held, too. Takes a moment for each session held.

        A shorter ttl acts at once; a longer one revives nothing that had expired.

        Raises:
            PolicyError: the resource is derived: it is as fresh as what it is derived from.
        """
        self.set_policies({resource: policy})

    def set_policies(self, policies: Mapping[Resource[Any], Policy]) -> None:
        """Put several policies in force at once; see `set_policy`."""
        for resource, policy in policies.items():
            self._check(resource)
            if resource.derived:
                raise PolicyError(f"{resource.name} is derived: set the policy of what it is derived from")
            if not isinstance(policy, Policy):
                raise PolicyError(f"{resource.name}: write a Policy, such as Policy(ttl=timedelta(hours=1))")
            for each in policy.advice():
                warnings.warn(f"{resource.name}: {each}", PolicyAdvice, stacklevel=3)
        # A get that is being resolved by the old rules has been filed by then, and is judged anew, too.
        with self._home.lock:
            now = self._clock.monotonic()
            for resource, policy in policies.items():
                self._rules[resource.index] = in_force(policy, before=self._rules[resource.index], now=now)
        self._sessions.rejudge(policies)

    def policy(self, resource: Resource[Any]) -> Policy:
        """Return the policy in force."""
        self._check(resource)
        return self._rules[resource.index].policy

    def users(self) -> tuple[str, ...]:
        """Return the users that something is held for, or was of late."""
        self._home.check_process()
        return tuple(self._sessions.states)

    @overload
    def stats(self) -> CacheStats: ...
    @overload
    def stats(self, user: str) -> UserStats: ...

    def stats(self, user: str | None = None) -> CacheStats | UserStats:
        """Return what was counted: a `CacheStats`, or for one user a `UserStats`.

        Raises:
            InvalidKey: *user* cannot own a session.
        """
        self._home.check_process()
        if user is not None:
            return self._user_stats(check_user(user))
        resources = {}
        for resource in self._catalog:
            entries, size = self._sessions.held(resource)
            resources[resource.name] = resource_stats(resource, self._ledger, entries=entries, size=size)
        return CacheStats(
            resources=resources,
            total=sum_of(list(resources.values())),
            sessions=len(self._sessions.states),
            entries=sum(each.entries for each in resources.values()),
            bytes=self._sessions.bytes(),
            sessions_removed={cause.name.lower(): self._ledger.sessions_removed[cause] for cause in Removal},
            abandoned_loads=self._ledger.abandoned,
            events_dropped=self._feed.dropped,
            observer_failures=self._feed.failures,
            store=None if self._persistence is None else self._persistence.stats(),
        )

    def pseudonym(self, user: str) -> str:
        """Return what stands for *user* in events: the first 16 hex digits of the HMAC-SHA256 of the id.

        Whoever has the key can find the events of a user; nobody can find the user of an event but by trying ids.

        Raises:
            InvalidKey: *user* cannot own a session.
        """
        return self._feed.pseudonym(check_user(user))

    async def settled(self) -> None:
        """Return when no load, no closing of a connection and no write to the store is under way.

        And when ``on_event`` was told all there was to. For tests and orderly ends.
        """
        await self._home.run(self._loads.settled)
        if self._persistence is not None:
            await self._home.run(self._persistence.settled)
        await self._feed.told()

    async def aclose(self) -> None:
        """End all sessions, cancel loads and close connections. Callers that wait get `CacheClosed`, as all later do.

        ``on_event`` is told all that happened, unless it takes longer than a second.
        """
        if self._home.closed:
            return
        with contextlib.suppress(CacheClosed):  # by another, meanwhile
            await self._home.run(self._close)
        await self._feed.close()

    async def _close(self) -> None:
        with self._home.step:
            self._home.closed = True
            for chore in self._chores:
                chore.cancel()
            self._loads.abort()
            for state in list(self._sessions.states.values()):
                self._sessions.close(state, Removal.CLOSED)
        await self._loads.settled()
        if self._persistence is not None:
            await self._persistence.aclose()

    def _sweep(self) -> None:
        with self._home.step:
            self._sessions.sweep(SWEEP_SLICE, self._clock.monotonic(), IDLE_SECONDS)

    async def _leave_home(self) -> None:
        """End what runs at home, because its loop is being shut down: what is begun from now on, nobody would end."""
        with contextlib.suppress(HomeEnded):
            with self._home.step:
                if self._home.closed:
                    return
                self._home.show_out()
                self._loads.abort()
            await self._loads.settled()

    def _user_stats(self, user: str) -> UserStats:
        state = self._sessions.states.get(user)
        shown = self._nothing if state is None else state
        resources = {
            resource.name: gets_of(
                resource, self._ledger, shown.hits(resource), shown.counts_of(resource.index)
            )
            for resource in self._catalog
        }
        return UserStats(
            resources=resources,
            total=sum_of(list(resources.values())),
            bytes=0 if state is None else self._sessions.bytes_of(state),
            idle_for=None if state is None else max(0.0, self._clock.monotonic() - state.used),
        )

    def _check(self, resource: Resource[Any]) -> None:
        self._home.check()
        self._catalog.check(resource)

    def _tell(self, user: str, event: Callable[[str], Event]) -> None:
        if self._feed.observed:
            told = event(self._feed.pseudonym(user))
            with self._home.lock:
                self._feed.send(told)

    def _dismiss(self, state: State) -> None:
        self._loads.dismiss(state)

    def _move_in(self, former: asyncio.AbstractEventLoop | None) -> None:
        if former is not None:
            # Should it ever run again, it finds its work cancelled.
            self._loads.abandon(list(self._sessions.states.values()), former)
            if self._persistence is not None:
                self._persistence.moved(self._sessions.states.values())
            for chore in self._chores:
                tell(former, chore.cancel)
        self._refresher.reset()
        work = [_sweep(weakref.ref(self), self._clock)]
        if self._scheduler is not None:
            work.append(_as_long_as_at_home(self._scheduler.run()))
        loop = asyncio.get_running_loop()
        self._chores = [loop.create_task(each, context=contextvars.Context()) for each in work]

    def _fork(self) -> None:
        self._ledger.hits.clear()


async def _sweep(cache: weakref.ref[SessionCache[Any]], clock: Clock) -> None:
    """Sweep for ever, or until nobody has the cache any more: while it sleeps, this keeps none alive.

    It is also who is told that the loop is being shut down: it is cancelled then, as all that runs there.
    """
    try:
        while True:
            await clock.sleep(SWEEP_SECONDS)
            left: int | None = None
            while (kept := cache()) is not None:
                left = kept._sessions.queued() if left is None else left - SWEEP_SLICE  # noqa: SLF001
                if left <= 0:
                    break
                kept._sweep()  # noqa: SLF001
                del kept
                await clock.sleep(0)
            if kept is None:
                return
            del kept
    except HomeEnded:
        return
    except asyncio.CancelledError:
        kept = cache()
        if kept is not None:
            await kept._leave_home()  # noqa: SLF001
        raise


async def _as_long_as_at_home(chore: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(HomeEnded):
        await chore
