"""What ``connect`` returned for each session: asked for once, shared by its loads, closed when it is over."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any, cast

from coatcheck.engine.state import Connected
from coatcheck.errors import CacheClosed, LoaderBroke, LoadTimeout, SessionCleared

if TYPE_CHECKING:
    from collections.abc import Callable

    from coatcheck.clock import Clock
    from coatcheck.engine.home import Home
    from coatcheck.engine.state import State

CLOSE_SECONDS = 10.0
"""How long the closing of a connection is waited for."""

CALL_SECONDS = 30.0
"""How long a call that is no load waits for its connection: a load has a deadline of its own."""

logger = logging.getLogger("coatcheck.engine")


class Connections:
    """The connections of one cache's sessions; each is kept in its state.

    Args:
        home: where they belong.
        connect: asked for one, with a user.
        clock: the time.
        spawn: runs a coroutine as a task that the cache owns, in an empty context.
        begin: does the same as a part of the load that asks.
        disown: lets such a task go, so that nobody waits for its end.
    """

    def __init__(
        self,
        *,
        home: Home,
        connect: Callable[[str], Any],
        clock: Clock,
        spawn: Callable[[Any], asyncio.Task[Any]],
        begin: Callable[[Any], asyncio.Task[Any]],
        disown: Callable[[asyncio.Task[Any]], object],
    ) -> None:
        self._home = home
        self._connect = connect
        self._clock = clock
        self._spawn = spawn
        self._begin = begin
        self._disown = disown
        # What was given up and has not ended: waited for by nobody, and the loop keeps only weak references to tasks.
        self._abandoned: set[asyncio.Future[Any]] = set()

    async def of(self, state: State) -> Any:
        """Return a session's connection, asking for it if there is none. Cancelling who waits touches nobody else.

        Raises:
            SessionCleared, CacheClosed: the session has ended.
            LoadTimeout: a load that waited for it reached its deadline.
            LoaderBroke: it was cancelled from within. What ``connect`` raises is raised as it is.
        """
        with self._home.step:
            if state.closed:
                raise end_of_session(self._home)
            if state.connection is None:
                task = self._begin(_open(self._connect, state.user))
                task.add_done_callback(retrieve)
                state.connection = task
            connection = state.connection
        if isinstance(connection, Connected):
            return connection.api
        try:
            connected: Connected = await asyncio.shield(connection)
        except BaseException as error:
            with self._home.lock:
                # One that has just succeeded stays, though this waiter was cancelled at the same moment.
                if state.connection is connection and _failed(connection):
                    state.connection = None
            me = asyncio.current_task()
            if not isinstance(error, asyncio.CancelledError) or me is None or me.cancelling():
                raise
            # It was connect that was cancelled, not who waits for it.
            if state.closed:
                raise end_of_session(self._home) from None
            if isinstance(connection, asyncio.Task) and connection.cancelling():
                raise LoadTimeout(
                    "connect did not end before the deadline of a load that waited for it"
                ) from None
            raise LoaderBroke("connect was cancelled from within") from None
        with self._home.lock:
            if state.connection is connection:
                state.connection = connected
        return connected.api

    async def in_time(self, state: State) -> Any:
        """Do the same for who has no deadline.

        Raises:
            LoadTimeout: it takes too long.
        """
        asking = asyncio.ensure_future(self.of(state))
        asking.add_done_callback(retrieve)
        patience = asyncio.ensure_future(self._clock.sleep(CALL_SECONDS))
        try:
            await asyncio.wait({asking, patience}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            patience.cancel()
            if not asking.done():
                asking.cancel()
        if asking.done():
            return asking.result()
        with self._home.lock:
            self.give_up(state)
        raise LoadTimeout("connect did not end in time")

    def give_up(self, state: State) -> None:
        """Ask anew the next time, if it is still asked for: one that hangs must not make every later load hang, too."""
        connection = state.connection
        if connection is not None and not isinstance(connection, Connected) and not connection.done():
            state.connection = None
            self._discard(connection)

    def release(self, state: State) -> None:
        """Close a closed session's connection, unless a load still uses it."""
        connection = state.connection
        if connection is None:
            return
        logging_in = not isinstance(connection, Connected) and not connection.done()
        # Nobody is left who could use what a log-in under way brings; one not yet begun would be a call after the clear.
        if state.loading > 0 and not logging_in:
            return
        state.connection = None
        if isinstance(connection, Connected):
            self._spawn(self._close(connection.api))
        else:
            self._discard(connection)

    def _discard(self, connection: asyncio.Future[Any]) -> None:
        """Close a connection that nobody uses any more, or give up the attempt to get one."""
        if connection.done():
            self._abandoned.discard(connection)
            if not connection.cancelled() and connection.exception() is None:
                self._spawn(self._close(connection.result().api))
            return
        connection.cancel()
        # One that takes no notice is waited for by nobody; what it brings in the end is closed.
        self._abandoned.add(connection)
        self._disown(cast("asyncio.Task[Any]", connection))
        connection.add_done_callback(self._discard)

    async def _close(self, api: Any) -> None:
        closing = asyncio.create_task(_close(api))
        patience = asyncio.create_task(self._clock.sleep(CLOSE_SECONDS))
        await asyncio.wait({closing, patience}, return_when=asyncio.FIRST_COMPLETED)
        patience.cancel()
        if not closing.done():
            logger.warning("closing a connection did not end within %s s", CLOSE_SECONDS)
            closing.cancel()
            self._abandoned.add(closing)
            closing.add_done_callback(self._abandoned.discard)


def end_of_session(home: Home) -> CacheClosed | SessionCleared:
    """Return what a call gets that needs a load of a session which has ended."""
    if home.closed:
        return CacheClosed("the cache was closed before this load could begin")
    return SessionCleared("the session was cleared before this load could begin; ask again")


def retrieve(task: asyncio.Future[Any]) -> None:
    """Look at a task's exception: all who waited for it may have been cancelled, and then nobody else does."""
    if not task.cancelled():
        task.exception()


def _failed(connection: asyncio.Future[Any]) -> bool:
    return connection.done() and (connection.cancelled() or connection.exception() is not None)


async def _open(connect: Callable[[str], Any], user: str) -> Connected:
    """Return what *connect* does in a wrapping that shows nothing: asyncio logs tasks with their results."""
    try:
        api = connect(user)
        return Connected(await api if inspect.isawaitable(api) else api)
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:  # noqa: BLE001 - let through, it would end the loop and everybody's loads
        raise LoaderBroke(f"connect raised {type(error).__name__}") from None


async def _close(api: Any) -> None:
    close = getattr(api, "aclose", None)
    if close is None:
        return
    try:
        await close()
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - the session is gone; there is nobody to raise this to
        logger.warning("closing a connection failed: %s", type(error).__name__)
