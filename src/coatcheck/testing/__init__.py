"""Doubles for tests of what is built on coatcheck: time advanced by hand, loads that end when told to, stores that fail.

`coatcheck.testing.store_contract` holds the tests that every store has to pass; it needs pytest and pytest-asyncio.
"""

from coatcheck.testing.clock import FakeClock
from coatcheck.testing.loader import GatedLoader, HeldLoad
from coatcheck.testing.settling import settle
from coatcheck.testing.stores import Fault, FaultyStore, MemoryStore

__all__ = ["FakeClock", "Fault", "FaultyStore", "GatedLoader", "HeldLoad", "MemoryStore", "settle"]
