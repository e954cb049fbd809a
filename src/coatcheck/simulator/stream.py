"""The cluster list as server-sent events, with the malformed times that the upstream really sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from coatcheck.simulator import documents
from coatcheck.simulator.answer import Answer
from coatcheck.simulator.lapses import BadEvent, CutStream, StreamError

if TYPE_CHECKING:
    from coatcheck.simulator.ask import Ask
    from coatcheck.simulator.estate import Cluster, Endpoint, Engagement

_PING = b":ping\n"
_COMPLETE = b"event: complete\ndata: done\n\n"


def cluster_stream(ask: Ask, owner: Engagement, wanted: list[int]) -> Answer:
    """Return one event for each wanted data centre, then ``complete``.

    A data centre that the engagement does not have gets an event with an error, as one that failed does.
    """
    events = [_event(ask, owner, ident, first=n == 0) for n, ident in enumerate(wanted)]
    cut = ask.rule(CutStream)
    if cut is None:
        events.append(_COMPLETE)
    else:
        events = events[: cut.after]
    chunks = (event if n == 0 else _PING + event for n, event in enumerate(events))
    return Answer(
        content_type="text/event-stream",
        headers=(("Cache-Control", "no-cache"),),
        chunks=tuple(chunks),
        paced=True,
    )


def _event(ask: Ask, owner: Engagement, ident: int, *, first: bool) -> bytes:
    data = _data(ask, owner, ident, first=first)
    bad = ask.rule(BadEvent)
    if bad is not None and _hit(bad.endpoint, ident, first=first):
        data = data[: len(data) // 2]
    return b"event: endpoint\nid: %d\ndata: %b\n\n" % (ident, data)


def _data(ask: Ask, owner: Engagement, ident: int, *, first: bool) -> bytes:
    endpoint = next((endpoint for endpoint in owner.endpoints if endpoint.id == ident), None)
    if endpoint is None:
        return _report(ident, None, [], "Endpoint not accessible")
    broken = ask.rule(StreamError)
    if broken is not None and _hit(broken.endpoint, ident, first=first):
        return _report(ident, endpoint, [], broken.error)
    return _report(ident, endpoint, [item for item in owner.clusters if item.endpoint.id == ident], None)


def _hit(chosen: int | None, ident: int, *, first: bool) -> bool:
    return first if chosen is None else chosen == ident


def _report(ident: int, endpoint: Endpoint | None, clusters: list[Cluster], error: str | None) -> bytes:
    return msgspec.json.encode(
        {
            "endpointId": ident,
            "endpointName": None if endpoint is None else endpoint.code,
            # The times stand unquoted, so that this is no JSON before it has been repaired.
            "clusters": [
                {**documents.cluster(item), "createdTime": msgspec.Raw(item.created.encode())}
                for item in clusters
            ],
            "error": error,
        }
    )
