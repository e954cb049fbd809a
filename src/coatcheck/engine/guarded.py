"""A store kept at arm's length: whatever it does, who asks it has an answer or a `StoreFailed` in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from coatcheck.engine.connections import retrieve
from coatcheck.engine.entry import NEVER
from coatcheck.engine.slots import Slots, Ticket
from coatcheck.engine.store import is_closed, is_shared
from coatcheck.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from coatcheck.clock import Clock
    from coatcheck.engine.store import Store

T = TypeVar("T")

AT_ONCE = 128
"""Operations under way at once. What waits for a turn has its whole budget still before it."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds for which a store that failed is left alone, doubled from failure to failure."""


class GuardedStore:
    """Asks a store, within time budgets. After a failure only one in a while asks, until an answer comes.

    Attributes:
        failures: operations that failed or did not end in time.
        bypassed: operations that were not even asked for, because the store had just failed.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._pause = 0.0
        self._alone_until = NEVER
        self._turns = Slots(AT_ONCE)
        # What did not end in time: waited for by nobody. The loop itself keeps only weak references to tasks.
        self._late: set[asyncio.Future[object]] = set()
        self.failures = 0
        self.bypassed = 0

    @property
    def failing(self) -> bool:
        """Whether the last operation failed."""
        return self._pause > 0

    @property
    def shared(self) -> bool:
        """Whether others may end sessions in the store."""
        return is_shared(self._store)

    @property
    def closed(self) -> bool:
        """Whether the store says that it is closed."""
        return is_closed(self._store)

    async def read(self, work: Callable[[Store], Awaitable[T]], *, seconds: float) -> T:
        """Return what *work* on the store returns; before writes when turns are short.

        Cancelling who asks leaves it open whether it was done, as a failure does.

        Args:
            work: begins one operation.
            seconds: how long it may take.

        Raises:
            StoreFailed: it failed, was not asked, or took too long; then it may be done later.
        """
        return await self._in_turn(work, seconds, background=False)

    async def write(self, work: Callable[[Store], Awaitable[T]], *, seconds: float) -> T:
        """Do the same for a write."""
        return await self._in_turn(work, seconds, background=True)

    async def insist(self, work: Callable[[Store], Awaitable[T]], *, seconds: float) -> T:
        """Do the same at once, also if the store has just failed."""
        return await self._ask(work, seconds)

    def moved(self) -> None:
        """Forget who waited for a turn on a loop that has ended."""
        self._turns = Slots(AT_ONCE)
        self._late = set()

    async def _in_turn(self, work: Callable[[Store], Awaitable[T]], seconds: float, *, background: bool) -> T:
        turns = self._turns
        self._check_alone()
        await turns.take(Ticket(background=background))
        try:
            self._check_alone()
            if self.failing:
                # This one finds out; the others go on without meanwhile.
                self._alone_until = self._clock.monotonic() + self._pause
            return await self._ask(work, seconds)
        finally:
            turns.give_back()

    def _check_alone(self) -> None:
        if self._clock.monotonic() < self._alone_until:
            self.bypassed += 1
            raise StoreFailed("the store has just failed and is left alone for a moment")

    async def _ask(self, work: Callable[[Store], Awaitable[T]], seconds: float) -> T:
        asked = asyncio.ensure_future(_only_ours(work, self._store))
        # Who waits may be cancelled at the very moment at which it fails.
        asked.add_done_callback(retrieve)
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({asked, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            if not asked.done():
                self._give_up(asked)
        if asked.done() and not asked.cancelled() and asked.exception() is None:
            self._pause, self._alone_until = 0.0, NEVER
            return asked.result()
        self.failures += 1
        self._pause = min(max(FIRST_PAUSE, self._pause * 2), LONGEST_PAUSE)
        self._alone_until = self._clock.monotonic() + self._pause
        if asked.done() and not asked.cancelled():
            error = asked.exception()
            # A stranger's subclass may say anything, or raise in doing so.
            told = str(error) if type(error) is StoreFailed else type(error).__name__
            raise StoreFailed(f"the store failed: {told}")
        raise StoreFailed("the store did not answer in time")

    async def aclose(self, seconds: float) -> None:
        """Close the store, waiting no longer than so."""
        await self.insist(lambda store: store.aclose(), seconds=seconds)

    def _give_up(self, asked: asyncio.Future[T]) -> None:
        asked.cancel()
        late: asyncio.Future[object] = asked  # type: ignore[assignment]
        self._late.add(late)
        late.add_done_callback(self._late.discard)


async def _only_ours(work: Callable[[Store], Awaitable[T]], store: Store) -> T:
    try:
        return await work(store)
    except (StoreFailed, asyncio.CancelledError):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a store raises, it must not fail a get
        kind = type(error).__name__
    # What a foreign exception says may hold what was to be stored.
    raise StoreFailed(kind)
