"""What one engagement owns: data centres, departments, environments, zones, machines, clusters."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

from coatcheck.simulator.ids import Ids, IdSpace

_CITIES = (
    ("Pune-East", "PUN"),
    ("Mumbai-West", "MUM"),
    ("Delhi-North", "DEL"),
    ("Chennai-South", "CHE"),
    ("Bengaluru-1", "BLR"),
)
_STAGES = ("Production", "Staging", "Testing", "Development", "Training", "Recovery", "Analytics", "Sandbox")
_CLUSTERS_PER_ENDPOINT = (17, 21, 4, 13, 8)
_DEPARTMENTS = 10
_SYSTEMS = (("Ubuntu", "22.04 LTS"), ("RHEL", "9.4"), ("Windows", "2022"))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A data centre as one engagement sees it."""

    id: int
    name: str
    code: str
    ai_cloud: bool


@dataclass(frozen=True, slots=True)
class Department:
    """A business unit, in one data centre."""

    id: int
    name: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Environment:
    """A stage of a department."""

    id: int
    name: str
    department: Department


@dataclass(frozen=True, slots=True)
class Zone:
    """A network of an environment."""

    id: int
    name: str
    cidr: str
    hypervisor: str
    environment: Environment


@dataclass(frozen=True, slots=True)
class Machine:
    """A virtual machine in a zone."""

    name: str
    storage: int
    created: str
    status: str
    ip: str
    cpus: int
    ram: int
    system: str
    version: str
    zone: Zone


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Kubernetes cluster in a data centre."""

    id: int
    name: str
    nodes: int
    version: str | None
    status: str
    management: bool
    backup: bool
    created: str
    endpoint: Endpoint


class Engagement:
    """One engagement: its two ids and all that hangs below them.

    A pure function of the world's seed and its number; lists are computed when they are first asked for.
    Every name in it contains ``tag``, so that a value seen elsewhere tells whose it is.
    """

    def __init__(self, ids: Ids, seed: int, number: int, tag: str) -> None:
        self._ids = ids
        self._seed = seed
        self.number = number
        self.tag = tag
        self.paas_id = ids.make(IdSpace.PAAS, number)
        self.ipc_id = ids.make(IdSpace.IPC, number)
        self.name = f"{tag}-PaaS"
        self.customer = f"{tag} Ltd"

    def dice(self, topic: str) -> random.Random:
        """Return this engagement's own dice for a topic; the same throws every time."""
        return random.Random(f"{self._seed}/{self.number}/{topic}")

    def id(self, space: IdSpace, ordinal: int) -> int:
        """Return the id of the *ordinal*-th thing of a kind in this engagement."""
        return self._ids.make(space, self.number, ordinal)

    @cached_property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Five data centres."""
        dice = self.dice("endpoints")
        return tuple(
            Endpoint(
                self.id(IdSpace.ENDPOINT, n),
                f"{city} {self.tag}",
                f"EP_V2_{code}.{self.tag}",
                dice.random() < 0.3,
            )
            for n, (city, code) in enumerate(_CITIES)
        )

    @cached_property
    def departments(self) -> tuple[Department, ...]:
        """Ten departments, two in each data centre."""
        return tuple(
            Department(
                self.id(IdSpace.DEPARTMENT, n),
                f"BU-{_CITIES[n % len(_CITIES)][1]}-{n // len(_CITIES) + 1} {self.tag}",
                self.endpoints[n % len(_CITIES)],
            )
            for n in range(_DEPARTMENTS)
        )

    @cached_property
    def environments(self) -> tuple[Environment, ...]:
        """Eight environments, spread over the departments; some departments have none."""
        dice = self.dice("environments")
        return tuple(
            Environment(self.id(IdSpace.ENVIRONMENT, n), f"{stage} {self.tag}", dice.choice(self.departments))
            for n, stage in enumerate(_STAGES)
        )

    @cached_property
    def zones(self) -> tuple[Zone, ...]:
        """One to three zones for each environment."""
        dice = self.dice("zones")
        homes = [environment for environment in self.environments for _ in range(dice.randint(1, 3))]
        return tuple(
            Zone(
                self.id(IdSpace.ZONE, n),
                f"zone-{n:02d} {self.tag}",
                f"10.{self.number % 256}.{n}.0/24",
                dice.choice(("VCD_ESXI", "KVM")),
                environment,
            )
            for n, environment in enumerate(homes)
        )

    @cached_property
    def machines(self) -> tuple[Machine, ...]:
        """One to four virtual machines for each zone."""
        dice = self.dice("machines")
        homes = [zone for zone in self.zones for _ in range(dice.randint(1, 4))]
        return tuple(self._machine(dice, n, zone) for n, zone in enumerate(homes))

    def _machine(self, dice: random.Random, n: int, zone: Zone) -> Machine:
        system, version = dice.choice(_SYSTEMS)
        return Machine(
            name=f"vm-{n:03d} {self.tag}",
            storage=(50, 100, 250)[n % 3],
            created=f"2024-{n % 12 + 1:02d}-{n % 28 + 1:02d} 08:00:00",
            status=dice.choice(("ACTIVE", "ACTIVE", "ACTIVE", "PENDING", "RESTORE")),
            ip=f"{zone.cidr.removesuffix('0/24')}{n % 250 + 4}",
            cpus=(2, 4, 8)[n % 3],
            ram=(4096, 8192, 16384)[n % 3],
            system=system,
            version=version,
            zone=zone,
        )

    @cached_property
    def clusters(self) -> tuple[Cluster, ...]:
        """Sixty-three clusters, unevenly spread over the data centres."""
        dice = self.dice("clusters")
        counts = dice.sample(_CLUSTERS_PER_ENDPOINT, len(_CLUSTERS_PER_ENDPOINT))
        homes = [home for home, count in zip(self.endpoints, counts, strict=True) for _ in range(count)]
        return tuple(self._cluster(dice, n, endpoint) for n, endpoint in enumerate(homes))

    def _cluster(self, dice: random.Random, n: int, endpoint: Endpoint) -> Cluster:
        draft = dice.random() < 0.1
        return Cluster(
            id=self.id(IdSpace.CLUSTER, n),
            name=f"cluster-{n:02d}.{self.tag}",
            nodes=dice.randint(1, 9),
            version=None if draft else dice.choice(("v1.29.9", "v1.30.14", "v1.31.4")),
            status="Draft" if draft else "Healthy",
            management=n % 5 == 0,
            backup=n % 3 == 0,
            created=f"2025-{n % 12 + 1:02d}-{n % 28 + 1:02d} 03:04:05.0",
            endpoint=endpoint,
        )
