"""The cluster list, as a stream and as a list."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import msgspec
import pytest

from .conftest import ONE, TWO, Caller, Got

UNQUOTED = re.compile(rb'"createdTime":(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d)')


def truth(caller: Caller, email: str = TWO) -> dict[str, Any]:
    engagement: dict[str, Any] = caller.simulator.truth(email)["engagements"][0]
    return engagement


def homes(caller: Caller) -> list[int]:
    return [item["endpointId"] for item in truth(caller)["endpoints"]]


async def stream(caller: Caller, endpoints: object, ident: object = None) -> Got:
    token = await caller.login(TWO)
    ident = truth(caller)["paas_engagement_id"] if ident is None else ident
    return await caller.post(f"/paasservice/paas/{ident}/clusterlist/stream", {"endpoints": endpoints}, token)


def events(raw: bytes) -> list[tuple[bytes, bytes]]:
    """Return the name and the data of every event."""
    found = []
    for block in raw.split(b"\n\n")[:-1]:
        fields = dict(line.split(b": ", 1) for line in block.splitlines() if not line.startswith(b":"))
        found.append((fields[b"event"], fields[b"data"]))
    return found


def reports(raw: bytes) -> list[dict[str, Any]]:
    """Return the repaired data of all ``endpoint`` events."""
    return [
        msgspec.json.decode(UNQUOTED.sub(rb'"createdTime":"\1"', data))
        for name, data in events(raw)
        if name == b"endpoint"
    ]


async def test_a_stream_has_one_event_for_each_data_centre_and_then_completes(caller: Caller) -> None:
    """In the order asked for; all clusters of the engagement come together."""
    got = await stream(caller, homes(caller))

    assert got.status == 200
    assert got.headers["Content-Type"] == "text/event-stream"
    assert events(got.raw)[-1] == (b"complete", b"done")
    found = reports(got.raw)
    assert [report["endpointId"] for report in found] == homes(caller)
    assert [report["error"] for report in found] == [None] * 5
    names = [cluster["clusterName"] for report in found for cluster in report["clusters"]]
    assert sorted(names) == truth(caller)["cluster_names"]
    assert b":ping\n" in got.raw


async def test_the_times_in_a_stream_are_not_quoted(caller: Caller) -> None:
    """The data of an event is no JSON before it has been repaired."""
    got = await stream(caller, homes(caller))
    data = events(got.raw)[0][1]

    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(data)
    assert UNQUOTED.search(data)


async def test_an_event_carries_the_id_of_its_data_centre(caller: Caller) -> None:
    """The ``id`` line says the same as the data."""
    home = homes(caller)[1]
    got = await stream(caller, [home])

    assert got.raw.startswith(b"event: endpoint\nid: %d\ndata: {" % home)


async def test_clusters_have_the_peculiar_types_of_the_contract(caller: Caller) -> None:
    """Counts and flags are text, a draft has no version."""
    found = reports((await stream(caller, homes(caller))).raw)
    clusters = [cluster for report in found for cluster in report["clusters"]]

    assert all(isinstance(cluster["nodescount"], str) for cluster in clusters)
    assert {cluster["isIksBackupEnabled"] for cluster in clusters} <= {"true", "false"}
    assert {cluster["type"] for cluster in clusters} == {"MGMT", "APP"}
    assert {cluster["kubernetesVersion"] is None for cluster in clusters if cluster["status"] == "Draft"} <= {
        True
    }


async def test_a_foreign_data_centre_is_an_error_within_the_stream(caller: Caller) -> None:
    """The others are still reported, and nothing of the owner is shown."""
    foreign = truth(caller, ONE)["endpoints"][0]["endpointId"]
    found = reports((await stream(caller, [foreign, homes(caller)[0]])).raw)

    assert found[0] == {
        "endpointId": foreign,
        "endpointName": None,
        "clusters": [],
        "error": "Endpoint not accessible",
    }
    assert found[1]["clusters"]


async def test_no_data_centres_is_a_stream_that_only_completes(caller: Caller) -> None:
    """An empty list means none, not all."""
    got = await stream(caller, [])

    assert events(got.raw) == [(b"complete", b"done")]


@pytest.mark.parametrize("path", ["clusterlist", "clusterlist/stream"])
async def test_a_placeholder_left_in_the_path_is_unauthorized(caller: Caller, path: str) -> None:
    """401 with a good token, encoded or not."""
    token = await caller.login(TWO)

    for ident in ("{engagement_id}", "%7Bengagement_id%7D"):
        assert (
            await caller.post(f"/uat-paasservice/paas/{ident}/{path}", {"endpoints": []}, token)
        ).status == 401


async def test_a_stream_is_refused_before_it_begins(caller: Caller) -> None:
    """Bad ids and bodies get an envelope and a status, not a stream."""
    assert (await stream(caller, [], "x")).status == 400
    assert (await stream(caller, [], truth(caller)["ipc_engagement_id"])).status == 404
    assert (await stream(caller, [], truth(caller, ONE)["paas_engagement_id"])).status == 403
    assert (await stream(caller, ["1"])).json["responseCode"] == 400
    assert (await stream(caller, None)).status == 400


async def test_the_plain_list_has_proper_times(caller: Caller) -> None:
    """The predecessor answers with the common envelope and ISO times."""
    token = await caller.login(TWO)
    paas = truth(caller)["paas_engagement_id"]
    data = (
        await caller.post(f"/paasservice/paas/{paas}/clusterlist", {"endpoints": homes(caller)}, token)
    ).data

    assert [cluster["clusterName"] for cluster in data] == truth(caller)["cluster_names"]
    assert all(cluster["createdTime"][10] == "T" for cluster in data)


async def test_a_cut_stream_ends_in_order_without_its_complete_event(caller: Caller) -> None:
    """Nothing but the missing event tells that it was cut."""
    caller.simulator.set_faults([{"kind": "cut_stream", "after": 2}])
    assert [name for name, _ in events((await stream(caller, homes(caller))).raw)] == [b"endpoint"] * 2

    caller.simulator.set_faults([{"kind": "cut_stream"}])
    assert [name for name, _ in events((await stream(caller, homes(caller))).raw)] == [b"endpoint"] * 5


async def test_an_error_of_one_data_centre_leaves_the_others(caller: Caller) -> None:
    """The stream goes on and completes."""
    caller.simulator.set_faults([{"kind": "stream_error", "endpoint": homes(caller)[3], "error": "down"}])
    got = await stream(caller, homes(caller))

    assert [report["error"] for report in reports(got.raw)] == [None, None, None, "down", None]
    assert events(got.raw)[-1] == (b"complete", b"done")


async def test_a_bad_event_cannot_be_read(caller: Caller) -> None:
    """Not even after the times have been repaired; the first one unless an id says which."""
    caller.simulator.set_faults([{"kind": "bad_event"}])
    got = await stream(caller, homes(caller))

    with pytest.raises(msgspec.DecodeError):
        reports(got.raw)
    assert events(got.raw)[-1] == (b"complete", b"done")


async def test_a_stream_whose_connection_breaks_is_no_whole_body(caller: Caller) -> None:
    """The client is told by its own library."""
    caller.simulator.set_faults([{"kind": "cut", "path": "clusters"}])

    with pytest.raises(aiohttp.ClientPayloadError):
        await stream(caller, homes(caller))
