"""What the simulator's own world says of each user: what must be answered, what is wrong with an answer, the account."""

from __future__ import annotations

import hashlib
import re
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from coatcheck.cli.chat_session import MANAGED
from coatcheck.ipc.models import BusinessUnits, Cluster, Endpoint, Environment, ManagedService, VmList, Zone
from coatcheck.simulator import documents, products
from coatcheck.simulator.ids import IdSpace
from coatcheck.upstream.log_ins import Account

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coatcheck.bootstrap import Credentials
    from coatcheck.cli.chat_session import Answer
    from coatcheck.simulator import Simulator

_TAG = re.compile(r"tenant-\d{4,6}")
_ID = re.compile(r"\d{9,}")


class Verdict(Enum):
    """What an answer is worth."""

    RIGHT = "right"
    WRONG = "wrong"
    FOREIGN = "foreign"


class Truth:
    """Compares answers, to the last field, with what the simulator says of each user.

    What it expects is kept as digests: a kilobyte a user.

    Args:
        simulator: knows the world; it need not run.
    """

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._tags: dict[str, str] = {}
        self._expected: dict[str, tuple[bytes, ...]] = {}

    def learn(self, email: str) -> None:
        """Work out what a user must be answered."""
        self._tags[email] = self._simulator.truth(email)["tag"]
        self._expected[email] = tuple(_digest(_bytes(answer)) for answer in self.expected(email))

    def judge(self, email: str, step: int, answer: Answer) -> Verdict:
        """Compare the answer to a step of the chat session of a user that was learnt."""
        body = _bytes(answer)
        if _digest(body) == self._expected[email][step]:
            return Verdict.RIGHT
        return Verdict.FOREIGN if self._of_another(self._tags[email], body.decode()) else Verdict.WRONG

    def expected(self, email: str) -> Sequence[Answer]:
        """Return the right answers, in the order of the chat session."""
        simulator = self._simulator
        said = simulator.truth(email)["engagements"][0]
        account = simulator.world.account(email)
        assert account is not None
        owner = simulator.world.engagements(account)[0]
        paas, ipc = said["paas_engagement_id"], said["ipc_engagement_id"]
        ids = [each["endpointId"] for each in said["endpoints"]]
        # The stream sends times as they are kept; elsewhere they are ISO.
        clusters = [{**documents.cluster(each), "createdTime": each.created} for each in owner.clusters]
        services = [
            service for each in owner.endpoints for service in products.managed_services(owner, MANAGED, each)
        ]
        departments = documents.departments(owner)
        return (
            (msgspec.convert(said["endpoints"], tuple[Endpoint, ...]),),
            (paas, ids, True, 0, msgspec.convert(clusters, tuple[Cluster, ...])),
            (ipc, msgspec.convert(documents.machines(owner), VmList)),
            (msgspec.convert({**departments, "department": said["departments"]}, BusinessUnits),),
            (msgspec.convert(said["environments"], tuple[Environment, ...]),),
            (msgspec.convert(said["zones"], tuple[Zone, ...]),),
            (paas, ipc, ids, msgspec.convert(services, tuple[ManagedService, ...])),
        )

    def _of_another(self, tag: str, body: str) -> bool:
        world = self._simulator.world
        tags = set(_TAG.findall(body))
        for ident in _ID.findall(body):
            owners = (world.owner(space, int(ident)) for space in IdSpace)
            tags.update(owner.tag.partition(".")[0] for owner in owners if owner is not None)
        return bool(tags - {tag})


def accounts_of(simulator: Simulator) -> Credentials:
    """Return with what each user of the simulator's world is logged in: the account of their own."""

    def credentials(user: str) -> Account | None:
        found = simulator.world.account(user)
        return None if found is None else Account(found.email, found.password)

    return credentials


def _bytes(answer: Answer) -> bytes:
    return msgspec.json.encode(answer)


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()
