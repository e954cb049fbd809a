"""What IPC Cloud answers, typed.

A field is required if nothing could be made of the answer without it. All others may be absent or null, since the
upstream's own word on them differs or is missing. Fields that are not here stay in the body as it came.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import field

Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Model(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    # Without gc: nothing of JSON points back at what holds it.
    pass


class Engagement(_Model, frozen=True, kw_only=True):
    """A customer's engagement in the PaaS. Its id is of another number space than the IPC id."""

    id: Id
    engagement_name: str | None = None
    engagement_type: str | None = None
    customer_name: str | None = None


class IpcEngagement(_Model, frozen=True, kw_only=True, rename=None):
    """The same engagement in IPC, under the upstream's own field names."""

    ipc_engid: Id
    ipc_eng: str | None = None


class Endpoint(_Model, frozen=True, kw_only=True):
    """A data centre."""

    endpoint_id: Id
    endpoint_display_name: str
    endpoint: str | None = None
    ai_cloud_enabled: str | None = None
    endpoint_type: str | None = ""
    region: str | None = ""
    status: str | None = "active"


class DepartmentEndpoint(_Model, frozen=True, kw_only=True):
    """The data centre that a department is in."""

    id: Id | None = None
    name: str | None = None
    location: str | None = None


class Department(_Model, frozen=True, kw_only=True):
    """A department, also called business unit."""

    id: Id
    name: str
    endpoint: DepartmentEndpoint | None = None
    no_of_environments: int | None = None
    no_of_zones: int | None = None
    no_of_vms: int | None = field(name="noOfVMs", default=None)


class DepartmentEngagement(_Model, frozen=True, kw_only=True):
    """The engagement that departments are listed under."""

    id: Id | None = None
    name: str | None = None


class BusinessUnits(_Model, frozen=True, kw_only=True):
    """The departments of an engagement."""

    department: tuple[Department, ...]
    engagement: DepartmentEngagement | None = None


class Environment(_Model, frozen=True, kw_only=True):
    """An environment of a department."""

    id: Id
    name: str
    department_id: Id | None = None
    department_id_too: Id | None = field(name="department_id", default=None)
    department: str | None = None
    endpoint_name: str | None = None

    @property
    def of_department(self) -> int | None:
        """The id of its department, whichever way it was spelt."""
        return self.department_id_too if self.department_id is None else self.department_id


class Zone(_Model, frozen=True, kw_only=True):
    """A network zone."""

    zone_id: Id
    zone_name: str
    department_name: str | None = None
    environment_name: str | None = None
    cidr: str | None = None
    status: str | None = None
    endpoint_name: str | None = None


class VmAttributes(_Model, frozen=True, kw_only=True):
    """Details of a virtual machine. ``ram`` is megabytes; figures come as text."""

    vm_status: str | None = field(name="VM Status", default=None)
    ip: str | None = field(name="IP", default=None)
    vcpu: str | int | None = field(name="vCPU", default=None)
    ram: str | int | None = field(name="RAM", default=None)
    os_make: str | None = field(name="OSMake", default=None)
    os_version: str | None = field(name="OSVersion", default=None)


class VmEndpoint(_Model, frozen=True, kw_only=True):
    """The data centre of a virtual machine, as ``Display(CODE)``."""

    endpoint_name: str | None = None


class VmZone(_Model, frozen=True, kw_only=True):
    """The zone of a virtual machine."""

    zone_name: str | None = None


class VmDepartment(_Model, frozen=True, kw_only=True):
    """The department of a virtual machine."""

    department_name: str | None = None


class VirtualMachine(_Model, frozen=True, kw_only=True):
    """A virtual machine. ``storage`` is gigabytes."""

    vm_name: str
    storage: int | float | str | None = None
    created_time: str | None = None
    vm_attributes: VmAttributes | None = None
    endpoint: VmEndpoint | None = None
    zone: VmZone | None = None
    department: VmDepartment | None = None


class VmItem(_Model, frozen=True, kw_only=True):
    """What the list wraps each machine in."""

    virtual_machine: VirtualMachine


class VmList(_Model, frozen=True, kw_only=True):
    """All virtual machines of an engagement, as of ``last_synced_at`` (``YYYY-MM-DD HH:MM:SS``)."""

    vm_list: tuple[VmItem, ...]
    last_synced_at: str | None = None

    @property
    def machines(self) -> tuple[VirtualMachine, ...]:
        """The machines without their wrapping."""
        return tuple(item.virtual_machine for item in self.vm_list)


class Cluster(_Model, frozen=True, kw_only=True):
    """A Kubernetes cluster. ``nodescount`` and the flag come as text."""

    cluster_id: Id
    cluster_name: str
    nodescount: str | int | None = None
    kubernetes_version: str | None = None
    status: str | None = None
    display_name_endpoint: str | None = None
    location: str | None = None
    type: str | None = None
    is_iks_backup_enabled: str | bool | None = None
    created_time: str | None = None


class ManagedService(_Model, frozen=True, kw_only=True):
    """A managed service. Four of its fields go by two names each; the properties give the one that is there."""

    name: str | None = None
    service_name: str | None = None
    status: str | None = None
    location_name: str | None = None
    endpoint_name: str | None = None
    version: str | None = None
    cluster_name: str | None = None
    replicas: int | str | None = None
    instance_namespace: str | None = None
    namespace: str | None = None
    ingress_url: str | None = None
    url: str | None = None
    service_type: str | None = None
    engagement_name: str | None = None
    department_name: str | None = None

    @property
    def title(self) -> str | None:
        """Its name."""
        return self.service_name if self.name is None else self.name

    @property
    def place(self) -> str | None:
        """The name of its data centre."""
        return self.endpoint_name if self.location_name is None else self.location_name

    @property
    def kubernetes_namespace(self) -> str | None:
        """The namespace of its instance."""
        return self.namespace if self.instance_namespace is None else self.instance_namespace

    @property
    def address(self) -> str | None:
        """Where it answers."""
        return self.url if self.ingress_url is None else self.ingress_url
