"""Fixed scenarios in which things happen at nearly the same time; the loop and the chance decide in which order.

What must hold in every one is what the record of a `World` shows, and is checked by its `finale()`. A scenario adds only
what is special to it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgspec

from engine.recorded_catalog import policy
from engine.recorded_world import World
from engine.shuffled_loop import ShuffledLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.record import Get, Load
    from engine.recorded_world import MakeDisk

    Scenario = Callable[[World, random.Random], None]

ANN, BOB, CAT = "ann", "Ann", "ann "

GRACE = policy(stale_if_error=30)
AHEAD = policy(refresh_ahead=0.5, stale_if_error=30)
PATIENT = policy(stale_if_error=30, soft_timeout=3)

RACES: dict[str, tuple[Scenario, dict[str, Any]]] = {}


def race(**options: Any) -> Callable[[Scenario], Scenario]:
    """Register a scenario, with the options of its world."""

    def register(scenario: Scenario) -> Scenario:
        RACES[scenario.__name__] = (scenario, options)
        return scenario

    return register


def needs_store(name: str) -> bool:
    """Tell whether a scenario is about what lies beneath."""
    return "disk" in RACES[name][1]


def run(name: str, seed: int, disk: MakeDisk | None = None) -> None:
    """Run one scenario in the order that *seed* decides, on its own disk or on another one.

    Raises:
        AssertionError: what was promised did not hold; a note tells the seed.
    """
    scenario, options = RACES[name]
    world = World(ShuffledLoop(seed), **(options if disk is None else {**options, "disk": disk}))
    try:
        try:
            scenario(world, random.Random(seed))
        except BaseException:
            world.close()
            raise
        world.finale()
    except BaseException as error:
        error.add_note(f"race {name!r}, seed {seed}")
        raise


def shown(world: World, get: Get) -> Load:
    """Return the load whose value a get was given."""
    assert get.error is None, get
    assert get.look is not None
    return world.record.loads[value_of(get)]


def value_of(get: Get) -> int:
    assert get.look is not None
    serial: int = msgspec.json.decode(get.look.body)["load"]
    return serial


def last(world: World, user: str, resource: str) -> Load:
    """Return the load that a get finds at the end, without a further load."""
    before = len(world.record.loads)
    get = world.get(user, resource)
    world.drain()
    assert not get.pending, f"{get} was not held"
    assert len(world.record.loads) == before
    return shown(world, get)
