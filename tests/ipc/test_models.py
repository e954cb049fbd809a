from __future__ import annotations

from typing import Any

import msgspec
import pytest

from coatcheck.ipc import models
from coatcheck.ipc.models import (
    BusinessUnits,
    Cluster,
    Endpoint,
    Engagement,
    Environment,
    IpcEngagement,
    ManagedService,
    VmList,
    Zone,
)

MODELS = [
    each for each in vars(models).values() if isinstance(each, type) and issubclass(each, models._Model)
]

# The examples of the upstream's contract.
EXAMPLES: list[tuple[type[Any], str]] = [
    (
        Engagement,
        '{"id":4101,"engagementName":"Acme Retail-PaaS","engagementType":"PaaS","customerName":"Acme Retail Ltd"}',
    ),
    (IpcEngagement, '{"ipc_eng":"Acme Retail","ipc_engid":73055}'),
    (
        Endpoint,
        '{"endpointId":21,"endpointDisplayName":"Pune-East","endpoint":"EP_V2_PUN","aiCloudEnabled":"no"}',
    ),
    (
        BusinessUnits,
        (
            '{"engagement":{"id":73055,"name":"Acme Retail"},"department":[{"id":901,"name":"BU-PUNE","endpoint":'
            '{"id":21,"name":"EP_V2_PUN","location":"Pune-East"},"noOfEnvironments":2,"noOfZones":3,"noOfVMs":17}]}'
        ),
    ),
    (
        Environment,
        '{"id":5501,"name":"Production","departmentId":901,"department":"BU-PUNE","endpointName":"EP_V2_PUN"}',
    ),
    (
        Zone,
        (
            '{"zoneId":16001,"zoneName":"zone-prod-a","departmentName":"BU-PUNE","environmentName":"Production",'
            '"cidr":"10.20.0.0/24","status":"Active","endpointName":"EP_V2_PUN"}'
        ),
    ),
    (
        VmList,
        (
            '{"lastSyncedAt":"2025-01-02 03:04:05","vmList":[{"virtualMachine":{"vmName":"web-01","storage":100,'
            '"createdTime":"2024-12-01 08:00:00","vmAttributes":{"VM Status":"ACTIVE","IP":"10.20.0.5","vCPU":"4",'
            '"RAM":"8192","OSMake":"Ubuntu","OSVersion":"22.04 LTS"},"endpoint":{"endpointName":"Pune-East(EP_V2_PUN)"},'
            '"zone":{"zoneName":"zone-prod-a"},"department":{"departmentName":"BU-PUNE"}}}]}'
        ),
    ),
    (
        Cluster,
        (
            '{"clusterId":88,"clusterName":"demo","nodescount":"3","kubernetesVersion":"v1.30.14","status":"Healthy",'
            '"displayNameEndpoint":"Pune-East","location":"EP_V2_PUN","type":"APP","isIksBackupEnabled":"false",'
            '"createdTime":"2025-01-02 03:04:05.0"}'
        ),
    ),
    (
        ManagedService,
        (
            '{"name":"kfk-1","serviceType":"IKSKafka","status":"Active","version":"3.6.0","locationName":"Pune-East",'
            '"clusterName":"demo","replicas":3,"instanceNamespace":"ms-kfk-1"}'
        ),
    ),
]


@pytest.mark.parametrize(("model", "example"), EXAMPLES, ids=[model.__name__ for model, _ in EXAMPLES])
def test_every_field_of_the_contract_is_read_under_its_name(model: type[Any], example: str) -> None:
    """Written again, nothing of the example is lost: all its names are declared."""
    value = msgspec.json.decode(example, type=model)
    assert msgspec.json.decode(msgspec.json.encode(value)) == msgspec.json.decode(example)
    hash(value)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_models_are_frozen_and_keyword_only(model: type[msgspec.Struct]) -> None:
    assert model.__struct_config__.frozen
    with pytest.raises(TypeError, match="positional"):
        model(1)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_only_what_must_be_is_required(model: type[msgspec.Struct]) -> None:
    """All other fields may be absent or null, and fields that nobody knows may be there."""
    needed: dict[str, object] = {
        "id": 1, "name": "n", "ipc_engid": 1, "endpointId": 1, "endpointDisplayName": "e", "department": [],
        "zoneId": 1, "zoneName": "z", "vmName": "v", "virtualMachine": {"vmName": "v"}, "vmList": [],
        "clusterId": 1, "clusterName": "c",
    }  # fmt: skip
    required = {
        each.encode_name: needed[each.encode_name] for each in msgspec.structs.fields(model) if each.required
    }
    optional = {each.encode_name: None for each in msgspec.structs.fields(model) if not each.required}
    msgspec.json.decode(msgspec.json.encode(required), type=model)
    msgspec.json.decode(msgspec.json.encode({**required, **optional, "nobody knows": [{}]}), type=model)


def test_an_endpoint_without_details_has_the_usual_ones() -> None:
    endpoint = msgspec.json.decode(b'{"endpointId":21,"endpointDisplayName":"Pune"}', type=Endpoint)
    assert (endpoint.endpoint_type, endpoint.region, endpoint.status) == ("", "", "active")


@pytest.mark.parametrize("name", ["departmentId", "department_id"])
def test_an_environment_tells_its_department_either_way(name: str) -> None:
    body = msgspec.json.encode({"id": 1, "name": "n", name: 901})
    assert msgspec.json.decode(body, type=Environment).of_department == 901


def test_a_managed_service_goes_by_either_name() -> None:
    first = ManagedService(
        name="n", location_name="l", instance_namespace="i", ingress_url="u",
        service_name="-", endpoint_name="-", namespace="-", url="-",
    )  # fmt: skip
    second = ManagedService(service_name="n", endpoint_name="l", namespace="i", url="u")
    for each in (first, second):
        assert (each.title, each.place, each.kubernetes_namespace, each.address) == ("n", "l", "i", "u")


def test_machines_come_without_their_wrapping() -> None:
    body = b'{"vmList":[{"virtualMachine":{"vmName":"a"}},{"virtualMachine":{"vmName":"b"}}]}'
    assert [each.vm_name for each in msgspec.json.decode(body, type=VmList).machines] == ["a", "b"]


@pytest.mark.parametrize("id_", ['"1"', "-1", "1.5", "true", "null", str(2**63)])
def test_an_id_is_a_number_that_can_be_kept(id_: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(f'{{"id":{id_}}}', type=Engagement)
