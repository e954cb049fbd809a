"""All races, by name."""

from __future__ import annotations

from engine import races_of_chains, races_of_clears, races_of_loads, races_of_stores, steady_rules
from engine.racing import RACES, run

__all__ = [
    "RACES",
    "races_of_chains",
    "races_of_clears",
    "races_of_loads",
    "races_of_stores",
    "run",
    "steady_rules",
]
