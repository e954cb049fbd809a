from __future__ import annotations

import json

import pytest

from coatcheck.ipc.clusters import ClusterListing, ClusterReader

CLUSTER = '{"clusterId":88,"clusterName":"demo","nodescount":"3","createdTime":%s,"new":[1]}'


def event(endpoint: int, *clusters: str, error: object = None, **more: object) -> bytes:
    said = f'"endpointId":{endpoint},"endpointName":"E{endpoint}","clusters":[{",".join(clusters)}]'
    return f'event: endpoint\nid: {endpoint}\ndata: {{{said},"error":{json.dumps(error)}}}\n\n'.encode()


COMPLETE = b"event: complete\ndata: done\n\n"


def read(*pieces: bytes, asked: tuple[int, ...] = (21,), orderly: bool = True) -> ClusterListing:
    reader = ClusterReader(asked)
    for piece in pieces:
        reader.feed(piece)
    if orderly:
        reader.finish()
    return reader.listing()


def faults(listing: ClusterListing) -> list[tuple[str, int | None]]:
    return [(each.fault, each.endpoint_id) for each in listing.errors]


def test_all_data_centres_answer() -> None:
    """Clusters of all, and of each, typed and as they came."""
    one, two = CLUSTER % '"2025"', '{"clusterId":2,"clusterName":"b"}'
    listing = read(event(21, one), event(22), event(23, two), COMPLETE, asked=(21, 22, 23))
    assert (listing.complete, listing.errors, listing.repaired) == (True, (), 0)
    assert [each.cluster_id for each in listing.clusters.value] == [88, 2]
    assert listing.clusters.raw == f"[{one},{two}]".encode()
    assert [
        (each.endpoint_id, each.endpoint_name, len(each.clusters.value)) for each in listing.endpoint_data
    ] == [
        (21, "E21", 1),
        (22, "E22", 0),
        (23, "E23", 1),
    ]


@pytest.mark.parametrize(
    "time",
    [
        "2025-01-02 03:04:05",
        "2025-01-02 03:04:05.",
        "2025-01-02 03:04:05.0",
        "2025-01-02 03:04:05.123",
        "2025-01-02 03:04:05.123456789",
        "2025-01-02T03:04:05.1Z",
        "2025-01-02T03:04:05+05:30",
        "2025-01-02 03:04",
    ],
)
@pytest.mark.parametrize("around", ["%s", " %s "])
def test_an_unquoted_time_is_repaired_and_counted(time: str, around: str) -> None:
    listing = read(event(21, CLUSTER % (around % time)), COMPLETE)
    assert (listing.complete, listing.repaired, listing.errors) == (True, 1, ())
    assert listing.clusters.value[0].created_time == time
    assert json.loads(listing.clusters.raw)[0]["createdTime"] == time


@pytest.mark.parametrize("time", ['"2025-01-02 03:04:05.0"', "null"])
def test_a_good_time_is_left_alone(time: str) -> None:
    listing = read(event(21, CLUSTER % time), COMPLETE)
    assert (listing.complete, listing.repaired) == (True, 0)


def test_the_repair_looks_at_fields_only() -> None:
    """A name that looks like the fault stays as it is."""
    name = '"createdTime":2025-01-02 03:04:05.0,'
    cluster = json.dumps({"clusterId": 1, "clusterName": name})
    listing = read(event(21, cluster), COMPLETE)
    assert listing.clusters.value[0].cluster_name == name
    assert listing.repaired == 0


def test_an_error_of_one_data_centre_does_not_end_the_stream() -> None:
    listing = read(event(21, error="timed out"), event(22, CLUSTER % "null"), COMPLETE, asked=(21, 22))
    assert listing.complete
    assert faults(listing) == [("reported", 21)]
    assert listing.errors[0].text == "timed out"
    assert [each.error for each in listing.endpoint_data] == ["timed out", None]
    assert len(listing.clusters.value) == 1


@pytest.mark.parametrize("error", [{"code": 5}, 7, False, ""])
def test_an_error_of_another_kind_is_one_too(error: object) -> None:
    assert faults(read(event(21, error=error), COMPLETE)) == [("reported", 21)]


def test_no_clusters_may_be_null() -> None:
    listing = read(b'event: endpoint\ndata: {"endpointId":21,"clusters":null,"error":"x"}\n\n', COMPLETE)
    assert listing.clusters.raw == b"[]"
    assert faults(listing) == [("reported", 21)]


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense",
        b"{",
        b'{"endpointName":"E"}',
        b'{"endpointId":22,"clusters":[{"clusterId":"x","clusterName":"c"}]}',
        b'{"endpointId":22,"clusters":{}}',
        b'{"endpointId":22,"clusters":[],"clusters":[]}',
        b'{"endpointId":22,"clusters":[],"createdTime":2025}{',
        b'{"endpointId":22,"clusters":[],"x":"\xff"}',
    ],
)
def test_an_unreadable_event_is_reported(data: bytes) -> None:
    """It is no success, and the others count all the same."""
    listing = read(b"event: endpoint\ndata: " + data + b"\n\n", event(21, CLUSTER % "null"), COMPLETE)
    assert not listing.complete
    assert faults(listing) == [("unreadable", None)]
    assert len(listing.clusters.value) == 1


@pytest.mark.parametrize("orderly", [True, False])
def test_a_stream_that_ends_before_its_end_is_not_complete(orderly: bool) -> None:
    listing = read(event(21, CLUSTER % "null"), b"event: endpo", asked=(21, 22), orderly=orderly)
    assert not listing.complete
    assert faults(listing) == [("missing", 22), ("cut", None)]
    assert len(listing.clusters.value) == 1


def test_half_an_event_is_unreadable_in_an_orderly_end_and_nothing_in_a_broken_one() -> None:
    half = event(22, CLUSTER % "null")[:-30]
    assert faults(read(event(21), half, asked=())) == [("unreadable", None), ("cut", None)]
    assert faults(read(event(21), half, asked=(), orderly=False)) == [("cut", None)]


def test_the_last_blank_line_may_be_left_out() -> None:
    assert read(event(21), COMPLETE.rstrip()).complete


def test_a_data_centre_that_was_not_heard_of_is_missing() -> None:
    """Silence is not an error of the stream, but it is told."""
    listing = read(event(21), COMPLETE, asked=(21, 22))
    assert listing.complete
    assert faults(listing) == [("missing", 22)]


def test_an_event_of_another_kind_is_told() -> None:
    listing = read(event(21), b"event: warning\ndata: x\n\n", COMPLETE)
    assert listing.complete
    assert faults(listing) == [("unexpected", None)]


def test_what_comes_after_the_end_is_not_read() -> None:
    reader = ClusterReader([21])
    assert not reader.feed(event(21))
    assert reader.feed(COMPLETE + event(22))
    assert [each.endpoint_id for each in reader.listing().endpoint_data] == [21]


def test_comments_and_crlf_are_read_through() -> None:
    said = b":ping\n" + event(21, CLUSTER % "2025-01-02 03:04:05.0") + b":ping\n" + COMPLETE
    listing = read(said.replace(b"\n", b"\r\n"))
    assert (listing.complete, listing.repaired, len(listing.clusters.value)) == (True, 1, 1)


def test_a_data_centre_heard_twice_counts_once() -> None:
    listing = read(event(21), event(21, CLUSTER % "null"), COMPLETE)
    assert len(listing.endpoint_data) == len(listing.clusters.value) == 1
