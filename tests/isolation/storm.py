"""A storm of callers over a faulty upstream, in which every answer is compared with what is true for who asked."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from ipc.rig import expected

from coatcheck import Body, current_user
from coatcheck.errors import LoadError, SessionCleared
from coatcheck.ipc.resources import (
    business_units,
    catalog,
    endpoints,
    engagement_data,
    environments_list,
    ipc_engagement_id,
    paas_engagement_id,
    zones_list,
)

if TYPE_CHECKING:
    from ipc.rig import Rig

    from coatcheck import Resource, Session

HANDLES = 3
CALLERS = 60
# Of those who are to be cancelled some have come to their end before; three of ten are met.
CANCELLED = 0.4
# Turns of the loop within which they are; a cold get takes about thirty.
LIFETIME = 60
KEPT = (
    "get_engagement_id",
    "get_ipc_engagement_id",
    "get_endpoints",
    "get_business_units_list",
    "get_environments_list",
    "get_zones_list",
)
# None of them changes what is true; an honest answer may only fail to arrive, or arrive late.
FAULTS: tuple[dict[str, Any], ...] = (
    *({"kind": "status", "status": status} for status in (401, 403, 404, 410, 500, 503)),
    {"kind": "status", "status": 429, "retry_after": "1"},
    {"kind": "redirect", "location": "/paasservice/paas/engagements"},
    {"kind": "reset"},
    {"kind": "cut"},
    {"kind": "cut", "after": 0},
    {"kind": "slow_body", "bytes": 200, "interval_ms": 1},
    {"kind": "delay", "ms": 1},
    {"kind": "set_cookie"},
    {"kind": "html"},
    {"kind": "expired_token"},
    {"kind": "short_token", "seconds": 31},
    {"kind": "login_failure"},
    {"kind": "failure_envelope"},
    *(
        {"kind": kind}
        for kind in (
            "big_int",
            "bom",
            "data_null",
            "duplicate_keys",
            "invalid_json",
            "lone_surrogate",
            "nan",
            "truncated_json",
            "wrong_charset",
            "wrong_type",
        )
    ),
)


@dataclass
class Truth:
    """What is true for one user, in every shape in which it may be answered, and marks that only this user's have."""

    email: str
    owned: dict[str, Any]
    bodies: dict[str, Any]
    values: dict[str, Any]
    answers: dict[str, Any]
    marks: tuple[str, ...]


@dataclass
class Tally:
    """What happened."""

    callers: int = 0
    answers: int = 0
    failed: int = 0
    cancelled: int = 0
    faults: int = 0
    loads: int = 0
    log_ins: int = 0
    did: Counter[str] = field(default_factory=Counter)
    foreign: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def truth_of(owned: dict[str, Any], email: str) -> Truth:
    """Return the shapes of one engagement's truth."""
    bodies = {
        "engagement_data": owned["engagement"],
        "paas_engagement_id": owned["paas_engagement_id"],
        "ipc_engagement_id": owned["ipc_engagement_id"],
        "endpoints": owned["endpoints"],
        "business_units": expected("get_business_units_list", owned)["data"],
        "environments_list": owned["environments"],
        "zones_list": owned["zones"],
    }
    values = {
        name: catalog[name].codec.accept(Body(msgspec.json.encode(body)))[1] for name, body in bodies.items()
    }
    marks = (
        f"{owned['tag'].partition('.')[0]}.",
        str(owned["paas_engagement_id"]),
        str(owned["ipc_engagement_id"]),
    )
    return Truth(email, owned, bodies, values, {name: expected(name, owned) for name in KEPT}, marks)


class Storm:
    """Everything happens by the dice of one seed, as far as the network lets it."""

    def __init__(self, rig: Rig, seed: int, *, faulty: bool = True) -> None:
        self.rig = rig
        self.dice = random.Random(seed)
        self.faulty = faulty
        self.tally = Tally()
        self.truths = [truth_of(each["engagements"][0], each["email"]) for each in rig.simulator.users()]
        self.handles = {
            truth.email: [rig.cache.session(truth.email) for _ in range(HANDLES)] for truth in self.truths
        }

    async def rage(self, *, rounds: int, answers: int, **others: int) -> Tally:
        """Go on until there have been so many answers and others; give up after so many rounds."""
        wanted = {"answers": answers, **others}
        for _ in range(rounds):
            if all(getattr(self.tally, name) >= number for name, number in wanted.items()):
                return self.tally
            await self._round()
        raise AssertionError(f"the storm is too weak: {self.tally}")

    async def _round(self) -> None:
        rig, dice = self.rig, self.dice
        if self.faulty:
            chosen = dice.sample(FAULTS, 6) if dice.random() < 0.8 else []
            rig.simulator.set_faults([{**fault, "fraction": dice.uniform(0.01, 0.1)} for fault in chosen])
        # Some users ask much more than others, so that loads are shared and sessions are used while they change.
        crowd = dice.sample(self.truths, 10)
        callers = [
            asyncio.create_task(
                self._caller(dice.choice(crowd if dice.random() < 0.6 else self.truths)),
            )
            for _ in range(CALLERS)
        ]
        ends = sorted(
            ((dice.randrange(LIFETIME), n) for n in range(CALLERS) if dice.random() < CANCELLED),
            reverse=True,
        )
        for turn in range(LIFETIME):
            while ends and ends[-1][0] == turn:
                callers[ends.pop()[1]].cancel()
            await asyncio.sleep(0)
        await asyncio.wait(callers)
        self.tally.callers += CALLERS
        self.tally.cancelled += sum(task.cancelled() for task in callers)
        errors = [task.exception() for task in callers if not task.cancelled()]
        for error in filter(None, errors):
            raise error
        self._count()
        await rig.clock.advance(dice.uniform(0, 300))

    def _count(self) -> None:
        simulator = self.rig.simulator
        self.tally.faults += sum(fault["hits"] for fault in simulator.faults())
        self.tally.loads = self.rig.cache.stats().total.loads
        self.tally.log_ins += simulator.calls()["by_path"].get("auth", 0)
        assert simulator.calls()["with_cookie"] == 0
        simulator.reset()

    async def _caller(self, truth: Truth) -> None:
        """Be one user's request, which asks for several things."""
        dice = self.dice
        handle = dice.choice(self.handles[truth.email])
        if dice.random() < 0.3:
            current_user.set(truth.email)
        for _ in range(dice.randrange(20, 80)):
            try:
                await self._do(truth, handle)
            except (LoadError, SessionCleared):
                self.tally.failed += 1
            if dice.random() < 0.3:
                await asyncio.sleep(0)

    async def _do(self, truth: Truth, handle: Session) -> None:
        what = self.dice.choices(*zip(*WEIGHTS, strict=True))[0]
        self.tally.did[what] += 1
        await getattr(self, f"_{what}")(truth, handle)

    def _resource(self) -> Resource[Any]:
        return self.dice.choice(RESOURCES)

    async def _get(self, truth: Truth, handle: Session) -> None:
        resource = self._resource()
        self._check(truth, await handle.get(resource), truth.values[resource.name])

    async def _get_by_id(self, truth: Truth, handle: Session) -> None:
        resource = self.dice.choice(RESOURCES[3:])
        name = resource.parameters[0].name
        found = await handle.get(resource, **{name: truth.bodies[name]})
        self._check(truth, found, truth.values[resource.name])

    async def _get_many(self, truth: Truth, handle: Session) -> None:
        wanted = self.dice.sample(RESOURCES, 3)
        for resource, found in zip(wanted, await handle.get_many(*wanted), strict=True):
            self._check(truth, found, truth.values[resource.name])

    async def _lookup(self, truth: Truth, handle: Session) -> None:
        resource = self._resource()
        look = await handle.lookup(resource)
        self._check(truth, look.value, truth.values[resource.name])
        self._check(truth, msgspec.json.decode(look.body), truth.bodies[resource.name])

    async def _peek(self, truth: Truth, handle: Session) -> None:
        resource = self._resource()
        look = self.rig.cache.session(truth.email).peek(resource)
        if look is not None:
            self._check(truth, look.value, truth.values[resource.name])

    async def _service(self, truth: Truth, handle: Session, **options: Any) -> None:
        name = self.dice.choice(KEPT)
        mine = current_user.get() == truth.email and self.dice.random() < 0.5
        answer = await getattr(self.rig.service, name)(user_id=None if mine else truth.email, **options)
        if answer is None or (isinstance(answer, dict) and not answer["success"]):
            self.tally.failed += 1
            return
        if isinstance(answer, dict):
            # What has expired bridges a fault; it must be right all the same.
            answer.pop("stale", None)
        self._check(truth, answer, truth.answers[name])
        if isinstance(answer, dict):
            # It is the caller's own: whoever asks next must not notice.
            ruin = answer["data"]
            ruin.clear()

    async def _service_by_force(self, truth: Truth, handle: Session) -> None:
        await self._service(truth, handle, force_refresh=True)

    async def _force(self, truth: Truth, handle: Session) -> None:
        resource = self._resource()
        found = await handle.get(resource, force_refresh=True, deep=self.dice.random() < 0.2)
        self._check(truth, found, truth.values[resource.name])

    async def _held(self, truth: Truth, handle: Session) -> None:
        held = await self.rig.service._get_user_session(truth.email)
        held.pop("cached_at", None)
        for name, found in held.items():
            self._check(truth, found, truth.bodies[name])

    async def _machines(self, truth: Truth, handle: Session) -> None:
        answer = await self.rig.service.list_vms(user_id=truth.email)
        if answer["success"]:
            names = [each["virtualMachine"]["vmName"] for each in answer["data"]]
            self._check(truth, names, truth.owned["vm_names"])

    async def _clusters(self, truth: Truth, handle: Session) -> None:
        answer = await self.rig.service.list_clusters(user_id=truth.email)
        if answer["success"] and not answer["errors"]:
            names = [each["clusterName"] for each in answer["data"]]
            self._check(truth, names, truth.owned["cluster_names"])

    async def _clear(self, truth: Truth, handle: Session) -> None:
        await self.dice.choice((handle.clear, lambda: self.rig.service._clear_user_session(truth.email)))()

    async def _invalidate(self, truth: Truth, handle: Session) -> None:
        await handle.invalidate(self._resource())

    async def _put(self, truth: Truth, handle: Session) -> None:
        resource = self.dice.choice((engagement_data, *RESOURCES[3:]))
        with suppress(LoadError):
            body: Any = Body(msgspec.json.encode(truth.bodies[resource.name]))
            await handle.put(resource, body)

    def _check(self, truth: Truth, found: object, wanted: object) -> None:
        self.tally.answers += 1
        if found == wanted:
            return
        text = str(found)
        foreign = any(mark in text for other in self.truths if other is not truth for mark in other.marks)
        (self.tally.foreign if foreign else self.tally.wrong).append(f"{truth.email} got {text[:200]}")


RESOURCES: tuple[Resource[Any], ...] = (
    engagement_data,
    paas_engagement_id,
    ipc_engagement_id,
    endpoints,
    business_units,
    environments_list,
    zones_list,
)
WEIGHTS = (
    ("get", 500),
    ("get_by_id", 60),
    ("get_many", 40),
    ("lookup", 80),
    ("peek", 80),
    ("service", 180),
    ("service_by_force", 4),
    ("force", 4),
    ("held", 6),
    ("machines", 3),
    ("clusters", 2),
    ("clear", 5),
    ("invalidate", 4),
    ("put", 4),
)
