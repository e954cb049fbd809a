"""Every race, in very many orders; those of stores also with a file beneath."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from engine.races import RACES, needs_store, run

if TYPE_CHECKING:
    from engine.recorded_world import MakeDisk

DEEP = bool(os.environ.get("COATCHECK_DEEP"))
SEEDS = 20_000 if DEEP else 200
# A file takes ten times as long, and what the orders of the loop do not decide is the same in all of them.
SEEDS_ON_A_FILE = 2_000 if DEEP else 40


@pytest.mark.parametrize("name", RACES)
def test_race_ends_well_in_every_order(name: str) -> None:
    """What the record promises holds for every order of what happens at once; a failure tells its seed."""
    for seed in range(SEEDS):
        run(name, seed)


@pytest.mark.parametrize("name", [*filter(needs_store, RACES)])
def test_race_of_memory_and_store_ends_well_on_a_file(name: str, file_disk: MakeDisk) -> None:
    """The same with SQLite beneath, where a node that crashed leaves what a killed process would."""
    for seed in range(SEEDS_ON_A_FILE):
        run(name, seed, file_disk)
