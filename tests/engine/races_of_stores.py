"""What happens between memory and store at nearly the same time."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from coatcheck.engine.guarded import LONGEST_PAUSE
from engine.racing import ANN, BOB, last, race, shown
from engine.recorded_catalog import FORBIDDEN
from engine.recorded_store import Astray, MemoryDisk
from engine.recorded_world import World

if TYPE_CHECKING:
    from collections.abc import Callable

ASTRAY = tuple(Astray)


def read_slowly(world: World) -> None:
    """Have the session read by a new node, and the answer be on its way."""
    world.restart()
    world.beneath.fault(Astray.APPLIED_AND_HANGS, "open")
    world.get(ANN, "notes")
    world.drain()
    assert world.beneath.hanging == 1


@race(disk=MemoryDisk)
def restore_meets_clear(world: World, chance: random.Random) -> None:
    world.held(ANN, "notes", "page")
    read_slowly(world)
    world.soon(
        chance,
        world.beneath.heal,
        lambda: world.spawn(world.clear(ANN)),
        lambda: world.get(ANN, "page"),
        lambda: world.get(BOB, "notes"),
    )
    world.drain()
    get = world.get(ANN, "notes")
    world.answer_all()
    shown(world, get)


@race(disk=MemoryDisk)
def restore_meets_invalidation_for_everyone(world: World, chance: random.Random) -> None:
    world.held(ANN, "notes", "account")
    world.clock.pass_time(1)
    read_slowly(world)
    # The answer comes last: it tells of what was there before.
    world.spawn(world.invalidate(None, "notes"))
    world.drain()
    world.soon(
        chance,
        world.beneath.heal,
        lambda: world.get(ANN, "account"),
        lambda: world.spawn(world.invalidate(ANN, "account")),
    )
    world.drain()
    world.get(ANN, "notes")
    world.answer_all()


@race(disk=MemoryDisk)
def writes_meet_clear(world: World, chance: random.Random) -> None:
    world.held(ANN, "notes")
    world.beneath.fault(chance.choice((Astray.HANGS, Astray.APPLIED_AND_HANGS)), "put")
    world.held(ANN, "account", "page", "digest")
    world.soon(
        chance,
        world.beneath.heal,
        lambda: world.spawn(world.clear(ANN) if chance.random() < 0.7 else world.clear_all()),
        lambda: world.get(ANN, "notes"),
    )
    world.drain()
    world.answer_all()
    world.restart(crash=chance.random() < 0.5)
    for resource in ("notes", "account", "page", "digest"):
        world.get(ANN, resource)
    world.answer_all()


@race(disk=MemoryDisk)
def session_leaves_memory_after_a_write_that_failed(world: World, chance: random.Random) -> None:
    world.held(ANN, "notes")
    world.beneath.fault(chance.choice(ASTRAY), "put", "delete", "clear")
    world.clock.pass_time(1)
    get = world.get(ANN, "notes", force=True)
    world.drain()
    world.finish_those(kind=chance.choice(("ok", FORBIDDEN)))
    world.soon(
        chance,
        lambda: world.clock.jump(0.25),
        lambda: world.spawn(world.put(ANN, "account")),
        lambda: world.get(ANN, "notes"),
    )
    world.answer_all()
    world.clock.pass_time(4)
    world.evict(ANN)
    if chance.random() < 0.5:
        world.beneath.heal()
    world.get(ANN, "notes")
    world.answer_all()
    assert not get.pending


@race(disk=MemoryDisk)
def clear_that_fails_is_repeated(world: World, chance: random.Random) -> None:
    world.held(ANN, "notes", "account")
    world.beneath.fault(chance.choice((Astray.FAILS, Astray.HANGS, Astray.LATE)), "clear", "clear_all")
    steps: list[Callable[[], object]] = [
        lambda: world.spawn(world.clear(ANN) if chance.random() < 0.7 else world.clear_all()),
        lambda: world.get(ANN, "notes"),
    ]
    world.soon(chance, *steps[: chance.choice((1, 2))])
    world.drain()
    world.clock.pass_time(3)
    world.answer_all()
    world.beneath.heal()
    world.clock.pass_time(chance.choice((0, 2)))
    world.evict(ANN)
    world.get(ANN, "account")
    world.answer_all()
    world.clock.pass_time(LONGEST_PAUSE)
    world.restart(crash=True)
    world.get(ANN, "notes")
    world.answer_all()


@race(disk=MemoryDisk)
def clear_meets_clear(world: World, chance: random.Random) -> None:
    """Each is answered by an attempt that began after it."""
    world.held(ANN, "notes")
    world.beneath.fault(Astray.APPLIED_AND_HANGS, "clear")
    world.spawn(world.clear(ANN))
    world.drain()
    assert world.beneath.calls.count("clear") == 1
    second = world.spawn(world.clear(ANN))
    world.drain()
    world.soon(chance, world.beneath.heal, lambda: world.get(ANN, "notes"))
    world.answer_all()
    assert second.done()
    assert world.beneath.calls.count("clear") == 2


@race(disk=MemoryDisk)
def dropped_entry_stays_away(world: World, chance: random.Random) -> None:
    world.held(ANN, "notes", "account", "page", "digest")
    world.clock.pass_time(1)
    steps: list[Callable[[], object]] = [
        lambda: world.spawn(world.invalidate(ANN, chance.choice(("page", "digest")))),
        lambda: world.get(ANN, "account", force=True),
    ]
    world.soon(chance, *steps)
    world.drain()
    world.finish_those(kind=FORBIDDEN)
    world.drain()
    world.clock.pass_time(4)
    if chance.random() < 0.5:
        world.evict(ANN)
    else:
        world.restart(crash=chance.random() < 0.5)
    for resource in ("account", "page", "digest", "notes"):
        world.get(ANN, resource)
    world.answer_all()


@race(disk=MemoryDisk)
def life_goes_on_in_the_next_node(world: World, chance: random.Random) -> None:
    world.held(ANN, "notes")
    world.clock.pass_time(5)
    world.restart(crash=chance.random() < 0.5, aged=chance.choice((0, 3)))
    assert last(world, ANN, "notes").serial == 1
    world.soon(chance, *[lambda: world.get(ANN, "notes")] * 3, lambda: world.clock.jump(12))
    world.drain()
    world.get(ANN, "notes")
    world.clock.pass_time(3)
    get = world.get(ANN, "notes")
    world.drain()
    assert get.pending


@race(disk=MemoryDisk)
def rights_change_with_the_node(world: World, chance: random.Random) -> None:
    world.held(ANN, "notes", "account")
    world.restart(authority="an admin")
    world.soon(
        chance,
        lambda: world.get(ANN, "notes"),
        lambda: world.get(ANN, "account"),
        lambda: world.spawn(world.clear(ANN)) if chance.random() < 0.3 else None,
    )
    world.answer_all()
    world.restart(authority="")
    world.get(ANN, "notes")
    world.answer_all()


@race(disk=MemoryDisk)
def session_ends_elsewhere(world: World, chance: random.Random) -> None:
    world.held(ANN, "notes")
    world.clear_elsewhere(ANN)
    world.drain()
    world.get(ANN, "account")
    world.drain()
    world.soon(chance, world.finish_those, lambda: world.get(ANN, "notes"))
    world.answer_all()
    world.get(ANN, "notes")
    world.answer_all()
    assert world.record.ends
