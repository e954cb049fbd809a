"""Random operations in random interleavings, and random arguments: the promises hold, whatever the users do."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import pytest

from coatcheck.stores.key_ring import KeyRing
from engine.blocking_store import LoopThread
from engine.hand_clock import HandClock
from engine.keys_property import check_keys
from engine.recorded_store import FileDisk, MemoryDisk
from engine.session_machine import check_machine

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
def test_session_keeps_its_promises_with_a_file(
    tmp_path: Path, store_thread: LoopThread, ring: KeyRing
) -> None:
    """The same with SQLite: what a killed process leaves is what the next one opens, and a clock set back is noticed."""
    numbers = itertools.count()

    def disk(clock: HandClock) -> FileDisk:
        return FileDisk(clock, folder=tmp_path / str(next(numbers)), ring=ring, thread=store_thread)

    check_machine(examples=2_000 if DEEP else 70, seed=SEED, disk=disk)


def test_no_two_arguments_share_a_key() -> None:
    """Tuples of arguments that differ in anything are filed under different keys."""
    check_keys(examples=20_000 if DEEP else 400)
