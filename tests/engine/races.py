"""All races, by name."""

from __future__ import annotations

from engine import races_of_chains, races_of_clears, races_of_loads, races_of_stores, steady_rules
from engine.racing import RACES, needs_store, run

__all__ = [
    "RACES",
    "needs_store",
    "races_of_chains",
    "races_of_clears",
    "races_of_loads",
    "races_of_stores",
    "run",
    "steady_rules",
]
