"""The shapes in which the upstream says what there is: estates as JSON-able dicts and lists."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coatcheck.simulator.estate import Cluster, Engagement, Environment, Machine, Zone

Document = dict[str, Any]


def engagement(owner: Engagement) -> Document:
    """One item of the engagement list."""
    return {
        "id": owner.paas_id,
        "engagementName": owner.name,
        "engagementType": "PaaS",
        "customerName": owner.customer,
    }


def conversion(owner: Engagement) -> Document:
    """The IPC id that belongs to a PaaS id."""
    return {"ipc_eng": owner.tag, "ipc_engid": owner.ipc_id}


def endpoints(owner: Engagement) -> list[Document]:
    """The data centres."""
    return [
        {
            "endpointId": endpoint.id,
            "endpointDisplayName": endpoint.name,
            "endpoint": endpoint.code,
            "aiCloudEnabled": "yes" if endpoint.ai_cloud else "no",
        }
        for endpoint in owner.endpoints
    ]


def departments(owner: Engagement) -> Document:
    """The departments with how much is in each."""
    environments = Counter(item.department.id for item in owner.environments)
    zones = Counter(zone.environment.department.id for zone in owner.zones)
    machines = Counter(machine.zone.environment.department.id for machine in owner.machines)
    return {
        "engagement": {"id": owner.ipc_id, "name": owner.tag},
        "department": [
            {
                "id": item.id,
                "name": item.name,
                "endpoint": {
                    "id": item.endpoint.id,
                    "name": item.endpoint.code,
                    "location": item.endpoint.name,
                },
                "noOfEnvironments": environments[item.id],
                "noOfZones": zones[item.id],
                "noOfVMs": machines[item.id],
            }
            for item in owner.departments
        ],
    }


def department_details(owner: Engagement) -> Document:
    """The departments as a tree down to the zones."""
    return {
        "departmentList": [
            {
                "departmentId": item.id,
                "departmentName": item.name,
                "itemName": item.name,
                "endpointName": item.endpoint.code,
                "environmentList": [
                    _branch(below, owner.zones)
                    for below in owner.environments
                    if below.department.id == item.id
                ],
            }
            for item in owner.departments
        ]
    }


def _branch(item: Environment, zones: Iterable[Zone]) -> Document:
    below = [zone for zone in zones if zone.environment.id == item.id]
    return {
        "environmentId": item.id,
        "environmentName": item.name,
        "itemName": item.name,
        "noOfZones": len(below),
        "zoneList": [{"zoneId": zone.id, "zoneName": zone.name} for zone in below],
    }


def environments(owner: Engagement) -> list[Document]:
    """The environments."""
    return [
        {
            "id": item.id,
            "name": item.name,
            "departmentId": item.department.id,
            "department": item.department.name,
            "endpointName": item.department.endpoint.code,
        }
        for item in owner.environments
    ]


def zones(owner: Engagement) -> list[Document]:
    """The zones."""
    return [
        {
            "zoneId": zone.id,
            "zoneName": zone.name,
            "departmentName": zone.environment.department.name,
            "environmentName": zone.environment.name,
            "cidr": zone.cidr,
            "status": "Active",
            "endpointName": zone.environment.department.endpoint.code,
            "hypervisors": [zone.hypervisor],
        }
        for zone in owner.zones
    ]


def machines(owner: Engagement) -> Document:
    """The virtual machines, each in its wrapper."""
    return {
        "lastSyncedAt": "2025-01-02 03:04:05",
        "vmList": [{"virtualMachine": _machine(machine)} for machine in owner.machines],
    }


def _machine(machine: Machine) -> Document:
    department = machine.zone.environment.department
    return {
        "vmName": machine.name,
        "storage": machine.storage,
        "createdTime": machine.created,
        "vmAttributes": {
            "VM Status": machine.status,
            "IP": machine.ip,
            "vCPU": str(machine.cpus),
            "RAM": str(machine.ram),
            "OSMake": machine.system,
            "OSVersion": machine.version,
        },
        "endpoint": {"endpointName": f"{department.endpoint.name}({department.endpoint.code})"},
        "zone": {"zoneName": machine.zone.name},
        "department": {"departmentName": department.name},
    }


def cluster(item: Cluster) -> Document:
    """One cluster, its time as a proper ISO string."""
    return {
        "clusterId": item.id,
        "clusterName": item.name,
        "nodescount": str(item.nodes),
        "kubernetesVersion": item.version,
        "status": item.status,
        "displayNameEndpoint": item.endpoint.name,
        "location": item.endpoint.code,
        "type": "MGMT" if item.management else "APP",
        "isIksBackupEnabled": "true" if item.backup else "false",
        "createdTime": item.created.removesuffix(".0").replace(" ", "T"),
    }
