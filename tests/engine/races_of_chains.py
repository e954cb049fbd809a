"""What depends on what, and what has to make room, while it changes."""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING

from coatcheck.engine.limits import Limits
from engine.racing import AHEAD, ANN, BOB, CAT, GRACE, race, shown
from engine.recorded_catalog import FORBIDDEN, OK, UNAVAILABLE
from engine.recorded_world import World

if TYPE_CHECKING:
    from collections.abc import Callable


@race(limits=Limits(max_sessions=1))
def eviction_meets_loads(world: World, chance: random.Random) -> None:
    """Making room takes nobody's session from under a get that has only its next load before it."""
    world.get(ANN, "rows")
    world.get(BOB, "page")
    for _ in range(12):
        world.drain()
        waiting = world.record.waiting()
        if not waiting:
            break
        load = chance.choice(waiting)
        world.soon(
            chance,
            functools.partial(world.finish, load),
            lambda: world.spawn(world.put(CAT, "notes", 1)),
            lambda: world.get(chance.choice((ANN, BOB)), "page"),
        )
    world.answer_all()
    for get in world.record.gets:
        assert get.error is None


@race(limits=Limits(max_keys_per_session=2))
def keys_leave_while_others_come(world: World, chance: random.Random) -> None:
    world.held(ANN, "account")
    for number in (1, 2, 1):
        world.get(ANN, "page", number=number)
        world.get(ANN, "page", number=number, region="us")
    world.drain()
    world.soon(
        chance,
        *(functools.partial(world.finish, load) for load in world.record.waiting()),
        lambda: world.get(ANN, "page"),
        lambda: world.get(ANN, "rows"),
    )
    world.answer_all()


@race(policies={"account": AHEAD})
def short_cut_while_an_ancestor_changes(world: World, chance: random.Random) -> None:
    world.held(ANN, "account", "page", "rows")
    world.get(ANN, "page", number=2)
    world.answer_all()
    world.clock.pass_time(12)
    for _ in range(2):
        world.get(ANN, "rows")
    world.drain()
    change: tuple[Callable[[], object], ...] = (
        lambda: world.spawn(world.put(ANN, "account", 2)),
        lambda: world.spawn(world.invalidate(ANN, "account")),
        lambda: world.get(ANN, "account", force=True),
        lambda: world.finish_those(number=2),
    )
    world.soon(chance, *chance.sample(change, 2), *(lambda: world.get(ANN, "page") for _ in range(4)))
    world.drain()
    world.answer_all(number=chance.choice((1, 2)))
    page = world.get(ANN, "page")
    account = world.get(ANN, "account", looks=False)
    world.answer_all()
    assert page.value.number == account.value.number


@race(policies={"account": GRACE, "notes": GRACE})
def refusal_meets_newer_load(world: World, chance: random.Random) -> None:
    """A load that a later one overtook still tells that its user was refused."""
    world.held(ANN, "account", "page")
    world.clock.pass_time(21)
    world.get(ANN, "account")
    world.drain()
    older = world.one("account")
    world.clock.pass_time(1)
    world.get(ANN, "account", force=True)
    world.drain()
    [newer] = [load for load in world.record.waiting() if load is not older]
    steps: list[Callable[[], object]] = [
        lambda: world.finish(older, FORBIDDEN),
        lambda: world.finish(newer, chance.choice((OK, UNAVAILABLE, FORBIDDEN))),
        lambda: world.get(ANN, "account"),
        lambda: world.get(ANN, "page"),
    ]
    world.soon(chance, *steps[: chance.choice((1, 4))])
    world.drain()
    world.get(ANN, "account")
    world.get(ANN, "page")
    world.drain()
    world.answer_all(UNAVAILABLE)


@race()
def refusal_meets_load_of_a_child(world: World, chance: random.Random) -> None:
    world.held(ANN, "account")
    world.get(ANN, "page", number=1)
    world.get(ANN, "page", number=2)
    world.get(ANN, "account", force=True)
    world.drain()
    world.soon(
        chance,
        *(
            lambda each=load: world.finish(each, FORBIDDEN if each.resource == "account" else OK)
            for load in world.record.waiting()
        ),
    )
    world.answer_all()
    world.clock.pass_time(4)
    again = world.get(ANN, "page", number=1)
    world.answer_all()
    [refused] = world.record.refusals
    assert shown(world, again).called > (refused.ended or 0)
