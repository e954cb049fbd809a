"""Gets counted when they end, in the thread of the caller, on the resource that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coatcheck.engine.entry import Outcome
from coatcheck.engine.events import StaleServed
from coatcheck.engine.row import HITS
from coatcheck.engine.stats import Count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.events import Tell
    from coatcheck.engine.resolution import Call
    from coatcheck.engine.sessions import Sessions
    from coatcheck.engine.state import State
    from coatcheck.engine.stats import Ledger

# What a get counts as that had to wait.
WAITED = {
    Outcome.STALE_HIT: Count.STALE_HITS,
    Outcome.MISS: Count.MISSES,
    Outcome.COALESCED: Count.COALESCED,
}


class Counting:
    """Counts the gets of one cache, but for those that take the shortest way and count themselves."""

    def __init__(self, *, sessions: Sessions, ledger: Ledger, tell: Tell) -> None:
        self._sessions = sessions
        self._ledger = ledger
        self._tell = tell

    def note_answer(self, call: Call, resource: Resource[Any], seconds: float) -> Outcome:
        """Count a get that was answered after so many seconds; return how."""
        outcome = call.outcome()
        passed = call.request.passed
        if outcome is Outcome.HIT:
            self.note_hit(call.state, resource, passed, call.state.used)
            return outcome
        what = WAITED[outcome]
        self._note_wait(call.state, resource, what, seconds, resource.calls(passed))
        if what is Count.STALE_HITS:
            self._tell(call.state.user, lambda pseudonym: StaleServed(resource.name, pseudonym))
        return outcome

    def note_coalesced(self, state: State, resource: Resource[Any], seconds: float) -> None:
        """Count a plain get that was answered by a load which had begun before."""
        self._note_wait(state, resource, Count.COALESCED, seconds, resource.calls())

    def note_unanswered(self, user: str, resource: Resource[Any], what: Count) -> None:
        """Count a get that failed or was cancelled."""
        state = self._sessions.states.get(user)
        if state is None:
            self._ledger.tallies[resource.index].counts[what] += 1
        else:
            self.count(state, resource, what)

    def note_hit(
        self, state: State, resource: Resource[Any], passed: Mapping[str, object], now: float
    ) -> None:
        """Count a hit that did not take the shortest way."""
        self._ledger.hits[resource.mark] += 1
        state.row[resource.mark + HITS] += 1
        state.use(now)
        if passed:
            self.count(state, resource, Count.OWED, resource.calls(passed) - resource.calls())

    def _note_wait(
        self, state: State, resource: Resource[Any], what: Count, seconds: float, owed: int
    ) -> None:
        tally = self._ledger.tallies[resource.index]
        tally.wait_latency.record(seconds)
        tally.counts[what] += 1
        tally.counts[Count.OWED] += owed
        state.count_wait(resource.index, what, owed)

    def count(self, state: State, resource: Resource[Any], what: Count, number: int = 1) -> None:
        """Add to the counts of a resource and of the user's."""
        self._ledger.tallies[resource.index].counts[what] += number
        state.count(resource.index, what, number)
