"""Every call of the contract: its name, its path, and what answers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coatcheck.simulator import documents, products
from coatcheck.simulator.answer import Answer, RefusedCall, envelope
from coatcheck.simulator.ask import Ask, own_endpoints
from coatcheck.simulator.calls import Shape
from coatcheck.simulator.ids import IdSpace
from coatcheck.simulator.stream import cluster_stream

if TYPE_CHECKING:
    from coatcheck.simulator.estate import Engagement, Zone

Answerer = Callable[[Ask], Answer]

# aiohttp's own pattern for a part of a path takes no braces; a placeholder that was never filled has them.
_ID = "{id:[^/]+}"


@dataclass(frozen=True, slots=True)
class Route:
    """A call of the contract.

    Attributes:
        name: under which it is counted and met by faults; paths that mean the same call share it.
        method: GET or POST.
        path: with ``{id}`` where an id stands.
        answer: makes the answer for a user. The log-in is answered before there is a user.
        shape: what kind of answer that is.
    """

    name: str
    method: str
    path: str
    answer: Answerer
    shape: Shape = Shape.ENVELOPE


def engagements(ask: Ask) -> Answer:
    """Answer with what the user may see."""
    return ask.success([documents.engagement(owner) for owner in ask.engagements])


def conversion(ask: Ask) -> Answer:
    """Answer with the IPC id of a PaaS id."""
    return ask.success(documents.conversion(ask.by_paas()))


def endpoints(ask: Ask) -> Answer:
    """Answer with the data centres; by which id is a setting."""
    return ask.success(documents.endpoints(_by_configured_id(ask)), message=None)


def departments(ask: Ask) -> Answer:
    """Answer with the departments."""
    return ask.success(documents.departments(ask.by_ipc()))


def department_details(ask: Ask) -> Answer:
    """Answer with the tree of departments, environments and zones."""
    return ask.success(documents.department_details(ask.by_ipc()))


def environments(ask: Ask) -> Answer:
    """Answer with the environments as a flat list."""
    return ask.success(documents.environments(ask.by_ipc()))


def environment_list(ask: Ask) -> Answer:
    """Answer with the environments within an object."""
    return ask.success({"environments": documents.environments(ask.by_ipc())})


def zones(ask: Ask) -> Answer:
    """Answer with the zones."""
    return ask.success(documents.zones(ask.by_ipc()))


def vmlist(ask: Ask) -> Answer:
    """Answer with the virtual machines."""
    return ask.success(documents.machines(ask.by_ipc()))


def clusters(ask: Ask) -> Answer:
    """Answer with a stream of clusters, one event for each data centre."""
    owner = _by_filled_paas(ask)
    return cluster_stream(ask, owner, ask.field_ids(ask.fields(), "endpoints"))


def cluster_list(ask: Ask) -> Answer:
    """Answer with the clusters of some data centres in one list."""
    owner = _by_filled_paas(ask)
    wanted = ask.field_ids(ask.fields(), "endpoints")
    return ask.success([documents.cluster(item) for item in owner.clusters if item.endpoint.id in wanted])


def managed(ask: Ask) -> Answer:
    """Answer with the managed services of one type in some data centres."""
    kind = ask.params["id"]
    if kind not in products.SERVICE_TYPES:
        raise RefusedCall(400, "Unknown service type")
    fields = ask.fields()
    owner = ask.owner(IdSpace.IPC, ask.field_id(fields, "engagementId"))
    homes = own_endpoints(owner, ask.field_ids(fields, "endpoints"))
    services = [service for home in homes for service in products.managed_services(owner, kind, home)]
    return ask.success({"data": services, "status": "success"})


def firewall(ask: Ask) -> Answer:
    """Answer with the firewalls of one data centre."""
    fields = ask.fields()
    owner = ask.owner(IdSpace.IPC, ask.field_id(fields, "engagementId"))
    homes = own_endpoints(owner, [ask.field_id(fields, "endpointId")])
    if not homes:
        raise RefusedCall(404, "Endpoint not found")
    return ask.success(products.firewalls(owner, homes[0]))


def load_balancers(ask: Ask) -> Answer:
    """Answer with the load balancers, or with the failure that means "none"."""
    found = products.load_balancers(ask.by_ipc())
    if found:
        return ask.success(found)
    status = 404 if ask.settings.none_is_404 else 200
    return Answer(status=status, chunks=(envelope("failed", [], "No records", 404),))


def cluster_name(ask: Ask) -> Answer:
    """Answer whether a cluster of the user already has a name."""
    wanted = ask.query.get("clusterName", "")
    taken = (cluster for owner in ask.engagements for cluster in owner.clusters if cluster.name == wanted)
    data = next(({"clusterName": cluster.name, "clusterId": cluster.id} for cluster in taken), {})
    return ask.success(data, message="OK", code=200)


def templates(ask: Ask) -> Answer:
    """Answer with the images for clusters."""
    return ask.success(products.cluster_templates(ask.by_ipc()))


def network_plugins(ask: Ask) -> Answer:
    """Answer with the network plug-ins of a data centre: product names, the only list that bears no tag."""
    ident = ask.number()
    if not own_endpoints(ask.owner(IdSpace.ENDPOINT, ident), [ident]):
        raise RefusedCall(404, "Endpoint not found")
    return ask.success({"data": ["calico-v3.25.1", "cilium-v1.15.6"]})


def zone_templates(ask: Ask) -> Answer:
    """Answer with the images for machines of a zone."""
    return ask.success(products.zone_templates(*_zone(ask)))


def zone_flavors(ask: Ask) -> Answer:
    """Answer with the sizes for machines of a zone."""
    return ask.success(products.zone_flavors(*_zone(ask)))


def nothing(_: Ask) -> Answer:
    """Refuse what nobody answers."""
    raise RefusedCall(404, "No such path")


def _by_configured_id(ask: Ask) -> Engagement:
    take, ident = ask.settings.endpoints_take, ask.number()
    if take == "either":
        space = IdSpace.PAAS if ask.world.owner(IdSpace.PAAS, ident) is not None else IdSpace.IPC
        return ask.owner(space, ident)
    return ask.owner(IdSpace.PAAS if take == "paas" else IdSpace.IPC, ident)


def _by_filled_paas(ask: Ask) -> Engagement:
    # Seen in a live run: a placeholder left in this path is refused like a bad token, not like a bad id.
    if ask.params["id"].startswith("{"):
        raise RefusedCall(401, "Unauthorized")
    return ask.by_paas()


def _zone(ask: Ask) -> tuple[Engagement, Zone]:
    ident = ask.number()
    owner = ask.owner(IdSpace.ZONE, ident)
    for zone in owner.zones:
        if zone.id == ident:
            return owner, zone
    raise RefusedCall(404, "Zone not found")


ROUTES: tuple[Route, ...] = (
    Route("auth", "POST", "/portalservice/api/v1/getAuthToken", nothing, Shape.LOGIN),
    Route("engagements", "GET", "/paasservice/paas/engagements", engagements),
    Route("user_engagements", "GET", "/portalservice/configservice/getuserengagements", engagements),
    Route("conversion", "GET", f"/paasservice/paas/getIpcEngFromPaasEng/{_ID}", conversion),
    Route("endpoints", "GET", f"/portalservice/configservice/getEndpointsByEngagement/{_ID}", endpoints),
    Route("departments", "GET", f"/portalservice/securityservice/departments/{_ID}", departments),
    Route(
        "department_details",
        "GET",
        f"/portalservice/securityservice/deptDetailsForEngagement/{_ID}",
        department_details,
    ),
    Route(
        "environments", "GET", f"/portalservice/securityservice/environmentsperengagement/{_ID}", environments
    ),
    Route(
        "environment_list",
        "GET",
        f"/portalservice/environment/getEnvironmentListPerEngagement/{_ID}",
        environment_list,
    ),
    Route("zones", "GET", f"/portalservice/api/v1/{_ID}/zonelist", zones),
    Route("zone_list", "GET", f"/portalservice/zone/getZoneList/{_ID}", zones),
    Route("vmlist", "GET", f"/portalservice/instances/vmlist/{_ID}", vmlist),
    Route("clusters", "POST", f"/paasservice/paas/{_ID}/clusterlist/stream", clusters, Shape.STREAM),
    Route("cluster_list", "POST", f"/paasservice/paas/{_ID}/clusterlist", cluster_list),
    Route("managed", "POST", f"/paasservice/api/v1/paas/listManagedServices/{_ID}", managed),
    Route("firewall", "POST", "/networkservice/firewallconfig/details", firewall),
    Route("load_balancers", "GET", f"/networkservice/loadbalancer/list/loadbalancers/{_ID}", load_balancers),
    Route("cluster_name", "GET", "/portalservice/api/v1/check/clusterName", cluster_name),
    Route("templates", "GET", f"/paasservice/paas/getTemplatesByEngagement/{_ID}", templates),
    Route("network_plugins", "GET", f"/paasservice/paas/cluster/getIksMsWithEndpoint/{_ID}", network_plugins),
    Route("zone_templates", "GET", f"/portalservice/configservice/templates/{_ID}", zone_templates),
    Route("zone_flavors", "GET", f"/portalservice/configservice/flavordetails/{_ID}", zone_flavors),
)

UNKNOWN = Route("unknown", "*", "/{rest:.*}", nothing)
"""Where calls end that are not of the contract."""

NAMES: tuple[str, ...] = (*(route.name for route in ROUTES), UNKNOWN.name)


def paths(route: Route) -> tuple[str, ...]:
    """Return the paths of a route; portal and PaaS services answer under their ``uat-`` prefix, too."""
    if route.path.startswith(("/portalservice/", "/paasservice/")):
        return route.path, f"/uat-{route.path.removeprefix('/')}"
    return (route.path,)
