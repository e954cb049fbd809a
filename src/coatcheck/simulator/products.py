"""The shapes of what is built on an estate: managed services, firewalls, load balancers, templates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coatcheck.simulator.ids import IdSpace

if TYPE_CHECKING:
    from coatcheck.simulator.documents import Document
    from coatcheck.simulator.estate import Endpoint, Engagement, Zone

SERVICE_TYPES = (
    "IKSKafka",
    "IKSGitlab",
    "IKSContainerRegistry",
    "IKSJenkins",
    "IKSPostgres",
    "IKSDocumentDB",
)
_KUBERNETES = ("v1.29.9", "v1.30.14", "v1.31.4")


def managed_services(owner: Engagement, kind: str, endpoint: Endpoint) -> list[Document]:
    """The services of one type in one data centre; none to two."""
    dice = owner.dice(f"managed/{kind}/{endpoint.id}")
    homes = [cluster for cluster in owner.clusters if cluster.endpoint.id == endpoint.id]
    return [
        {
            "name": f"{kind.removeprefix('IKS').lower()}-{n} {owner.tag}",
            "serviceType": kind,
            "status": dice.choice(("Active", "Active", "Pending", "Running")),
            "version": f"3.{dice.randint(4, 9)}.0",
            "locationName": endpoint.name,
            "clusterName": dice.choice(homes).name,
            "replicas": dice.randint(1, 5),
            "instanceNamespace": f"ms-{n}.{owner.tag}",
            "ingressUrl": f"https://{kind.lower()}-{n}.{owner.tag}.example",
            "engagementName": owner.name,
            "departmentName": dice.choice(owner.departments).name,
        }
        for n in range(dice.randint(0, 2))
    ]


def firewalls(owner: Engagement, endpoint: Endpoint) -> list[Document]:
    """The firewalls of one data centre; one or two."""
    dice = owner.dice(f"firewalls/{endpoint.id}")
    return [
        {
            "id": f"fw-{endpoint.id}-{n}",
            "displayName": f"Firewall {n} {owner.tag}",
            "technicalName": f"FW_{n}.{owner.tag}",
            "ip": f"10.{owner.number % 256}.{200 + n}.1",
            "component": "Firewall",
            "componentType": "vFirewall",
            "hypervisor": "VCD_ESXI",
            "department": [{"name": dice.choice(owner.departments).name}],
            "basicDetails": {
                "throughput": f"{dice.choice((1, 2, 5))} Gbps",
                "iksEnabled": "yes",
                "projectName": f"project {owner.tag}",
            },
            "config": {"vdomName": f"vdom-{n}.{owner.tag}", "category": "Shared"},
            "selfProvisioned": "yes",
            "migrationStatus": "none",
            "endId": endpoint.id,
        }
        for n in range(dice.randint(1, 2))
    ]


def load_balancers(owner: Engagement) -> list[Document]:
    """The load balancers; one engagement in three has none."""
    if owner.number % 3 == 0:
        return []
    return [
        {"id": f"lb-{owner.ipc_id}-{n}", "name": f"lb-{n} {owner.tag}", "status": "Active"}
        for n in range(owner.dice("load balancers").randint(1, 3))
    ]


def cluster_templates(owner: Engagement) -> Document:
    """The images of each data centre, by kind; the version stands within ``ImageName``."""
    images = [
        {
            "ImageName": f"vks-ubuntu-22.04-{_KUBERNETES[n % len(_KUBERNETES)]} {owner.tag}",
            "endpoint": endpoint.code,
            "endpointId": endpoint.id,
            "endpointName": endpoint.name,
            "id": owner.id(IdSpace.TEMPLATE, n),
        }
        for n, endpoint in enumerate(owner.endpoints)
    ]
    return {"vks-enabledImages": images[:3], "all-images": images}


def zone_templates(owner: Engagement, zone: Zone) -> Document:
    """The images that can be had in one zone."""
    options = [
        {
            "id": owner.id(IdSpace.TEMPLATE, 8 + n),
            "label": f"{zone.name} Ubuntu {version}",
            "osMake": "Ubuntu",
            "osModel": "Linux",
            "osVersion": version,
            "hypervisor": zone.hypervisor,
        }
        for n, version in enumerate(("22.04 LTS", "24.04 LTS"))
    ]
    return {"image": {"options": options}}


def zone_flavors(owner: Engagement, zone: Zone) -> Document:
    """The machine sizes that can be had in one zone."""
    flavors = [
        {
            "artifactId": owner.id(IdSpace.TEMPLATE, 12 + n),
            "FlavorName": f"C{cpus} {zone.name}",
            "skuCode": f"SKU-{cpus}.{owner.tag}",
            "vCpu": cpus,
            "vRam": cpus * 4096,
            "vDisk": 50,
            "osModel": "Linux",
            "applicationType": "Container",
            "flavorCategory": "General",
            "label": f"{cpus} vCPU {zone.name}",
        }
        for n, cpus in enumerate((2, 4, 8))
    ]
    return {"flavor": flavors}
