"""The way to the store with one rule taken out at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

from coatcheck.engine import persistence, write_behind
from coatcheck.engine.keys import encode
from coatcheck.engine.outbox import Outbox
from coatcheck.engine.persistence import Persistence
from coatcheck.engine.repairs import Repair, Repairs, _clear
from coatcheck.engine.store import Written
from coatcheck.engine.write_behind import WriteBehind
from coatcheck.errors import StoreFailed
from engine.mutants import MUTANTS, mutant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coatcheck.engine.outbox import Put

__all__ = ["MUTANTS"]


@mutant
def no_fence_at_restore() -> Iterator[None]:
    """What was read is brought into whatever session the user has by then."""
    bring, take_up = Persistence._bring, Persistence._take_up
    read: dict[int, list[Put]] = {}

    async def noting(
        self: Persistence, records: Any, asked: float, outbox: Any, found: Any, bad: Any
    ) -> None:
        await take_up(self, records, asked, outbox, found, bad)
        read[id(outbox)] = found

    async def unfenced(self: Persistence, state: Any, outbox: Any) -> None:
        await bring(self, state, outbox)
        if state.closed and not self._home.closed:
            now = self._sessions.open(state.user, self._clock.monotonic())
            for each in read.get(id(outbox), ()):
                self._sessions.keep(now, each.resource, each.key, each.entry, stored=True)

    with (
        mock.patch.object(Persistence, "_take_up", noting),
        mock.patch.object(Persistence, "_bring", unfenced),
    ):
        yield


@mutant
def trusted_after_a_failed_write() -> Iterator[None]:
    begin = Repairs.begin

    def trusting(self: Repairs, user: str | None, *, delay: float | None = None) -> Repair:
        # Only a write that failed says how long to wait.
        return begin(self, user) if delay is None else Repair()

    with mock.patch.object(Repairs, "begin", trusting):
        yield


@mutant
def clear_is_tried_once() -> Iterator[None]:
    attempt = Repairs._attempt

    async def only(self: Repairs, user: str | None, repair: Repair) -> bool:
        if not await attempt(self, user, repair) and not repair.waiting:
            self._end(user)
        return not repair.waiting

    with mock.patch.object(Repairs, "_attempt", only):
        yield


@mutant
def clear_is_answered_by_an_earlier_one() -> Iterator[None]:
    async def attempt(self: Repairs, user: str | None, repair: Repair) -> bool:
        try:
            await self._store.insist(lambda store: _clear(store, self._catalog, user))
            applied = True
        except StoreFailed:
            applied = False
        with self._home.step:
            waiting, repair.waiting = repair.waiting, []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(applied)
            if applied:
                self._end(user)
            return applied

    with mock.patch.object(Repairs, "_attempt", attempt):
        yield


@mutant
def writes_go_on_after_a_clear() -> Iterator[None]:
    """What was to be written for a session that was cleared is written under the id of the next one."""

    def abandon(self: Outbox) -> None:
        self.id = None
        self.restored = True

    with mock.patch.object(Outbox, "abandon", abandon):
        yield


@mutant
def deletes_stay_in_memory() -> Iterator[None]:
    with mock.patch.object(WriteBehind, "dropped", return_value=None):
        yield


@mutant
def rows_read_before_everyone_lost_them_come_in() -> Iterator[None]:
    with mock.patch.object(Persistence, "forgetting", lambda self, _resources: self._clock.monotonic()):
        yield


@mutant
def life_begins_with_the_restore() -> Iterator[None]:
    take_up = Persistence._take_up

    async def reborn(
        self: Persistence, records: Any, asked: float, outbox: Any, found: Any, bad: Any
    ) -> None:
        await take_up(self, records, asked, outbox, found, bad)
        for each in found:
            each.entry.started = asked

    with mock.patch.object(Persistence, "_take_up", reborn):
        yield


@mutant
def rights_do_not_matter() -> Iterator[None]:
    def under(_outbox: Outbox) -> bytes:
        return encode("")

    with mock.patch.object(persistence, "under", under), mock.patch.object(write_behind, "under", under):
        yield


@mutant
def end_of_a_session_goes_unnoticed() -> Iterator[None]:
    apply = WriteBehind._apply

    async def deaf(self: WriteBehind, *given: Any) -> Written | None:
        written = await apply(self, *given)
        return Written.APPLIED if written is Written.ENDED else written

    with mock.patch.object(WriteBehind, "_apply", deaf):
        yield


@mutant
def stored_session_is_read_while_it_is_cleared() -> Iterator[None]:
    with mock.patch.object(Repairs, "trusted", return_value=True):
        yield


@mutant
def nothing_is_brought_in() -> Iterator[None]:
    """A store that is only written is as safe as none, and as useful."""

    async def leave(self: Persistence, *_given: Any) -> None:
        pass

    with mock.patch.object(Persistence, "_take_up", leave):
        yield
