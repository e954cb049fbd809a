"""The blocking face of a cache, for threads: Flask, Django, scripts.

Loads run on an event loop in a thread of its own, which begins with the first call that needs one. Hits are served in
the thread that asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from coatcheck.engine.cache import SessionCache
from coatcheck.engine.entry import Discreet
from coatcheck.engine.home import HomeEnded, Visit, tell
from coatcheck.engine.session import ABSENT, GET_MANY, Once, Session, options_of
from coatcheck.errors import ForkedCache, WouldBlockLoop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from datetime import timedelta
    from types import TracebackType
    from typing import Self

    from coatcheck.clock import Clock
    from coatcheck.engine.catalog import Catalog, Resource
    from coatcheck.engine.entry import Cleared, Lookup
    from coatcheck.engine.events import Event
    from coatcheck.engine.home import Home
    from coatcheck.engine.limits import Limits
    from coatcheck.engine.policy import Policy
    from coatcheck.engine.schedule import Schedule
    from coatcheck.engine.stats import CacheStats, UserStats
    from coatcheck.engine.store import Store

Api = TypeVar("Api")
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")

# How long a close waits for a loader that will not end: its thread ends with the program at the latest.
CLOSE_SECONDS = 5.0


class Portal:
    """The way from any thread to an event loop that runs in a thread of its own.

    The thread begins when it is first needed, and ends with `close()`, or when nobody has the portal any more.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], None] | None = None

    def wait(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what *work* returns there, blocking this thread. Interrupting the caller cancels it and nothing else.

        Raises:
            WouldBlockLoop: an event loop runs in this thread.
        """
        if _runs_loop():
            raise WouldBlockLoop(
                "this call may wait for a load and would block the event loop of this thread: use SessionCache and await"
            )
        while True:
            self._home.check()
            try:
                return Visit(self._open(), work).wait()
            except HomeEnded:
                continue  # closed meanwhile; or something ended the loop, and another one begins

    def close(self, work: Callable[[], Coroutine[Any, Any, None]], *, begin: bool) -> None:
        """Let *work* close the cache there and end the thread; begin one for that only if told to."""
        with self._lock:
            if self._loop is None:
                if self._home.closed or not begin:
                    self._home.closed = True
                    return
                self._open()
            assert self._loop is not None
            if _runs_loop() and asyncio.get_running_loop() is self._loop:
                raise WouldBlockLoop("a loader cannot close the cache whose loop it runs on")
            with contextlib.suppress(HomeEnded):
                Visit(self._loop, work).wait()
            assert self._stop is not None
            assert self._thread is not None
            self._stop()
            self._thread.join(CLOSE_SECONDS)

    def _open(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None and self._goes_on():
            return self._loop
        # Before the lock: a child forked while another thread has it must not come to wait for it.
        self._home.used = True
        with self._lock:
            self._home.check()
            if self._loop is None or not self._goes_on():
                opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = Future()
                self._thread = threading.Thread(target=_keep, args=(opened,), name="coatcheck", daemon=True)
                self._thread.start()
                self._loop, self._end = opened.result()
                self._stop = weakref.finalize(self, _stop, self._loop, self._end, os.getpid())
            return self._loop

    def _goes_on(self) -> bool:
        """Tell whether the loop takes visitors: told to end, it still runs for a moment, and loses those that come then."""
        loop, end = self._loop, self._end
        return loop is not None and loop.is_running() and not (end is None or end.done())


def _keep(opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]) -> None:
    async def stay() -> None:
        loop = asyncio.get_running_loop()
        end: asyncio.Future[None] = loop.create_future()
        opened.set_result((loop, end))
        await end

    try:
        asyncio.run(stay())
    except BaseException as error:
        if opened.done():
            raise
        opened.set_exception(error)


def _stop(loop: asyncio.AbstractEventLoop, end: asyncio.Future[None], pid: int) -> None:
    # In a forked child the loop, and the socket that would wake it, are the parent's.
    if os.getpid() == pid:
        tell(loop, lambda: None if end.done() else end.set_result(None))


def _runs_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class SyncSession(Discreet, gc=False, eq=False):
    """One user's session for threads: what `Session` is, with calls that block. Made by `SyncCache.session`.

    Every method may be called from any thread; hits are served in it. A caller that is interrupted cancels nobody else
    and does not stop a load. Where an event loop runs, a call that cannot be answered from memory raises
    `WouldBlockLoop`.
    """

    _session: Session
    _portal: Portal

    if TYPE_CHECKING:

        def get(
            self,
            resource: Resource[T],
            /,
            *,
            force_refresh: bool = False,
            deep: bool = False,
            max_age: timedelta | None = None,
            **arguments: object,
        ) -> T:
            """Return the user's value of *resource*, loading it at most once across callers; see `Session.get`.

            Raises:
                LoadError: nothing usable is held and the load failed; `Unavailable` and `Refused` tell how.
                SessionCleared: the session was cleared while this call waited for something else first.
                MissingArgument, UnknownArgument, UnknownResource, InvalidKey: the call cannot work.
                WouldBlockLoop: an event loop runs in this thread.
            """
            ...

    else:

        def get(self, resource, /, **options):
            """See the declaration above, which says what this promises; this is its shortest way, as of `Session.get`."""
            session = self._session
            if not options:
                try:
                    clock, hits, origin, engine = session._at_hand  # noqa: SLF001
                    row = session._row  # noqa: SLF001
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
                    pass
            value = session._hit(resource, options)  # noqa: SLF001
            if value is ABSENT:
                return self._portal.wait(lambda: session.get(resource, **options))
            return value

    def lookup(
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
            WouldBlockLoop: an event loop runs in this thread.
        """
        session = self._session
        request = session._request(resource, options_of(force_refresh, deep, max_age, arguments))  # noqa: SLF001
        found = session._from_memory(resource, request)  # noqa: SLF001
        if found is not None:
            return found
        return self._portal.wait(lambda: session._load(resource, request))  # noqa: SLF001

    def peek(self, resource: Resource[T], /) -> Lookup[T] | None:
        """Return what is held and fresh, or None. No I/O; not counted, and no use of the session.

        Raises:
            MissingArgument, UnknownResource: the call cannot work; what needs an argument is not for this.
        """
        return self._session.peek(resource)

    @overload
    def get_many(self, a: Resource[T1], /) -> tuple[T1]: ...
    @overload
    def get_many(self, a: Resource[T1], b: Resource[T2], /) -> tuple[T1, T2]: ...
    @overload
    def get_many(self, a: Resource[T1], b: Resource[T2], c: Resource[T3], /) -> tuple[T1, T2, T3]: ...
    @overload
    def get_many(
        self, a: Resource[T1], b: Resource[T2], c: Resource[T3], d: Resource[T4], /
    ) -> tuple[T1, T2, T3, T4]: ...
    @overload
    def get_many(self, /, *resources: Resource[Any]) -> tuple[Any, ...]: ...

    def get_many(self, /, *resources: Resource[Any]) -> tuple[Any, ...]:
        """Return the values of several resources in order; what must be loaded is, side by side.

        Raises:
            LoadError: as `get()`; the first error is raised. Loads that have begun go on and are kept.
            MissingArgument, UnknownResource: the call cannot work; what needs an argument is not for this.
        """
        session = self._session
        values = [session._hit(resource, {}, bare=GET_MANY) for resource in resources]  # noqa: SLF001
        missing = [resource for resource, value in zip(resources, values, strict=True) if value is ABSENT]
        loaded = iter(self._portal.wait(lambda: session.get_many(*missing)) if missing else ())
        return tuple(next(loaded) if value is ABSENT else value for value in values)

    def warm(self) -> None:
        """Load every resource whose arguments can be resolved; what can be loaded side by side is.

        Raises:
            LoadError: as `get_many()`.
        """
        self._portal.wait(self._session.warm)

    def put(self, resource: Resource[T], value: T, /, **arguments: object) -> None:
        """Hold *value* as if it had been loaded now; see `Session.put`.

        Raises:
            WrongType: the value is not of the declared type.
            CatalogError: the resource is derived.
        """
        self._portal.wait(lambda: self._session.put(resource, value, **arguments))

    def invalidate(self, resource: Resource[Any], /, **arguments: object) -> None:
        """Drop a resource's entries under all arguments, or the one under these; see `Session.invalidate`."""
        self._portal.wait(lambda: self._session.invalidate(resource, **arguments))

    def clear(self) -> Cleared:
        """Drop all that is held for the user, credentials included.

        A get that is invoked after this has returned never returns data whose load began before this was called.
        Callers whose load is under way get its value; it is not kept.
        """
        return self._portal.wait(self._session.clear)

    def call(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Return what *work* does, on the cache's loop, with what ``connect`` returned for this user; see `Session.call`.

        Raises:
            SessionCleared: the session was cleared before the object was there.
            LoadError: ``connect`` failed. What *work* raises is raised as it is.
            LoaderBroke: *work* had begun when its loop ended. It is not begun twice.
        """
        # By the portal it would be, since to that it is a call like any other.
        once = Once(work)

        def begin() -> Coroutine[Any, Any, T]:
            once.check()
            return self._session.call(once)

        return self._portal.wait(begin)


class SyncCache(Generic[Api]):
    """A session per user in front of a slow API, for threads: what `SessionCache` is, with calls that block.

    Nothing happens before the first use. Then loads run on an event loop in a daemon thread of the cache's own; hits
    are served in the thread that asks. ``with`` closes it at the end; without, call `close()`. A process that is
    forked before the first use may use it; one that is forked later gets `ForkedCache`.

    Args:
        catalog: what can be asked for. It takes no further declarations from here on.
        connect: called, in the cache's thread, with a user id when a session's first load needs it; returns the object
            that the user's loaders get, or an awaitable of it. Its ``aclose()``, if any, is awaited when the session
            has ended.
        store: keeps sessions beneath memory; see `SessionCache`.
        authority: tells under whose rights a user's data is loaded; see `SessionCache`.
        limits: bounds of memory and of work.
        clock: the time.
        on_event: called with small frozen events, in order, in a thread of its own; see `SessionCache`.
        pseudonym_key: what users' pseudonyms in events are made with; see `SessionCache`.
        enabled: False makes every get load and keeps nothing.
        schedule: refreshes what users seen lately hold, also when they ask for nothing; None for not.
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
    ) -> None:
        self._cache = SessionCache(
            catalog,
            connect=connect,
            store=store,
            authority=authority,
            limits=limits,
            clock=clock,
            on_event=on_event,
            pseudonym_key=pseudonym_key,
            enabled=enabled,
            schedule=schedule,
        )
        self._stored = store is not None
        self._home = self._cache._home  # noqa: SLF001 - two faces of one cache
        self._portal = Portal(self._home)

    def __repr__(self) -> str:
        return repr(self._cache).replace("SessionCache", "SyncCache")

    def __enter__(self) -> Self:
        self._home.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def session(self, user: str) -> SyncSession:
        """Return a handle of the user's session. It occupies nothing until something is loaded.

        Raises:
            InvalidKey: *user* cannot own a session.
        """
        return SyncSession(self._cache.session(user), self._portal)

    def clear(self, user: str) -> Cleared:
        """Drop all that is held for *user*; see `SyncSession.clear`. An empty user is an error, never everyone.

        Raises:
            InvalidKey: *user* cannot own a session.
        """
        return self.session(user).clear()

    def clear_all(self) -> Cleared:
        """Drop all sessions, with the promise of `SyncSession.clear` for each."""
        return self._portal.wait(self._cache.clear_all)

    def invalidate(self, resource: Resource[Any]) -> None:
        """Drop a resource's entries of every user, under all arguments; see `SyncSession.invalidate`."""
        self._portal.wait(lambda: self._cache.invalidate(resource))

    def set_policy(self, resource: Resource[Any], policy: Policy) -> None:
        """Put another policy in force, for what is held, too; see `SessionCache.set_policy`.

        Raises:
            PolicyError: the resource is derived: it is as fresh as what it is derived from.
        """
        self._cache.set_policy(resource, policy)

    def set_policies(self, policies: Mapping[Resource[Any], Policy]) -> None:
        """Put several policies in force at once; see `set_policy`."""
        self._cache.set_policies(policies)

    def policy(self, resource: Resource[Any]) -> Policy:
        """Return the policy in force."""
        return self._cache.policy(resource)

    def users(self) -> tuple[str, ...]:
        """Return the users that something is held for, or was of late."""
        return self._cache.users()

    @overload
    def stats(self) -> CacheStats: ...
    @overload
    def stats(self, user: str) -> UserStats: ...

    def stats(self, user: str | None = None) -> CacheStats | UserStats:
        """Return what was counted: a `CacheStats`, or for one user a `UserStats`.

        Raises:
            InvalidKey: *user* cannot own a session.
        """
        return self._cache.stats() if user is None else self._cache.stats(user)

    def pseudonym(self, user: str) -> str:
        """Return what stands for *user* in events; see `SessionCache.pseudonym`.

        Raises:
            InvalidKey: *user* cannot own a session.
        """
        return self._cache.pseudonym(user)

    def settled(self) -> None:
        """Return when no load is under way and ``on_event`` was told all there was to; see `SessionCache.settled`."""
        self._portal.wait(self._cache.settled)

    def close(self) -> None:
        """End all sessions, cancel loads, close connections and end the cache's thread.

        Callers that wait get `CacheClosed`, as all later do. In a forked child, where there is nothing to close, this
        does nothing.

        Raises:
            WouldBlockLoop: called on the cache's own loop.
        """
        with contextlib.suppress(ForkedCache):
            self._home.check_process()
            self._portal.close(self._cache.aclose, begin=self._stored)


if not TYPE_CHECKING:
    # Readers and tools see the options that the annotations above declare.
    SyncSession.get.__doc__ = (
        "Return the value that `lookup()` returns; parameters and exceptions are the same."
    )
    SyncSession.get.__signature__ = inspect.signature(SyncSession.lookup).replace(return_annotation="T")
