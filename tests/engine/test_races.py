"""Every race, in very many orders."""

from __future__ import annotations

import os

import pytest

from engine.races import RACES, run

SEEDS = 20_000 if os.environ.get("COATCHECK_DEEP") else 200


@pytest.mark.parametrize("name", RACES)
def test_race_ends_well_in_every_order(name: str) -> None:
    """What the record promises holds for every order of what happens at once; a failure tells its seed."""
    for seed in range(SEEDS):
        run(name, seed)
