"""Loads of one key meet each other, callers who give up, and the clock."""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING

from coatcheck.engine.entry import Outcome
from coatcheck.engine.limits import Limits
from coatcheck.errors import LoadTimeout, UpstreamFailed
from engine.racing import AHEAD, ANN, BOB, GRACE, PATIENT, last, race, shown
from engine.recorded_catalog import BROKEN, FORBIDDEN, OK, PUT, UNAVAILABLE, policy
from engine.recorded_world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.record import Get


@race()
def force_meets_load_end(world: World, chance: random.Random) -> None:
    world.get(ANN, "notes")
    world.drain()
    ordinary = world.one("notes")
    forced: list[Get] = []
    world.soon(
        chance,
        lambda: world.finish(ordinary),
        lambda: forced.append(world.get(ANN, "notes", force=True)),
        lambda: forced.append(world.get(ANN, "notes", force=True)),
        lambda: world.get(ANN, "notes"),
    )
    world.answer_all()
    for get in forced:
        assert shown(world, get) is not ordinary
    assert last(world, ANN, "notes") is not ordinary


@race()
def older_load_ends_after_a_newer(world: World, chance: random.Random) -> None:
    world.get(ANN, "notes")
    world.drain()
    older = world.one("notes")
    world.get(ANN, "notes", force=True)
    world.drain()
    [newer] = [load for load in world.record.waiting() if load is not older]
    world.soon(
        chance,
        lambda: world.finish(older, chance.choice((OK, OK, UNAVAILABLE, BROKEN))),
        lambda: world.finish(newer),
        lambda: world.get(ANN, "notes"),
    )
    world.answer_all()
    assert last(world, ANN, "notes").called >= newer.called


@race()
def invalidate_meets_load_end(world: World, chance: random.Random) -> None:
    first = world.get(ANN, "notes")
    world.drain()
    older = world.one("notes")
    early = chance.random() < 0.5
    if early:
        world.spawn(world.invalidate(ANN, "notes"))
        world.drain()
        world.get(ANN, "notes")
        world.drain()
    newer = [load for load in world.record.waiting() if load is not older]
    steps: list[Callable[[], object]] = [
        lambda: world.finish(older, chance.choice((OK, UNAVAILABLE, FORBIDDEN))),
        lambda: world.cancel(first),
        lambda: world.get(ANN, "notes"),
    ]
    if newer:
        steps.append(lambda: world.finish(newer[0]))
    else:
        steps.append(lambda: world.spawn(world.invalidate(ANN, "notes")))
    world.soon(chance, *steps)
    world.answer_all()
    world.get(ANN, "notes")
    world.answer_all()
    if newer:
        # Neither the value nor the failure of the older one touched the newer.
        assert last(world, ANN, "notes").called >= newer[0].called
        assert len(world.record.loads) == 2


@race(policies={"notes": AHEAD})
def put_meets_refresh(world: World, chance: random.Random) -> None:
    world.held(ANN, "notes")
    world.clock.pass_time(12)
    world.get(ANN, "notes")
    world.drain()
    refresh = world.one("notes")
    world.soon(
        chance,
        lambda: world.finish(refresh, chance.choice((OK, UNAVAILABLE))),
        lambda: world.spawn(world.put(ANN, "notes", 2)),
        lambda: world.get(ANN, "notes"),
    )
    world.answer_all()
    assert last(world, ANN, "notes").kind == PUT


@race(limits=Limits(max_loads_per_user=2))
def forced_load_that_never_got_its_slot(world: World, chance: random.Random) -> None:
    """It fails uncalled; the ordinary load that it was to overtake must still be the one that others join."""
    world.get(ANN, "account")
    world.get(ANN, "notes")
    world.drain()
    older = world.one("account")
    world.set_policy("account", policy(deadline=4))
    gets = [world.get(ANN, "account", force=True) for _ in range(chance.randrange(1, 3))]
    world.drain()
    world.clock.pass_time(4)
    world.drain()
    assert all(isinstance(get.error, LoadTimeout) for get in gets)
    joins = world.get(ANN, "account")
    world.soon(
        chance,
        lambda: world.finish(world.one("notes")),
        lambda: world.finish(older) if chance.random() < 0.5 else world.clock.jump(0),
    )
    world.answer_all()
    assert shown(world, joins) is older
    assert last(world, ANN, "account") is older


@race()
def forced_herd_costs_two_loads(world: World, chance: random.Random) -> None:
    number = 1_000 if chance.random() < 0.02 else 30
    for _ in range(number):
        world.get(ANN, "notes", force=True)
    world.drain()
    world.answer_all()
    assert len(world.record.loads) <= 2
    assert all(get.error is None for get in world.record.gets)


@race()
def herd_costs_one_load(world: World, chance: random.Random) -> None:
    for _ in range(20):
        for user in (ANN, BOB):
            world.get(user, chance.choice(("page", "account", "number")))
    world.answer_all()
    calls = [(load.user, load.resource) for load in world.record.loads.values()]
    assert len(calls) == len(set(calls))


@race()
def callers_are_cancelled(world: World, chance: random.Random) -> None:
    gets = [world.get(ANN, "page") for _ in range(5)]
    world.drain()
    doomed = chance.sample(gets, chance.choice((1, 2, 5)))
    if chance.random() < 0.5 and gets[0] not in doomed:
        doomed[0] = gets[0]
    account = world.one("account")
    world.soon(
        chance, lambda: world.finish(account), *(functools.partial(world.cancel, get) for get in doomed)
    )
    world.answer_all()
    for get in gets:
        assert get.cancelled or get.error is None
    assert sum(load.resource == "account" for load in world.record.loads.values()) == 1
    assert last(world, ANN, "account") is account


@race()
def one_branch_of_many_fails(world: World, chance: random.Random) -> None:
    world.counting = False
    session = world.cache.session(ANN)
    wanted = [world.resources[name] for name in ("page", "notes", "digest")]

    async def ask() -> BaseException | None:
        try:
            await session.get_many(*wanted)
        except UpstreamFailed as error:
            return error
        return None

    asking = world.loop.create_task(ask())
    world.loop.drain()
    notes, account = world.one("notes"), world.one("account")
    fails = chance.choice((notes, account))
    goes_on = account if fails is notes else notes
    world.soon(
        chance,
        lambda: world.finish(fails, UNAVAILABLE),
        lambda: world.finish(goes_on) if chance.random() < 0.5 else world.clock.jump(0),
        lambda: world.get(ANN, "notes"),
        lambda: world.get(ANN, "account"),
    )
    world.loop.drain()
    assert str(asking.result()) == f"load {fails.serial}"
    world.answer_all()
    assert last(world, ANN, goes_on.resource).serial >= goes_on.serial


@race()
def deadline_meets_load_end(world: World, chance: random.Random) -> None:
    world.get(ANN, "notes")
    world.drain()
    load = world.one("notes")
    load.stubborn = chance.random() < 0.5
    world.soon(
        chance,
        lambda: world.clock.jump(10),
        lambda: world.finish(load),
        lambda: world.get(ANN, "notes"),
        lambda: world.get(ANN, "notes", force=True),
    )
    world.answer_all()


@race(policies={"notes": PATIENT})
def patience_meets_load_end(world: World, chance: random.Random) -> None:
    world.held(ANN, "notes")
    world.clock.pass_time(25)
    get = world.get(ANN, "notes")
    world.drain()
    load = world.one("notes")
    world.soon(
        chance,
        lambda: world.clock.jump(3),
        lambda: world.finish(load, chance.choice((OK, UNAVAILABLE, BROKEN))),
        lambda: world.get(ANN, "notes"),
    )
    world.drain()
    assert not get.pending
    world.answer_all()


@race(policies={"notes": GRACE})
def failure_stands_before_the_throttle(world: World, chance: random.Random) -> None:
    """Within the throttle what is stale stands in for errors that may be hidden, and for no others."""
    world.held(ANN, "notes")
    world.clock.pass_time(25)
    first = world.get(ANN, "notes")
    world.drain()
    kind = chance.choice((UNAVAILABLE, BROKEN))
    world.finish(world.one("notes"), kind)
    world.drain()
    second = world.get(ANN, "notes")
    world.drain()
    if kind == UNAVAILABLE:
        assert first.look is not None
        assert first.look.outcome is Outcome.STALE_HIT
        assert not second.pending
        world.clock.pass_time(25)
    else:
        assert isinstance(first.error, ValueError)
        assert second.pending
    dead = world.get(ANN, "notes")
    world.drain()
    assert dead.pending
    world.answer_all(UNAVAILABLE)


@race(gated_connect=True, policies={"account": policy(deadline=4)})
def one_deadline_ends_the_log_in_of_all(world: World, chance: random.Random) -> None:
    """A log-in that a deadline gives up fails all who wait for it; one that succeeds just then is kept and closed."""
    short = world.get(ANN, "account")
    long = world.get(ANN, "notes")
    world.drain()
    world.soon(
        chance,
        lambda: world.clock.jump(4),
        lambda: (
            world.finish_connect(world.connecting()[0])
            if world.connecting() and chance.random() < 0.3
            else None
        ),
    )
    world.drain()
    world.answer_all()
    for get in (short, long):
        assert get.error is None or isinstance(get.error, LoadTimeout)
    world.held(ANN, "notes")
