"""A clear meets what is under way."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from coatcheck.engine.limits import Limits
from coatcheck.errors import SessionCleared
from engine.racing import AHEAD, ANN, BOB, PATIENT, race, shown
from engine.recorded_catalog import OK, UNAVAILABLE
from engine.recorded_world import World

if TYPE_CHECKING:
    from collections.abc import Callable


@race()
def clear_meets_load_end(world: World, chance: random.Random) -> None:
    world.get(ANN, "page")
    page = world.wait_for("page")
    world.soon(
        chance,
        lambda: world.finish(page),
        lambda: world.spawn(world.clear(ANN)),
        lambda: world.get(ANN, "page"),
        lambda: world.get(ANN, "account"),
        lambda: world.get(BOB, "page"),
    )
    world.drain()
    world.answer_all()
    world.get(ANN, "page")
    world.answer_all()


@race(policies={"account": AHEAD, "notes": AHEAD})
def clear_meets_refresh(world: World, chance: random.Random) -> None:
    world.held(ANN, "account", "notes")
    world.clock.pass_time(12)
    world.get(ANN, "account")
    world.drain()
    refresh = world.one("account")
    world.soon(
        chance,
        lambda: world.finish(refresh),
        lambda: world.spawn(world.clear(ANN)),
        lambda: world.get(ANN, "account"),
        lambda: world.get(ANN, "notes"),
    )
    world.answer_all()
    get = world.get(ANN, "account")
    world.answer_all()
    assert shown(world, get).serial > refresh.serial


@race(gated_connect=True)
def clear_during_connect(world: World, chance: random.Random) -> None:
    world.get(ANN, "account")
    world.get(ANN, "notes")
    world.drain()
    [connection] = world.connecting()
    world.soon(
        chance,
        lambda: world.finish_connect(connection, ok=chance.random() < 0.7),
        lambda: world.spawn(world.clear(ANN)),
        lambda: world.get(ANN, "account"),
    )
    world.answer_all()


@race(limits=Limits(max_loads=1))
def clear_while_a_load_waits_for_its_slot(world: World, chance: random.Random) -> None:
    world.get(BOB, "notes")
    world.drain()
    waits = world.get(ANN, "notes")
    world.drain()
    assert len(world.record.connections) == 1
    steps: list[Callable[[], object]] = [
        lambda: world.spawn(world.clear(ANN)),
        lambda: world.finish(world.one("notes")),
    ]
    if chance.random() < 0.5:
        # Nobody asks any more: then there must be no call at all.
        world.spawn(world.clear(ANN))
        world.drain()
        steps = steps[1:]
    world.soon(chance, *steps)
    world.drain()
    if len(steps) == 1:
        assert isinstance(waits.error, SessionCleared)
        assert [connection.user for connection in world.record.connections] == [BOB]
    world.answer_all()


@race()
def clear_while_dependencies_are_resolved(world: World, chance: random.Random) -> None:
    gets = [world.get(ANN, "rows"), world.get(ANN, "digest"), world.get(ANN, "card")]
    world.drain()
    account = world.one("account")
    steps: list[Callable[[], object]] = [
        lambda: world.finish(account),
        lambda: world.spawn(world.clear(ANN)),
        lambda: world.finish_those("notes"),
    ]
    world.soon(chance, *steps)
    world.drain()
    for get in gets:
        assert get.pending or get.error is None or isinstance(get.error, SessionCleared)
    world.get(ANN, "rows")
    world.answer_all()


@race(policies={"account": PATIENT})
def clear_while_a_caller_is_impatient(world: World, chance: random.Random) -> None:
    world.held(ANN, "account")
    world.clock.pass_time(25)
    world.get(ANN, "account")
    world.drain()
    load = world.one("account")
    world.soon(
        chance,
        lambda: world.clock.jump(3),
        lambda: world.finish(load, OK if chance.random() < 0.5 else UNAVAILABLE),
        lambda: world.get(ANN, "account"),
        lambda: world.spawn(world.clear(ANN)),
    )
    world.answer_all()
