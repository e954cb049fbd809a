"""What every call must answer, for a checker that compares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coatcheck.simulator import documents

if TYPE_CHECKING:
    from coatcheck.simulator.documents import Document
    from coatcheck.simulator.estate import Engagement
    from coatcheck.simulator.world import Account


def account_truth(account: Account, engagements: tuple[Engagement, ...]) -> Document:
    """Return an account with its password and what it may see, the first engagement first."""
    return {
        "email": account.email,
        "password": account.password,
        "tag": account.tag,
        "engagements": [_engagement_truth(owner) for owner in engagements],
    }


def _engagement_truth(owner: Engagement) -> Document:
    departments = documents.departments(owner)
    return {
        "paas_engagement_id": owner.paas_id,
        "ipc_engagement_id": owner.ipc_id,
        "tag": owner.tag,
        # From here on exactly what stands in the answers.
        "engagement": documents.engagement(owner),
        "conversion": documents.conversion(owner),
        "endpoints": documents.endpoints(owner),
        "departments": departments["department"],
        "environments": documents.environments(owner),
        "zones": documents.zones(owner),
        "vm_names": [machine.name for machine in owner.machines],
        "cluster_names": [cluster.name for cluster in owner.clusters],
    }
