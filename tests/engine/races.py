"""All races, by name."""

from __future__ import annotations

from engine import races_of_chains, races_of_clears, races_of_loads, steady_rules
from engine.racing import RACES, run

__all__ = ["RACES", "races_of_chains", "races_of_clears", "races_of_loads", "run", "steady_rules"]
