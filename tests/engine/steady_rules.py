"""What needs no race, and is tried in every order all the same."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from coatcheck.engine.entry import Outcome
from coatcheck.errors import Forbidden, UpstreamFailed
from engine.racing import ANN, GRACE, last, race
from engine.recorded_catalog import BROKEN, FORBIDDEN, UNAVAILABLE, policy
from engine.recorded_world import World

if TYPE_CHECKING:
    pass


@race()
def slow_load_is_old_when_it_ends(world: World, chance: random.Random) -> None:
    world.get(ANN, "notes")
    world.drain()
    world.clock.pass_time(9)
    world.answer_all()
    world.clock.pass_time(10)
    assert last(world, ANN, "notes").called_at == world.clock.now - 19
    world.clock.pass_time(1)
    get = world.get(ANN, "notes")
    world.drain()
    assert get.pending


@race(policies={"notes": GRACE})
def throttle_ends_with_the_grace(world: World, chance: random.Random) -> None:
    world.held(ANN, "notes")
    world.clock.pass_time(49)
    first = world.get(ANN, "notes")
    world.answer_all(UNAVAILABLE)
    assert first.look is not None
    assert first.look.outcome is Outcome.STALE_HIT
    world.clock.pass_time(chance.choice((1, 2, 4)))
    second = world.get(ANN, "notes")
    world.answer_all(UNAVAILABLE)
    assert isinstance(second.error, UpstreamFailed)


@race(policies={"account": GRACE})
def stale_is_contagious(world: World, chance: random.Random) -> None:
    world.held(ANN, "account")
    world.clock.pass_time(15)
    world.held(ANN, "page")
    world.clock.pass_time(10)
    gets = [world.get(ANN, resource) for resource in ("page", "number", "card")]
    world.drain()
    world.finish(world.one("account"), UNAVAILABLE)
    world.answer_all()
    for get in gets:
        assert get.look is not None
        assert get.look.outcome is Outcome.STALE_HIT


@race()
def longer_ttl_revives_nothing(world: World, chance: random.Random) -> None:
    world.held(ANN, "notes")
    world.clock.pass_time(20)
    world.set_policy("notes", policy(ttl=100))
    get = world.get(ANN, "notes")
    world.drain()
    assert get.pending


@race()
def failure_is_everybodys_own(world: World, chance: random.Random) -> None:
    gets = [world.get(ANN, chance.choice(("page", "account", "number"))) for _ in range(6)]
    world.drain()
    world.finish(world.one("account"), chance.choice((UNAVAILABLE, FORBIDDEN, BROKEN)))
    world.drain()
    assert all(get.error is not None for get in gets)


@race(policies={"notes": GRACE})
def refusal_is_never_hidden(world: World, chance: random.Random) -> None:
    world.held(ANN, "notes")
    world.clock.pass_time(25)
    gets = [world.get(ANN, "notes") for _ in range(3)]
    world.drain()
    world.finish(world.one("notes"), FORBIDDEN)
    world.drain()
    gets += [world.get(ANN, "notes") for _ in range(3)]
    world.drain()
    assert all(isinstance(get.error, Forbidden) for get in gets)
    assert len(world.record.loads) == 2
    world.clock.pass_time(4)
    again = world.get(ANN, "notes")
    world.drain()
    assert again.pending


@race()
def callers_share_no_list(world: World, chance: random.Random) -> None:
    """What a caller does to its dict, which the judge of every get does, no other sees."""
    for _ in range(3):
        for _ in range(3):
            world.get(ANN, "notes", looks=chance.random() < 0.5)
        world.answer_all()


@race()
def handle_is_good_across_clears(world: World, chance: random.Random) -> None:
    for _ in range(3):
        world.get(ANN, "notes", looks=False)
        world.answer_all()
        world.get(ANN, "notes", looks=False)
        world.peek(ANN, "notes")
        world.drain()
        world.spawn(world.clear(ANN))
        world.drain()
        world.peek(ANN, "notes")
    assert len(world.record.loads) == 3
