"""How the live lists are told to existing callers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from coatcheck.ipc.clusters import ClusterListing
    from coatcheck.ipc.models import Endpoint

# Where a machine's description has the name that a filter looks into.
_FILTERED = {
    "endpoint": ("endpoint", "endpointName"),
    "zone": ("zone", "zoneName"),
    "department": ("department", "departmentName"),
}


def endpoint_rows(found: Iterable[Endpoint]) -> list[dict[str, Any]]:
    """Return data centres by the names that callers know."""
    return [
        {
            "id": each.endpoint_id,
            "name": each.endpoint_display_name,
            "type": each.endpoint_type,
            "region": each.region,
            "status": each.status,
        }
        for each in found
    ]


def cluster_answer(listing: ClusterListing) -> dict[str, Any]:
    """Return what a cluster listing brought. One that is not complete is no success, though it may have data."""
    answer: dict[str, Any] = {
        "success": listing.complete,
        "data": msgspec.json.decode(listing.clusters.raw),
        "endpoint_data": {
            each.endpoint_id: {
                "endpoint_name": each.endpoint_name,
                "clusters": msgspec.json.decode(each.clusters.raw),
                "error": each.error,
            }
            for each in listing.endpoint_data
        },
        "errors": [
            {"fault": fault.fault, "endpoint_id": fault.endpoint_id, "message": fault.text}
            for fault in listing.errors
        ],
    }
    if not listing.complete:
        answer["error"] = "the cluster list is not complete"
    return answer


def no_clusters(problem: str) -> dict[str, Any]:
    """Return what a listing says that brought nothing at all."""
    fault = {"fault": "failed", "endpoint_id": None, "message": problem}
    return {"data": [], "endpoint_data": {}, "errors": [fault]}


def vm_answer(body: bytes, filters: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the machines of a list that match all *filters*: parts of names, whatever their case."""
    listed = msgspec.json.decode(body)
    machines = listed["vmList"]
    found = [each for each in machines if _matches(each["virtualMachine"], filters)]
    return {
        "success": True,
        "data": found,
        "total": len(found),
        "total_unfiltered": len(machines),
        "last_synced": listed.get("lastSyncedAt"),
        "filters_applied": {name: wanted for name, wanted in filters.items() if wanted is not None},
        "message": f"{len(found)} of {len(machines)} virtual machines",
    }


def _matches(machine: Mapping[str, Any], filters: Mapping[str, str | None]) -> bool:
    for name, wanted in filters.items():
        if wanted is not None:
            outer, inner = _FILTERED[name]
            place = (machine.get(outer) or {}).get(inner) or ""
            if wanted.casefold() not in place.casefold():
                return False
    return True
