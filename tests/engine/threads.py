"""What tests with several threads and loops share: threads that hand on what they raise, and an upstream for them."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import traceback
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from coatcheck.engine.catalog import Catalog
from coatcheck.engine.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which a thread that should have met another has failed to."""


def spawn(work: Callable[[], T]) -> Future[T]:
    """Run *work* in a thread of its own."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised in the thread that asks for the result
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done


def spawn_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
    """Run *work* with ``asyncio.run`` in a thread of its own."""
    return spawn(lambda: asyncio.run(work()))


def result(done: Future[T]) -> T:
    return done.result(PATIENCE)


def meet(event: threading.Event) -> None:
    """Wait for another thread."""
    assert event.wait(PATIENCE)


async def reach(event: threading.Event) -> None:
    """Wait for another thread without blocking this loop."""
    assert await asyncio.get_running_loop().run_in_executor(None, event.wait, PATIENCE)


async def until(check: Callable[[], bool]) -> None:
    """Turn this loop until something holds that takes more than its turns: a store with threads of its own, say."""
    async with asyncio.timeout(PATIENCE):
        while not check():  # noqa: ASYNC110 - in another thread nobody sets an event for it
            await asyncio.sleep(0)


def in_child(check: Callable[[], None]) -> int:
    """Return the exit code of a forked child that checks something: 0 if it holds there."""
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        # A child that hangs tells where, and is ended by the kernel.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, file=2, chain=True)
        signal.alarm(30)
        check()
        code = 0
    except BaseException:  # noqa: BLE001 - shown here; the parent sees the code
        traceback.print_exc()
    finally:
        os._exit(code)


class Loaded(NamedTuple):
    """One call of a loader: for whom, on which loop, and in which thread."""

    user: str
    loop: asyncio.AbstractEventLoop
    thread: int


class Api:
    """What connect returns."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1


class Upstream:
    """A catalog whose loads are noted, and answered by a function of the number of the call, which may block or wait.

    ``account`` <- ``project`` (derived) <- ``zones`` (with a defaulted argument of the caller's); ``notes`` is of a
    type that can be changed.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        self.calls: list[Loaded] = []
        self.apis: list[Api] = []
        self.begun = threading.Event()
        self.answer: Callable[[int], Any] = lambda number: number
        self.catalog: Catalog[Api] = Catalog("threads")
        policy = Policy() if policy is None else policy

        @self.catalog.resource(policy)
        async def account(api: Api) -> int:
            self.calls.append(Loaded(api.user, asyncio.get_running_loop(), threading.get_ident()))
            number = len(self.calls)
            self.begun.set()
            answer = self.answer(number)
            value: int = await answer if asyncio.iscoroutine(answer) else answer
            return value

        @self.catalog.derived
        def project(account: int) -> int:
            return account * 10

        @self.catalog.resource(policy)
        async def zones(api: Api, project: int, kind: str = "all") -> tuple[str, ...]:
            return (f"{api.user}/{project}/{kind}",)

        @self.catalog.resource(policy)
        async def notes(api: Api) -> list[int]:
            return [1, 2]

        self.account = account
        self.project = project
        self.zones = zones
        self.notes = notes

    def connect(self, user: str) -> Api:
        api = Api(user)
        self.apis.append(api)
        return api

    def hold_first(self, value: int = -1) -> Gate:
        """Let the first load wait at a gate on its loop; further ones are answered with their number."""
        gate = Gate(value)
        self.answer = lambda number: gate.passed() if number == 1 else number
        return gate


class Gate:
    """Where a load waits on its loop until some thread opens it.

    Attributes:
        cancelled: a load was cancelled there.
    """

    def __init__(self, value: int) -> None:
        self._value = value
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: asyncio.Future[None] | None = None
        self._reached = threading.Event()
        self.cancelled = threading.Event()

    async def passed(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.create_future()
        self._reached.set()
        try:
            await self._opened
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return self._value

    def open(self) -> None:
        """Let the load that waits here go on, or the next one that comes to wait."""
        meet(self._reached)
        assert self._loop is not None
        assert self._opened is not None
        self._loop.call_soon_threadsafe(self._opened.set_result, None)


def conserved(gets: Any) -> bool:
    """Tell whether every get that ended was counted once."""
    ended = gets.hits + gets.stale_hits + gets.coalesced + gets.misses + gets.failed + gets.cancelled
    return bool(gets.gets == ended)


def hit(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a get finds in memory, without any loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    coroutine.close()
    raise AssertionError("this get had to wait")
