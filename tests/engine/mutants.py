"""The engine with one rule taken out at a time, to see that somebody notices."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from unittest import mock

from coatcheck.engine import cache, codec, loads, resolution, walk
from coatcheck.engine.entry import Entry
from coatcheck.engine.flight import Flight, SingleFlight
from coatcheck.engine.loads import Loads, Permit
from coatcheck.engine.policy import Freshness, Rule, death, in_force, judge
from coatcheck.engine.resolution import Resolver
from coatcheck.engine.sessions import Sessions
from coatcheck.engine.stats import End
from coatcheck.errors import LoadError, Refused, UpstreamFailed
from engine.recorded_catalog import make_catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MUTANTS: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {}


def mutant(make: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
    """Register a change of the engine that lasts as long as a ``with``."""
    MUTANTS[make.__name__] = contextlib.contextmanager(make)
    return make


@mutant
def no_fence() -> Iterator[None]:
    """What a load brings goes to whatever session the user has now."""
    settle = Loads._settle

    def unfenced(self: Loads, flight: Flight, result: Any, *, late: bool) -> End:
        if isinstance(result, Entry) and flight.state.closed:
            state = self._sessions.open(flight.state.user, self._clock.monotonic())
            self._sessions.keep(state, flight.resource, flight.key, result)
            return End.STORED
        return settle(self, flight, result, late=late)

    with mock.patch.object(Loads, "_settle", unfenced):
        yield


@mutant
def stamp_at_load_end() -> Iterator[None]:
    settle = Loads._settle

    def stamped(self: Loads, flight: Flight, result: Any, *, late: bool) -> End:
        if isinstance(result, Entry):
            result.started = self._clock.monotonic()
        return settle(self, flight, result, late=late)

    with mock.patch.object(Loads, "_settle", stamped):
        yield


@mutant
def colon_key() -> Iterator[None]:
    with mock.patch.object(
        walk, "encode_arguments", lambda values: ":".join(map(str, values)).encode("utf-8")
    ):
        yield


@mutant
def no_shield() -> Iterator[None]:
    """A caller that is cancelled takes the load's end with it."""

    async def landing(self: Flight) -> Any:
        return await self.landed

    with mock.patch.object(Flight, "landing", landing):
        yield


@mutant
def join_on_force() -> Iterator[None]:
    def to_join(self: SingleFlight, key: str, begun_since: float = 0.0) -> Flight | None:
        return self.running(key)

    with mock.patch.object(SingleFlight, "to_join", to_join):
        yield


@mutant
def older_load_overwrites() -> Iterator[None]:
    def begin(self: Flight, now: float) -> None:
        self.called, self.started, self.overtakes = True, now, None

    with mock.patch.object(Flight, "begin", begin):
        yield


@mutant
def alias_of_a_mutable_value() -> Iterator[None]:
    with mock.patch.object(codec, "immutable", return_value=True):
        make_catalog.cache_clear()
        try:
            yield
        finally:
            make_catalog.cache_clear()


@mutant
def no_owner_check() -> Iterator[None]:
    """Users who look alike share a session."""
    opened = Sessions.open

    def open_alike(self: Sessions, user: str, now: float) -> Any:
        return opened(self, user.strip().casefold(), now)

    with mock.patch.object(Sessions, "open", open_alike):
        yield


@mutant
def stale_after_403() -> Iterator[None]:
    note = Loads._note_failure

    def forgiving(self: Loads, flight: Flight, error: BaseException) -> None:
        note(self, flight, UpstreamFailed("", status=503) if isinstance(error, Refused) else error)

    with (
        mock.patch.object(Loads, "_note_failure", forgiving),
        mock.patch.object(resolution, "may_hide", lambda error: isinstance(error, LoadError)),
    ):
        yield


@mutant
def fill_after_clear() -> Iterator[None]:
    """A cleared session keeps what it held, and handles look into it."""
    close = Sessions.close

    def leave(self: Sessions, state: Any, cause: Any) -> None:
        row = list(state.row)
        close(self, state, cause)
        state.row[:] = row

    with mock.patch.object(Sessions, "close", leave):
        yield


def judging(other: Callable[[Rule, float, float], Freshness]) -> contextlib.AbstractContextManager[object]:
    """Return a change of what is done with what is dead."""

    def lenient(rule: Rule, started: float, jitter: int, now: float) -> Freshness:
        found = judge(rule, started, jitter, now)
        return other(rule, started, now) if found is Freshness.DEAD else found

    return mock.patch.object(resolution, "judge", lenient)


@mutant
def stale_past_grace() -> Iterator[None]:
    with judging(lambda *_: Freshness.STALE):
        yield


@mutant
def throttle_extends_grace() -> Iterator[None]:
    def extended(rule: Rule, started: float, now: float) -> Freshness:
        return Freshness.STALE if now < death(rule, started) + rule.throttle else Freshness.DEAD

    with judging(extended):
        yield


@mutant
def dead_a_second_late() -> Iterator[None]:
    with judging(lambda rule, started, now: Freshness.STALE if now < death(rule, started) + 1 else Freshness.DEAD):  # fmt: skip
        yield


@mutant
def anything_may_be_hidden() -> Iterator[None]:
    with (
        mock.patch.object(resolution, "may_hide", return_value=True),
        mock.patch.object(loads, "may_hide", return_value=True),
    ):
        yield


@mutant
def stale_is_not_contagious() -> Iterator[None]:
    obtain = Resolver._obtain

    async def innocent(self: Resolver, call: Any, *given: Any, leaf: bool) -> Entry:
        before = call.stale
        entry = await obtain(self, call, *given, leaf=leaf)
        call.stale = call.stale if leaf else before
        return entry

    with mock.patch.object(Resolver, "_obtain", innocent):
        yield


@mutant
def longer_ttl_revives() -> Iterator[None]:
    with mock.patch.object(cache, "in_force", lambda policy, **_: in_force(policy)):
        yield


@mutant
def evicted_between_two_loads() -> Iterator[None]:
    with (
        mock.patch.object(Loads, "enter", return_value=None),
        mock.patch.object(Loads, "leave", return_value=None),
    ):
        yield


@mutant
def invalidation_leaves_loads_alone() -> Iterator[None]:
    with mock.patch.object(SingleFlight, "raise_floor", return_value=[]):
        yield


@mutant
def short_cuts_stay() -> Iterator[None]:
    """What was resolved through an entry is found by the short cut when the entry has changed."""

    def only_own(self: Sessions, state: Any, resource: Any) -> None:
        self._forget(state, resource)

    with mock.patch.object(Sessions, "_drop_aliases", only_own):
        yield


@mutant
def one_exception_for_all() -> Iterator[None]:
    with mock.patch.object(resolution, "own_copy", lambda error: error):
        yield


@mutant
def no_single_flight() -> Iterator[None]:
    with mock.patch.object(SingleFlight, "to_join", return_value=None):
        yield


@mutant
def slots_are_not_given_back() -> Iterator[None]:
    with mock.patch.object(Permit, "give_back", return_value=None):
        yield


@mutant
def uncalled_force_frees_the_key() -> Iterator[None]:
    def end(self: SingleFlight, flight: Flight) -> Flight | None:
        return self._succeed(flight) if self.running(flight.key) is flight else None

    with mock.patch.object(SingleFlight, "end", end):
        yield


@mutant
def overtaken_refusal_is_forgotten() -> Iterator[None]:
    with mock.patch.object(Loads, "_note_late_refusal", return_value=None):
        yield


@mutant
def refusal_leaves_dependents() -> Iterator[None]:
    with mock.patch.object(Sessions, "revoke", return_value=[]):
        yield


@mutant
def log_in_goes_on_after_clear() -> Iterator[None]:
    def dismiss(self: Loads, state: Any) -> None:
        if state.loading == 0:
            original(self, state)

    original = Loads.dismiss
    with mock.patch.object(Loads, "dismiss", dismiss):
        yield
