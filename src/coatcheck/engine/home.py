"""The home loop of a cache: where its loads run, whoever asks.

Home is a loop that runs. When it has ended, as between two ``asyncio.run``, the next caller's loop is adopted.

A loop tells nobody that it has ended, and one that has may run once more: ``asyncio.run`` itself does, to cancel what
is left. So whatever changes what the cache holds is done in a *step*: under one lock, which adopting takes as well. A
loop that is home no longer is told so at its next step and changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from coatcheck.errors import CacheClosed, CoatcheckError, ForkedCache

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

# How often one who waits for another loop looks whether it still runs: a loop that was stopped tells nobody.
LIVENESS_SECONDS = 0.25
_homes: weakref.WeakSet[Home] = weakref.WeakSet()


class HomeEnded(Exception):
    """The loop that was asked is home no longer: ask the next one."""


class Step:
    """A step of work at home, as a context manager: no await in it, no other thread's step and no move meanwhile.

    Raises:
        HomeEnded: the loop that runs here is not home.
    """

    __slots__ = ("_home",)

    def __init__(self, home: Home) -> None:
        self._home = home

    def __enter__(self) -> None:
        lock = self._home.lock
        lock.acquire()
        if not self._home.is_here():
            lock.release()
            raise HomeEnded

    def __exit__(self, *_error: object) -> None:
        self._home.lock.release()


class Home:
    """The loop that a cache's loads run on.

    Args:
        moved_in: called, within a step, on a loop that has just become home, with the former one; its loads must fail.
        forked: called in a forked child, if the cache had been used before.

    Attributes:
        lock: what every change of what the cache holds is made under. It may be taken again by who has it.
        step: as ``with home.step:``, one step of work at home.
        used: a loop is or was home, or is about to be; or what the cache holds is of this process alone.
        closed: the cache is.
    """

    def __init__(
        self,
        *,
        moved_in: Callable[[asyncio.AbstractEventLoop | None], None],
        forked: Callable[[], None],
    ) -> None:
        self._moved_in = moved_in
        self._forked = forked
        self._loop: asyncio.AbstractEventLoop | None = None
        self._in_child = False
        self._ending = False
        self._guests: set[asyncio.Task[Any]] = set()
        self.lock = threading.RLock()
        self.step = Step(self)
        self.used = False
        self.closed = False
        _watch_forks()
        _homes.add(self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that is home now."""
        assert self._loop is not None
        return self._loop

    def check(self) -> None:
        """Raise when this cache cannot be used here.

        Raises:
            ForkedCache: it was used in the parent process.
            CacheClosed: it was closed.
        """
        self.check_process()
        if self.closed:
            raise CacheClosed("this cache is closed")

    def check_process(self) -> None:
        """Raise in a forked child, if the cache had been used before.

        Raises:
            ForkedCache: it was used in the parent process.
        """
        if self._in_child:
            raise ForkedCache("this cache was used before the process was forked; make one in the child")

    def is_here(self) -> bool:
        """Tell whether the caller runs on the home loop."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run *work* at home and return its result; cancelling the caller cancels it there.

        When home ends meanwhile, *work* is begun anew at the next home.
        """
        while True:
            self.check()
            here = asyncio.get_running_loop()
            home = self._settle(here)
            try:
                if home is here:
                    return await work()
                return await Visit(home, work, host=self).over()
            except HomeEnded:
                continue

    async def do(self, change: Callable[[], T]) -> T:
        """Do *change*, which awaits nothing, as one step at home and return its result."""

        async def step() -> T:
            with self.step:
                return change()

        return await self.run(step)

    def receive(self, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Begin the work of a visitor from another loop, on the loop that runs here.

        Raises:
            HomeEnded: this is not home, or is about to end.
        """
        self.check()
        with self.step:
            if self._ending:
                raise HomeEnded
            task = self.loop.create_task(work())
            self._guests.add(task)
            task.add_done_callback(self._guests.discard)
            return task

    def show_out(self) -> None:
        """Send all visitors to the next home, within a step: this loop is being shut down and takes in no more."""
        self._ending = True
        for task in self._guests:
            task.cancel()

    def soon(self, callback: Callable[[], object]) -> None:
        """Call back at home between two steps of its loop, in an empty context; never, if home has ended. Any thread."""
        loop = self._loop
        if loop is not None:
            call = loop.call_soon if self.is_here() else loop.call_soon_threadsafe
            with contextlib.suppress(RuntimeError):
                call(callback, context=contextvars.Context())

    def _settle(self, here: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        home = self._loop
        if home is not None and self._takes_in(home, here):
            return home
        with self.lock:
            self.check()
            former = self._loop
            if former is not None and self._takes_in(former, here):
                return former
            self.used = True
            self._ending = False
            self._loop = here
            self._guests = set()
            self._moved_in(former)
            return here

    def _takes_in(self, home: asyncio.AbstractEventLoop, here: asyncio.AbstractEventLoop) -> bool:
        return home is here or (home.is_running() and not self._ending)

    def _fork(self) -> None:
        if self.used:
            self._in_child = True
            self._forked()
        else:
            # Whoever held it does not exist here.
            self.lock = threading.RLock()


class Answer:
    """What a visitor's work came to. Shows nothing of it: asyncio logs tasks with their results."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error

    def __repr__(self) -> str:
        return "<answer>"


class Visit(Generic[T]):
    """Work that somebody in another thread has done on *loop*, to be waited for there.

    Args:
        loop: where.
        work: called there, in the visitor's context.
        host: receives the visitor there; None when the loop is there for such visits alone.
    """

    __slots__ = ("_end", "_host", "_left", "_loop", "_task", "_work")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Callable[[], Coroutine[Any, Any, T]],
        *,
        host: Home | None = None,
    ) -> None:
        self._loop = loop
        self._work = work
        self._host = host
        self._task: asyncio.Task[Answer] | None = None
        self._left = False
        self._end: Future[T] = Future()

    async def over(self) -> T:
        """Return the result without blocking the visitor's loop; who is cancelled meanwhile cancels the work.

        Raises:
            HomeEnded: the loop has ended without an answer.
        """
        mine = asyncio.get_running_loop()
        told = mine.create_future()

        def wake() -> None:
            if not told.done():
                told.set_result(None)

        try:
            self._begin()
            self._end.add_done_callback(lambda _: tell(mine, wake))
            while not self._end.done():
                await asyncio.wait({told}, timeout=LIVENESS_SECONDS)
                self._check_alive()
        except BaseException:
            self._leave()
            raise
        try:
            return self._end.result()
        finally:
            del self  # an exception, its traceback and this frame would keep each other

    def wait(self) -> T:
        """Return the result, blocking the visitor's thread; who is interrupted meanwhile cancels the work.

        Raises:
            HomeEnded: the loop has ended without an answer.
        """
        try:
            self._begin()
            while not self._end.done():
                with contextlib.suppress(TimeoutError):
                    self._end.exception(LIVENESS_SECONDS)
                self._check_alive()
        except BaseException:
            self._leave()
            raise
        try:
            return self._end.result()
        finally:
            del self  # as above

    def _begin(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._start)
        except RuntimeError:
            raise HomeEnded from None

    def _check_alive(self) -> None:
        if not self._loop.is_running() and not self._end.done():
            raise HomeEnded

    def _leave(self) -> None:
        self._left = True
        tell(self._loop, self._cancel)

    # -- on the loop that is visited ------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._left:
            return
        try:
            if self._host is None:
                self._task = self._loop.create_task(self._answer())
            else:
                self._task = self._host.receive(self._answer)
        except (HomeEnded, CoatcheckError) as error:
            self._end.set_exception(error)
        else:
            self._task.add_done_callback(self._finish)

    async def _answer(self) -> Answer:
        try:
            return Answer(await self._work())
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - it is the visitor's, and must not end the loop that is visited
            return Answer(error=error)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _finish(self, task: asyncio.Task[Answer]) -> None:
        if task.cancelled():
            # Either the visitor has left and does not look, or the loop was shut down and cancelled all it ran.
            self._end.set_exception(HomeEnded())
            return
        answer = task.result()
        if answer.error is None:
            self._end.set_result(answer.value)
        else:
            self._end.set_exception(answer.error)


def tell(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call back on *loop*, from any thread; never, if it does not run any more."""
    with contextlib.suppress(RuntimeError):  # it is closed
        loop.call_soon_threadsafe(callback)


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_note_fork)


def _note_fork() -> None:
    for home in list(_homes):
        home._fork()  # noqa: SLF001
