"""A property that nothing can break proves nothing: every mutant of the engine fails one of the checks."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from engine.keys_property import check_keys
from engine.mutants import MUTANTS
from engine.mutants_of_stores import MUTANTS as MUTANTS_OF_STORES
from engine.races import RACES, needs_store, run
from engine.recorded_store import MemoryDisk
from engine.session_machine import check_machine

if TYPE_CHECKING:
    from engine.recorded_world import MakeDisk

MOST_SEEDS = 200

# Which race notices, for those mutants that a race is about.
NOTICED_BY = {
    "no_fence": "clear_meets_load_end",
    "stamp_at_load_end": "slow_load_is_old_when_it_ends",
    "no_shield": "callers_are_cancelled",
    "join_on_force": "force_meets_load_end",
    "older_load_overwrites": "older_load_ends_after_a_newer",
    "alias_of_a_mutable_value": "callers_share_no_list",
    "no_owner_check": "herd_costs_one_load",
    "stale_after_403": "refusal_is_never_hidden",
    "fill_after_clear": "handle_is_good_across_clears",
    "stale_past_grace": "failure_stands_before_the_throttle",
    "throttle_extends_grace": "throttle_ends_with_the_grace",
    "dead_a_second_late": "throttle_ends_with_the_grace",
    "anything_may_be_hidden": "failure_stands_before_the_throttle",
    "stale_is_not_contagious": "stale_is_contagious",
    "longer_ttl_revives": "longer_ttl_revives_nothing",
    "evicted_between_two_loads": "eviction_meets_loads",
    "invalidation_leaves_loads_alone": "invalidate_meets_load_end",
    "short_cuts_stay": "short_cut_while_an_ancestor_changes",
    "one_exception_for_all": "failure_is_everybodys_own",
    "no_single_flight": "herd_costs_one_load",
    "slots_are_not_given_back": "herd_costs_one_load",
    "uncalled_force_frees_the_key": "forced_load_that_never_got_its_slot",
    "overtaken_refusal_is_forgotten": "refusal_meets_newer_load",
    "refusal_leaves_dependents": "refusal_meets_load_of_a_child",
    "log_in_goes_on_after_clear": "clear_during_connect",
    "no_fence_at_restore": "restore_meets_clear",
    "trusted_after_a_failed_write": "session_leaves_memory_after_a_write_that_failed",
    "clear_is_tried_once": "clear_that_fails_is_repeated",
    "clear_is_answered_by_an_earlier_one": "clear_meets_clear",
    "writes_go_on_after_a_clear": "writes_meet_clear",
    "deletes_stay_in_memory": "dropped_entry_stays_away",
    "rows_read_before_everyone_lost_them_come_in": "restore_meets_invalidation_for_everyone",
    "life_begins_with_the_restore": "life_goes_on_in_the_next_node",
    "rights_do_not_matter": "rights_change_with_the_node",
    "end_of_a_session_goes_unnoticed": "session_ends_elsewhere",
    "stored_session_is_read_while_it_is_cleared": "restore_meets_clear",
    "nothing_is_brought_in": "life_goes_on_in_the_next_node",
}


# What the state machine, too, finds out within a second or so; it takes longer for the others.
NOTICED_AT_RANDOM = (
    "no_fence",
    "stamp_at_load_end",
    "no_shield",
    "join_on_force",
    "alias_of_a_mutable_value",
    "no_owner_check",
    "stale_after_403",
    "stale_past_grace",
    "throttle_extends_grace",
    "dead_a_second_late",
    "anything_may_be_hidden",
    "stale_is_not_contagious",
    "evicted_between_two_loads",
    "invalidation_leaves_loads_alone",
    "short_cuts_stay",
    "one_exception_for_all",
    "no_single_flight",
    "slots_are_not_given_back",
)

# The same, of what only the one with a store can find.
NOTICED_AT_RANDOM_BENEATH = (
    "trusted_after_a_failed_write",
    "deletes_stay_in_memory",
    "life_begins_with_the_restore",
)


def race_over_seeds(name: str, disk: MakeDisk | None = None) -> None:
    for seed in range(MOST_SEEDS):
        run(name, seed, disk)


def keys() -> None:
    check_keys(examples=200, derandomize=True)


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str) -> None:
    """With one rule of the engine taken out, the check that is about this rule fails."""
    check = keys if name == "colon_key" else functools.partial(race_over_seeds, NOTICED_BY[name])
    with MUTANTS[name](), pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("name", [name for name, race in NOTICED_BY.items() if needs_store(race)])
def test_mutant_of_the_way_to_the_store_is_noticed_on_a_file(name: str, file_disk: MakeDisk) -> None:
    """Nothing that SQLite does, or does not do, hides that a rule is gone."""
    with MUTANTS[name](), pytest.raises(AssertionError):
        race_over_seeds(NOTICED_BY[name], file_disk)


@pytest.mark.parametrize("name", [*NOTICED_AT_RANDOM, *NOTICED_AT_RANDOM_BENEATH])
def test_mutant_is_noticed_at_random(name: str) -> None:
    """The state machine finds it without having been told where to look."""
    disk = MemoryDisk if name in NOTICED_AT_RANDOM_BENEATH else None
    with MUTANTS[name](), pytest.raises(AssertionError):
        check_machine(examples=800, seed=1, shrink=False, disk=disk)


def test_every_mutant_has_its_check() -> None:
    """No mutant is left out, and each race that is named exists."""
    assert set(MUTANTS) == set(MUTANTS_OF_STORES) == {*NOTICED_BY, "colon_key"}
    assert set(NOTICED_BY.values()) <= set(RACES)


def test_engine_itself_passes() -> None:
    """What fails under the mutants passes without them: the same seeds of the races do so in `test_races`, which also runs them on files."""
    keys()
    check_machine(examples=100, seed=1, shrink=False)
