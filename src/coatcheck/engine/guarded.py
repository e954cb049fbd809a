"""A store kept at arm's length: whatever it does, who asks it has an answer or a `StoreFailed` in time."""

from __future__ import annotations

import asyncio
import logging
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar, cast

from coatcheck.engine.deadlines import Deadlines
from coatcheck.engine.entry import NEVER
from coatcheck.engine.slots import Slots, Ticket
from coatcheck.engine.store import is_closed, is_shared
from coatcheck.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from coatcheck.clock import Clock
    from coatcheck.engine.store import Store

T = TypeVar("T")

logger = logging.getLogger("coatcheck.engine")

READ_SECONDS: Final = 0.25
"""How long a get waits for its turn, and as long again for the answer; and a caller for a write that they may rely on."""

WRITE_SECONDS: Final = 2.0
"""How long a write may take. No get waits for one, and a store that is merely slow should lose nothing by it."""

AT_ONCE: Final = 128
"""Reads under way at once, and writes. What has waited for its turn has its whole budget still before it."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Seconds for which a store that failed is left alone, doubled from failure to failure."""


class Answer(NamedTuple, Generic[T]):
    """What came of an operation.

    Attributes:
        result: what the store returned.
        failure: what may be said of how it failed; None if it did not.
    """

    result: T | None
    failure: str | None


class Way:
    """One of the two ways to a store: what fails or is slow on one tells nothing of the other.

    After a failure only one in a while goes, until an answer comes.

    Args:
        what: goes that way; for the log, which tells once when it fails, and when it does no more.
        seconds: how long an operation may take.
        clock: the time.

    Attributes:
        turns: for how many at once there is room.
        deadlines: of operations that go that way.
    """

    __slots__ = (
        "_alone_until", "_clock", "_failed", "_failing_since", "_pause", "_seconds", "_what", "deadlines", "turns",
    )  # fmt: skip

    def __init__(self, what: str, seconds: float, clock: Clock) -> None:
        self._what = what
        self._seconds = seconds
        self._clock = clock
        self._failing_since: float | None = None
        self._pause = 0.0
        self._failed = self._alone_until = NEVER
        self.moved()

    def moved(self) -> None:
        """Begin anew on another loop; what is known of the store stays."""
        self.turns = Slots(AT_ONCE)
        self.deadlines = Deadlines(self._seconds, self._clock)

    def is_open(self, now: float) -> bool:
        """Tell whether the store may be asked now."""
        return now >= self._alone_until

    def go(self, now: float) -> None:
        """Note that somebody asks."""
        if self._pause > 0:
            # This one finds out; the others go on without meanwhile.
            self._alone_until = now + self._pause

    def answered(self, now: float) -> None:
        """Note that an answer came."""
        self._pause, self._alone_until = 0.0, NEVER
        if self._failing_since is not None:
            logger.info("the store answers %s again, after %.1f s", self._what, now - self._failing_since)
            self._failing_since = None

    def failed(self, began: float, now: float, why: str) -> None:
        """Note that none came for what began then, and why."""
        if began <= self._failed:
            return  # of those under way at once one has told it all
        self._failed = now
        if self._failing_since is None:
            self._failing_since = now
            logger.warning(
                "the store fails to answer %s (%s): it is left alone for a while and tried again by itself; gets go on without it",
                self._what, why,
            )  # fmt: skip
        self._pause = min(max(FIRST_PAUSE, self._pause * 2), LONGEST_PAUSE)
        self._alone_until = now + self._pause


class GuardedStore:
    """Asks a store, within time budgets, and leaves it alone for a while when it fails.

    Attributes:
        failures: operations that failed or did not end in time.
        bypassed: operations that were not even asked for, because the store had just failed.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._reads = Way("reads", READ_SECONDS, clock)
        self._writes = Way("writes", WRITE_SECONDS, clock)
        # What did not end in time: waited for by nobody. The loop itself keeps only weak references to tasks.
        self._late: set[asyncio.Future[object]] = set()
        self.failures = 0
        self.bypassed = 0

    @property
    def shared(self) -> bool:
        """Whether others may end sessions in the store."""
        return is_shared(self._store)

    @property
    def closed(self) -> bool:
        """Whether the store says that it is closed."""
        return is_closed(self._store)

    async def read(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Return what *work* on the store returns: one operation, within `READ_SECONDS`, and as long again for its turn.

        Cancelling who asks leaves it open whether it was done, as a failure does.

        Raises:
            StoreFailed: it failed, was not asked, or took too long; then it may be done later.
        """
        return await self._in_turn(work, self._reads, in_time=True)

    async def write(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Do the same for a write, within `WRITE_SECONDS` from its turn, for which it waits as long as it takes."""
        return await self._in_turn(work, self._writes, in_time=False)

    async def insist(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Do the same for a write at once, also if the store has just failed."""
        return await self._ask(work, self._writes, self._writes.deadlines)

    def moved(self) -> None:
        """Forget who waited on a loop that has ended."""
        for way in (self._reads, self._writes):
            way.moved()
        self._late = set()

    async def _in_turn(self, work: Callable[[Store], Awaitable[T]], way: Way, *, in_time: bool) -> T:
        # Of the loop that runs now, should it be left while this waits.
        turns, deadlines = way.turns, way.deadlines
        self._check_open(way)
        if not await turns.take(Ticket(), within=deadlines if in_time else None):
            self.bypassed += 1
            raise StoreFailed("too many ask the store at once")
        try:
            self._check_open(way)
            way.go(self._clock.monotonic())
            return await self._ask(work, way, deadlines)
        finally:
            turns.give_back()

    def _check_open(self, way: Way) -> None:
        if not way.is_open(self._clock.monotonic()):
            self.bypassed += 1
            raise StoreFailed("the store has just failed and is left alone for a moment")

    async def _ask(self, work: Callable[[Store], Awaitable[T]], way: Way, deadlines: Deadlines) -> T:
        began = self._clock.monotonic()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer[T] | None] = loop.create_future()
        asked = loop.create_task(_answer(work, self._store, answer))
        deadlines.begin(answer)
        answered = None
        try:
            answered = await answer
        finally:
            deadlines.end(answer)
            if answered is None:
                self._give_up(asked)
        if answered is not None and answered.failure is None:
            way.answered(self._clock.monotonic())
            return cast("T", answered.result)
        why = (
            "it did not answer in time" if answered is None or answered.failure is None else answered.failure
        )
        self.failures += 1
        way.failed(began, self._clock.monotonic(), why)
        raise StoreFailed(f"the store failed: {why}")

    async def aclose(self, seconds: float) -> None:
        """Close the store, waiting no longer than so."""
        deadlines = Deadlines(seconds, self._clock)
        for each in (deadlines, self._reads.deadlines, self._writes.deadlines):
            each.last()
        await self._ask(lambda store: store.aclose(), self._writes, deadlines)

    def _give_up(self, asked: asyncio.Future[T]) -> None:
        asked.cancel()
        late: asyncio.Future[object] = asked  # type: ignore[assignment]
        self._late.add(late)
        late.add_done_callback(self._late.discard)


async def _answer(
    work: Callable[[Store], Awaitable[T]], store: Store, answer: asyncio.Future[Answer[T] | None]
) -> None:
    """Ask *store*, and resolve *answer*, unless nobody waits for it any more."""
    answered: Answer[T] | None = None
    try:
        answered = Answer(await work(store), None)
    except StoreFailed as error:
        # A stranger's subclass may say anything, or raise in doing so.
        answered = Answer(None, str(error) if type(error) is StoreFailed else told(error))
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a store raises, it must not fail a get
        answered = Answer(None, told(error))
    finally:
        if not answer.done():
            answer.set_result(answered)


def told(error: BaseException) -> str:
    """Return what may be said of a foreign exception: its kind and where it was raised. Its text may hold what was stored."""
    kind = type(error).__name__
    places = list(traceback.walk_tb(error.__traceback__))
    if not places:
        return kind
    frame, line = places[-1]
    return f"{kind} in {frame.f_code.co_name}, line {line} of {Path(frame.f_code.co_filename).name}"


async def ended_in_time(work: asyncio.Future[None], clock: Clock) -> None:
    """Return when *work* has ended, or after `READ_SECONDS`: it goes on then, and nobody waits for it."""
    timer = asyncio.ensure_future(clock.sleep(READ_SECONDS))
    try:
        await asyncio.wait({work, timer}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
