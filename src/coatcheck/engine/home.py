"""The home loop of a cache: where its loads run, whoever asks.

Home is a loop that runs. When it has ended, as between two ``asyncio.run``, the next caller's loop is adopted.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from coatcheck.errors import CacheClosed, ForkedCache

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

# How often a visitor from another loop looks whether home still runs: an ended loop tells nobody.
_LIVENESS_SECONDS = 1.0
_homes: weakref.WeakSet[Home] = weakref.WeakSet()
_hook_lock = threading.Lock()
_hooked: list[bool] = []


class Home:
    """The loop that a cache's loads run on.

    Args:
        moved_in: called on a loop that has just become home; the loads of a former one must fail.
        forked: called in a forked child.
    """

    def __init__(self, *, moved_in: Callable[[], None], forked: Callable[[], None]) -> None:
        self._moved_in = moved_in
        self._forked = forked
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._in_child = False
        self.closed = False
        _watch_forks(self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that is home now."""
        assert self._loop is not None
        return self._loop

    def check(self) -> None:
        """Raise when this cache cannot be used here.

        Raises:
            ForkedCache: it was made in the parent process.
            CacheClosed: it was closed.
        """
        if self._in_child:
            raise ForkedCache("this cache was made before the process was forked; make one in the child")
        if self.closed:
            raise CacheClosed("this cache is closed")

    def is_here(self) -> bool:
        """Tell whether the caller runs on the home loop."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run *work* at home and return its result; cancelling the caller cancels it there."""
        while True:
            self.check()
            home = self._settle()
            if home is asyncio.get_running_loop():
                return await work()
            try:
                return await self._visit(home, work)
            except _HomeEnded:
                continue

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back between two steps of the home loop."""
        self.loop.call_soon(callback)

    def _settle(self) -> asyncio.AbstractEventLoop:
        home = self._loop
        if home is not None and home.is_running():
            return home
        with self._lock:
            if self._loop is None or not self._loop.is_running():
                self._loop = asyncio.get_running_loop()
                self._moved_in()
            return self._loop

    async def _visit(self, home: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        coroutine = work()
        try:
            there = asyncio.run_coroutine_threadsafe(coroutine, home)
        except RuntimeError:
            coroutine.close()
            raise _HomeEnded from None
        here = asyncio.wrap_future(there)
        try:
            while not here.done():
                await asyncio.wait({here}, timeout=_LIVENESS_SECONDS)
                if not here.done() and not home.is_running():
                    raise _HomeEnded
        finally:
            # Does nothing to what has ended; otherwise the caller was cancelled, or home has gone.
            there.cancel()
        if here.cancelled():
            # Home's own shutdown cancelled it; this caller was not cancelled and asks the next home.
            raise _HomeEnded
        return here.result()

    def _fork(self) -> None:
        self._in_child = True
        self._forked()


class _HomeEnded(Exception):
    pass


def _watch_forks(home: Home) -> None:
    with _hook_lock:
        _homes.add(home)
        if not _hooked:
            _hooked.append(True)
            os.register_at_fork(after_in_child=_note_fork)


def _note_fork() -> None:
    for home in list(_homes):
        home._fork()  # noqa: SLF001
