"""Random operations in random interleavings, and random arguments: the promises hold, whatever the users do."""

from __future__ import annotations

import os
import random

from engine.keys_property import check_keys
from engine.session_machine import check_machine

DEEP = bool(os.environ.get("COATCHECK_DEEP"))
# The same examples for every change, so that what fails is the change; the deep search draws others each time.
SEED = int(os.environ.get("COATCHECK_SEED", random.SystemRandom().getrandbits(32) if DEEP else 20261123))


def test_session_keeps_its_promises() -> None:
    """No sequence of operations makes a get return what it must not; a failure tells steps, seed and blob."""
    check_machine(examples=30_000 if DEEP else 800, seed=SEED)


def test_no_two_arguments_share_a_key() -> None:
    """Tuples of arguments that differ in anything are filed under different keys."""
    check_keys(examples=20_000 if DEEP else 400)
