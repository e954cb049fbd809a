"""Random operations in random interleavings, and random arguments: the promises hold, whatever the users do."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from engine.keys_property import check_keys
from engine.recorded_store import MemoryDisk
from engine.session_machine import check_machine

if TYPE_CHECKING:
    from engine.recorded_world import MakeDisk

DEEP = bool(os.environ.get("COATCHECK_DEEP"))
# The same examples for every change, so that what fails is the change; the deep search draws others each time.
SEED = int(os.environ.get("COATCHECK_SEED", random.SystemRandom().getrandbits(32) if DEEP else 20261123))


@pytest.mark.timeout(3_600 if DEEP else 600)
def test_session_keeps_its_promises() -> None:
    """No sequence of operations makes a get return what it must not; a failure tells steps, seed and blob."""
    check_machine(examples=30_000 if DEEP else 800, seed=SEED)


@pytest.mark.timeout(3_600 if DEEP else 600)
def test_session_keeps_its_promises_with_a_store() -> None:
    """Nor do a store that goes astray, evictions, late writes, restarts and crashes (S13, S8; 1, 18, 33 to 35, 39)."""
    check_machine(examples=20_000 if DEEP else 550, seed=SEED, disk=MemoryDisk)


@pytest.mark.timeout(3_600 if DEEP else 600)
def test_session_keeps_its_promises_with_a_file(file_disk: MakeDisk) -> None:
    """The same with SQLite: what a killed process leaves is what the next one opens, and a clock set back is noticed."""
    check_machine(examples=2_000 if DEEP else 140, seed=SEED, disk=file_disk)


def test_no_two_arguments_share_a_key() -> None:
    """Tuples of arguments that differ in anything are filed under different keys."""
    check_keys(examples=20_000 if DEEP else 400)
