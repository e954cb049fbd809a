"""Doubles for tests of what is built on coatcheck: time that is advanced by hand and loads that end when told to."""

from coatcheck.testing.clock import FakeClock
from coatcheck.testing.loader import GatedLoader, HeldLoad
from coatcheck.testing.settling import settle

__all__ = ["FakeClock", "GatedLoader", "HeldLoad", "settle"]
