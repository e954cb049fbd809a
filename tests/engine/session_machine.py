"""Random operations on a cache, in random interleavings, held against the record of a `World`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis
import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from coatcheck.engine.guarded import LONGEST_PAUSE
from coatcheck.engine.limits import Limits
from engine.recorded_catalog import FAILURES, FORBIDDEN, OK, POLICIES, STORED, USERS, Account
from engine.recorded_store import OPERATIONS, Astray
from engine.recorded_world import World
from engine.shuffled_loop import ShuffledLoop, SteppedLoop

if TYPE_CHECKING:
    from coatcheck.engine.policy import Policy
    from engine.recorded_world import MakeDisk

# Few users and resources in each example, so that what happens to one happens to the same one again.
crowds = st.sampled_from(((0,), (0,), (0, 1), (0, 1), (0, 1, 2), (3, 4)))
casts = st.sampled_from(
    (
        ("notes",),
        ("account",),
        ("account", "notes"),
        ("page", "account"),
        ("page", "number", "card"),
        ("digest", "account", "number"),
        ("rows", "page"),
        ("account", "notes", "page", "digest", "rows", "number", "card"),
    )
)
users = resources = st.integers(0, 6)
numbers = st.sampled_from((1, 2))
which = st.integers(0, 5)
# None is until nothing is ready any more.
turns = st.sampled_from((None, None, None, None, 0, 1, 2, 3, 5))
policies = st.sampled_from(POLICIES)
limits = st.sampled_from(
    (
        Limits(),
        Limits(),
        Limits(max_sessions=1),
        Limits(max_sessions=2, max_keys_per_session=2),
        Limits(max_keys_per_session=1),
        Limits(max_bytes=6_000),
        Limits(max_loads=1),
        Limits(max_loads=2, max_loads_per_user=1, max_refreshes=1),
        Limits(max_loads_per_user=1, max_sessions=2),
    )
)
spans = st.sampled_from((1, 1, 2, 3, 4, 5, 6, 8, 10, 12, 21, 30, 300, 700))
TROUBLE = (
    ("open",),
    ("put",),
    ("put", "delete", "forget"),
    ("clear", "clear_all"),
    ("put", "delete", "clear"),
    OPERATIONS,
)
# How much further the wall clock is set between two nodes.
AGED = (0, 0, 0, 0, 3, 15, 90_000, -86_400)
POINTS = ("ahead", "ttl", "ttl", "ttl", "grace", "grace", "deadline", "negative", "throttle")


class SessionMachine(RuleBasedStateMachine):
    """Callers, an upstream that answers when told to, and an operator, all at once."""

    world: World | None = None
    make_disk: MakeDisk | None = None

    @initialize(
        seed=st.none() | st.integers(0, 2**16),
        crowd=crowds,
        cast=casts,
        chosen=limits,
        gated_connect=st.booleans(),
        account=policies,
        notes=policies,
        page=policies,
    )
    def begin(
        self,
        seed: int | None,
        crowd: tuple[int, ...],
        cast: tuple[str, ...],
        chosen: Limits,
        gated_connect: bool,
        account: Policy,
        notes: Policy,
        page: Policy,
    ) -> None:
        self.crowd = [USERS[index] for index in crowd]
        self.cast = cast
        loop = SteppedLoop() if seed is None else ShuffledLoop(seed)
        self.world = World(
            loop,
            limits=chosen,
            gated_connect=gated_connect,
            policies={"account": account, "notes": notes, "page": page, "rows": page},
            disk=self.make_disk,
        )

    @property
    def made(self) -> World:
        assert self.world is not None
        return self.world

    def who(self, user: int) -> str:
        return self.crowd[user % len(self.crowd)]

    def what(self, resource: int) -> str:
        return self.cast[resource % len(self.cast)]

    def run(self, number: int | None) -> None:
        if number is None:
            self.made.loop.drain()
        else:
            self.made.loop.turn(number)

    # -- callers --------------------------------------------------------------------------------------------------

    @rule(user=users, resource=resources, looks=st.booleans(), number=turns)
    def get(self, user: int, resource: int, looks: bool, number: int | None) -> None:
        self.made.get(self.who(user), self.what(resource), looks=looks)
        self.run(number)

    @rule(user=users, resource=resources, several=st.integers(2, 4))
    def get_at_once(self, user: int, resource: int, several: int) -> None:
        for _ in range(several):
            self.made.get(self.who(user), self.what(resource))
        self.run(None)

    @rule(user=users, resource=resources, value=numbers)
    def hold(self, user: int, resource: int, value: int) -> None:
        """Get something and let all loads end well, so that it is held if it can be."""
        self.made.get(self.who(user), self.what(resource))
        self.made.answer_all(number=value)

    @rule(user=users, resource=resources, deep=st.booleans(), looks=st.booleans(), number=turns)
    def force(self, user: int, resource: int, deep: bool, looks: bool, number: int | None) -> None:
        self.made.get(self.who(user), self.what(resource), force=True, deep=deep, looks=looks)
        self.run(number)

    @rule(
        user=users,
        resource=resources,
        max_age=st.sampled_from((None, None, 0, 1, 5, 8, 20, 40)),
        given=numbers,
        region=st.sampled_from((None, "eu", "us")),
        force=st.booleans(),
        number=turns,
    )
    def get_with_options(
        self,
        user: int,
        resource: int,
        max_age: int | None,
        given: int,
        region: str | None,
        force: bool,
        number: int | None,
    ) -> None:
        name = self.what(resource)
        passed: dict[str, Any] = {}
        if name == "page":
            passed = {"number": given} if region is None else {"number": given, "region": region}
        elif name == "digest":
            account = Account("passed", given)
            passed = {"account": account} if region is None else {"account": account, "number": given}
        self.made.get(self.who(user), name, force=force and max_age is None, max_age=max_age, **passed)
        self.run(number)

    @rule(user=users, resource=resources)
    def peek(self, user: int, resource: int) -> None:
        self.made.peek(self.who(user), self.what(resource))

    @precondition(lambda self: self.world is not None and any(get.pending for get in self.world.record.gets))
    @rule(index=which, number=turns)
    def cancel_waiter(self, index: int, number: int | None) -> None:
        pending = [get for get in self.made.record.gets if get.pending]
        self.made.cancel(pending[index % len(pending)])
        self.run(number)

    # -- the upstream ---------------------------------------------------------------------------------------------

    def end_one(self, index: int, kind: str, value: int, number: int | None) -> None:
        waiting = self.made.record.waiting()
        self.made.finish(waiting[index % len(waiting)], kind, value)
        self.run(number)

    @precondition(lambda self: self.world is not None and self.world.record.waiting() != [])
    @rule(index=which, value=numbers, number=turns)
    def load_ends_well(self, index: int, value: int, number: int | None) -> None:
        self.end_one(index, OK, value, number)

    @precondition(lambda self: self.world is not None and self.world.record.waiting() != [])
    @rule(index=which, kind=st.sampled_from(FAILURES), number=turns)
    def load_fails(self, index: int, kind: str, number: int | None) -> None:
        self.end_one(index, kind, 1, number)

    @precondition(lambda self: self.world is not None and self.world.record.waiting() != [])
    @rule(value=numbers)
    def all_end_well(self, value: int) -> None:
        self.made.answer_all(number=value)

    @precondition(lambda self: self.world is not None and self.world.record.waiting() != [])
    @rule(index=which)
    def turn_stubborn(self, index: int) -> None:
        waiting = self.made.record.waiting()
        waiting[index % len(waiting)].stubborn = True

    @precondition(lambda self: self.world is not None and self.world.connecting() != [])
    @rule(index=which, ok=st.sampled_from((True, True, True, False)), number=turns)
    def finish_connect(self, index: int, ok: bool, number: int | None) -> None:
        connecting = self.made.connecting()
        self.made.finish_connect(connecting[index % len(connecting)], ok=ok)
        self.run(number)

    # -- the operator ---------------------------------------------------------------------------------------------

    @rule(user=st.none() | users, number=turns)
    def clear(self, user: int | None, number: int | None) -> None:
        self.made.spawn(self.made.clear_all() if user is None else self.made.clear(self.who(user)))
        self.run(number)

    @rule(user=st.none() | users, resource=resources, given=st.none() | numbers, number=turns)
    def invalidate(self, user: int | None, resource: int, given: int | None, number: int | None) -> None:
        name = self.what(resource)
        passed = {"number": given} if given is not None and user is not None and name == "page" else {}
        self.made.spawn(self.made.invalidate(None if user is None else self.who(user), name, **passed))
        self.run(number)

    @rule(user=users, resource=resources, value=numbers, number=turns)
    def put(self, user: int, resource: int, value: int, number: int | None) -> None:
        name = self.what(resource)
        if name not in {"account", "notes", "page"}:
            name = "account"
        passed = {"number": value} if name == "page" else {}
        self.made.spawn(self.made.put(self.who(user), name, value, **passed))
        self.run(number)

    @rule(resource=resources, chosen=policies)
    def set_policy(self, resource: int, chosen: Policy) -> None:
        name = self.what(resource)
        self.made.set_policy(name if name in STORED else "account", chosen)

    # -- time -----------------------------------------------------------------------------------------------------

    @rule(span=spans)
    def advance(self, span: int) -> None:
        self.made.clock.pass_time(span)
        self.run(None)

    @precondition(lambda self: self.world is not None and self.world.record.loads != {})
    @rule(index=which, point=st.sampled_from(POINTS), by=st.sampled_from((-1, 0, 0, 1)))
    def advance_to(self, index: int, point: str, by: int) -> None:
        """Let time pass to a deadline of one of the latest loads, or to a second before or after."""
        self.pass_to(index, point, by)

    def pass_to(self, index: int, point: str, by: int) -> None:
        world = self.made
        if not world.record.loads:
            return
        load = list(world.record.loads.values())[-1 - index % min(3, len(world.record.loads))]
        chosen = world.record.policies[load.resource][-1].chosen
        ttl = chosen.ttl.total_seconds()
        since = load.called_at if load.ended_at is None else load.ended_at
        target = {
            "ahead": load.called_at + ttl * (chosen.refresh_ahead or 1.0),
            "ttl": load.called_at + ttl,
            "grace": load.called_at + ttl + chosen.stale_if_error.total_seconds(),
            "deadline": load.called_at + chosen.deadline.total_seconds(),
            "negative": since + chosen.negative_ttl.total_seconds(),
            "throttle": since + chosen.failure_throttle.total_seconds(),
        }[point]
        if target + by > world.clock.now:
            world.clock.pass_time(target + by - world.clock.now)
        self.run(None)

    @rule(
        user=users,
        resource=resources,
        point=st.sampled_from(("ttl", "ttl", "grace")),
        by=st.sampled_from((-1, 0, 1)),
        kind=st.sampled_from(FAILURES),
        later=st.sampled_from((0, 0, 1, 2)),
    )
    def fail_when_old(self, user: int, resource: int, point: str, by: int, kind: str, later: int) -> None:
        """Hold something until it is old, let its next load fail, and ask again."""
        world, who, what = self.made, self.who(user), self.what(resource)
        world.get(who, what)
        world.answer_all()
        self.pass_to(0, point, by)
        world.get(who, what)
        world.drain()
        world.finish_those(kind=kind)
        world.drain()
        world.clock.pass_time(later)
        world.get(who, what)
        world.drain()

    # -- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def all_is_as_promised(self) -> None:
        if self.world is None:
            return
        self.world.check()
        if not self.world.loop._pending():
            self.world.at_rest()

    def teardown(self) -> None:
        if self.world is not None:
            self.world.finale()


class StoreMachine(SessionMachine):
    """The same with a store beneath that goes astray, and with nodes that end and begin."""

    @rule(how=st.sampled_from(Astray), operations=st.sampled_from(TROUBLE))
    def go_astray(self, how: Astray, operations: tuple[str, ...]) -> None:
        self.made.beneath.fault(how, *operations)

    @precondition(lambda self: self.world is not None and not self.world.beneath.well)
    @rule(number=turns)
    def heal(self, number: int | None) -> None:
        self.made.beneath.heal()
        self.run(number)

    @precondition(lambda self: self.world is not None and self.world.beneath.hanging)
    @rule(number=turns)
    def release(self, number: int | None) -> None:
        self.made.beneath.release()
        self.run(number)

    @precondition(lambda self: self.world is not None and self.world.beneath.late != [])
    @rule(index=which, number=turns)
    def arrive_late(self, index: int, number: int | None) -> None:
        self.made.arrive_late(index)
        self.run(number)

    @rule(user=users)
    def evict(self, user: int) -> None:
        self.made.evict(self.who(user))

    @rule(span=st.sampled_from((0.125, 0.25, 0.5)))
    def advance_a_little(self, span: float) -> None:
        self.made.clock.pass_time(span)
        self.run(None)

    @rule(user=users)
    def clear_elsewhere(self, user: int) -> None:
        self.made.clear_elsewhere(self.who(user))
        self.run(None)

    @rule(
        crash=st.booleans(),
        aged=st.sampled_from(AGED),
        authority=st.sampled_from((None, None, None, "", "an admin")),
    )
    def restart(self, crash: bool, aged: float, authority: str | None) -> None:
        if aged < 0 and not self.made.notices_set_back:
            aged = 0.0
        self.made.restart(crash=crash, aged=aged, authority=authority)

    @rule(
        user=users,
        resource=resources,
        what=st.sampled_from(("force", "refuse", "invalidate", "invalidate for all", "clear", "clear all")),
        how=st.none() | st.sampled_from(Astray),
        calm=st.booleans(),
        then=st.sampled_from(("evict", "restart", "crash")),
    )
    def change_and_come_back(
        self, user: int, resource: int, what: str, how: Astray | None, calm: bool, then: str
    ) -> None:
        """Hold something, let something happen to it while the store may be astray, and ask for it from the store."""
        world, who, name = self.made, self.who(user), self.what(resource)
        world.held(who, name)
        world.clock.pass_time(1)
        if how is not None:
            world.beneath.fault(how, *TROUBLE[2])
        if what in {"force", "refuse"}:
            world.get(who, name, force=True)
            world.answer_all(OK if what == "force" else FORBIDDEN, number=2)
        elif what.startswith("invalidate"):
            world.spawn(world.invalidate(who if what == "invalidate" else None, name))
        else:
            world.spawn(world.clear(who) if what == "clear" else world.clear_all())
        world.drain()
        world.clock.pass_time(3)
        if calm:
            world.beneath.heal()
            world.clock.pass_time(LONGEST_PAUSE)
        if then == "evict":
            world.evict(who)
        else:
            world.restart(crash=then == "crash")
        world.beneath.heal()
        world.get(who, name)
        world.drain()


def check_machine(
    *, examples: int, seed: int, steps: int = 50, shrink: bool = True, disk: MakeDisk | None = None
) -> None:
    """Run the machine; a failure prints its steps, and notes the seed to be given as ``COATCHECK_SEED`` to repeat it.

    Args:
        examples: how many.
        seed: which.
        steps: how many steps each has at most.
        shrink: look for a shorter one that fails, too.
        disk: makes what lies beneath; None for memory alone.

    Raises:
        AssertionError: something was not as promised.
    """
    machine = SessionMachine if disk is None else StoreMachine

    @hypothesis.seed(seed)
    class Seeded(machine):  # type: ignore[misc, valid-type]
        make_disk = disk if disk is None else staticmethod(disk)

    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(Seeded, settings=chosen)
    except BaseException as error:
        error.add_note(f"COATCHECK_SEED={seed}")
        raise
