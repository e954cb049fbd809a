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
        self._ledger.tallies[resource.index].wait_latency.record(seconds)
        if outcome is Outcome.STALE_HIT:
            self.count(call.state, resource, Count.STALE_HITS)
            self._tell(call.state.user, lambda pseudonym: StaleServed(resource.name, pseudonym))
        else:
            self.count(call.state, resource, Count.MISSES if outcome is Outcome.MISS else Count.COALESCED)
        self.count(call.state, resource, Count.OWED, resource.calls(passed))
        return outcome

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

    def count(self, state: State, resource: Resource[Any], what: Count, number: int = 1) -> None:
        """Add to the counts of a resource and of the user's."""
        self._ledger.tallies[resource.index].counts[what] += number
        state.count(resource.index, what, number)
