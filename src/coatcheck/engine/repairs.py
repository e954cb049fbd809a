"""Clears of the store, repeated until they are applied; until then nothing of whom they are about is read.

A clear asked for by a user and the repair of a copy that a failed write left behind are one and the same.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Final

from coatcheck.engine.home import HomeEnded
from coatcheck.engine.store import Owner
from coatcheck.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from coatcheck.clock import Clock
    from coatcheck.engine.guarded import GuardedStore
    from coatcheck.engine.home import Home
    from coatcheck.engine.store import Store

MOST_DISTRUSTED: Final = 10_000
"""Beyond so many users all are distrusted."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0

logger = logging.getLogger("coatcheck.engine")


class Repair:
    """A clear that has to be applied, of one user or of everyone.

    Attributes:
        waiting: callers who asked for it, answered by the next attempt that begins.
        pause: the sleep before the next attempt, which a further caller cuts short.
    """

    __slots__ = ("pause", "task", "waiting")

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[bool]] = []
        self.pause: asyncio.Task[None] | None = None
        self.task: asyncio.Task[None] | None = None


class Repairs:
    """The clears under way of one cache. Changed under its lock only.

    Args:
        repaired: called, within a step, with a user, or with None for everyone, who can be written for again.
    """

    def __init__(
        self,
        store: GuardedStore,
        catalog: str,
        *,
        home: Home,
        clock: Clock,
        repaired: Callable[[str | None], None],
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._home = home
        self._clock = clock
        self._repaired = repaired
        # Under None the one of everyone.
        self._under_way: dict[str | None, Repair] = {}
        self._stopped = False

    def trusted(self, user: str) -> bool:
        """Tell whether the store may be read and written for *user*."""
        return not self._under_way or (user not in self._under_way and None not in self._under_way)

    def users(self) -> int:
        """Return how many users are distrusted one by one."""
        return len(self._under_way) - self.everyone()

    def everyone(self) -> bool:
        """Tell whether the whole store is distrusted."""
        return None in self._under_way

    def ask(self, user: str | None) -> asyncio.Future[bool]:
        """Begin a clear, for None of everyone; return what resolves to whether it was applied at once.

        Only an attempt that begins after this call answers it: what was written before must be gone.
        """
        repair = self.begin(user)
        waiter: asyncio.Future[bool] = self._home.loop.create_future()
        repair.waiting.append(waiter)
        if repair.pause is not None:
            repair.pause.cancel()
        return waiter

    def begin(self, user: str | None, *, delay: float = 0.0) -> Repair:
        """Distrust a user, or for None everyone, until a clear of theirs is applied, which begins in *delay* seconds."""
        repair = self._under_way.get(user)
        if repair is None:
            if user is not None and len(self._under_way) >= MOST_DISTRUSTED:
                return self.begin(None)
            repair = self._under_way[user] = Repair()
        if repair.task is None and not self._stopped:
            repair.task = self._home.loop.create_task(
                self._run(user, repair, delay), context=contextvars.Context()
            )
        return repair

    def note(self, user: str | None) -> None:
        """Do the same, but leave the clear to another home: the loop of this one is being shut down."""
        self._under_way.setdefault(user, Repair())

    def moved(self) -> None:
        """Go on at another home; who waited at the former one asks again."""
        former, self._under_way = self._under_way, {}
        for user in former:
            self.begin(user)

    async def finish(self) -> None:
        """Give every clear that is not applied yet one more attempt."""
        with self._home.step:
            asked = [self.ask(user) for user in list(self._under_way)]
        if asked:
            await asyncio.wait(asked)

    def stop(self) -> None:
        """Try no more, and say so if something is not applied."""
        left, self._under_way = self._under_way, {}
        self._stopped = True
        if left and self._store.closed:
            logger.error(
                "the store was closed before its cache was: what changed since then of %s, clears too, is not in it",
                "1 user" if len(left) == 1 else f"{len(left)} users",
            )
        elif left:
            clears = "1 clear" if len(left) == 1 else f"{len(left)} clears"
            logger.error("%s could not be applied to the store before it was closed", clears)
        for repair in left.values():
            for waiter in repair.waiting:
                if not waiter.done():
                    waiter.set_result(False)
            if repair.task is not None:
                repair.task.cancel()

    async def _run(self, user: str | None, repair: Repair, delay: float) -> None:
        try:
            await self._rest(repair, delay)
            while not await self._attempt(user, repair):
                delay = longer(delay)
                await self._rest(repair, delay)
        except HomeEnded:
            # It goes on at the next one, and so do they who wait here, should this loop run again.
            for waiter in repair.waiting:
                if not waiter.done():
                    waiter.set_exception(HomeEnded())
                    waiter.exception()  # looked at: perhaps nobody else does
        finally:
            if repair.pause is not None:
                repair.pause.cancel()
            repair.task = None

    async def _rest(self, repair: Repair, seconds: float) -> None:
        """Let time pass, unless a caller waits or comes."""
        with self._home.step:
            if repair.waiting or seconds <= 0:
                return
            repair.pause = asyncio.create_task(self._clock.sleep(seconds))
        await asyncio.wait({repair.pause})
        repair.pause = None

    async def _attempt(self, user: str | None, repair: Repair) -> bool:
        """Try once; tell whether this repair has come to its end."""
        with self._home.step:
            self._check_current(user, repair)
            waiting, repair.waiting = repair.waiting, []
        try:
            await self._store.insist(lambda store: _clear(store, self._catalog, user))
            applied = True
        except StoreFailed:
            applied = False
        try:
            with self._home.step:
                self._check_current(user, repair)
                for waiter in waiting:
                    if not waiter.done():
                        waiter.set_result(applied)
                if not applied or repair.waiting:
                    return False
                self._end(user)
                return True
        except HomeEnded:
            repair.waiting += waiting
            raise

    def _check_current(self, user: str | None, repair: Repair) -> None:
        """Raise `HomeEnded` if another has taken a repair's place meanwhile: this loop was left, and is home again."""
        if self._under_way.get(user) is not repair:
            raise HomeEnded

    def _end(self, user: str | None) -> None:
        del self._under_way[user]
        self._repaired(user)


def longer(pause: float) -> float:
    """Return the pause that follows one, or none, in vain."""
    return min(max(FIRST_PAUSE, pause * 2), LONGEST_PAUSE)


async def _clear(store: Store, catalog: str, user: str | None) -> None:
    if user is None:
        await store.clear_all(catalog)
    else:
        await store.clear(Owner(catalog, user))
