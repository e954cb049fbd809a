"""The cluster list out of its event stream, whose faults are repaired where they can be and reported always."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec

from coatcheck.errors import BadUpstreamBody
from coatcheck.ipc.envelope import Payload, payload
from coatcheck.ipc.models import Cluster, Id
from coatcheck.ipc.stream import Event, EventStream
from coatcheck.upstream.strict_json import strict_json, typed

if TYPE_CHECKING:
    from collections.abc import Collection

# In a string the quotes would be escaped, so this finds only fields.
_BARE_TIME = re.compile(
    rb'("createdTime"\s*:\s*)'
    rb"([0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]*)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)"
    rb"(?=\s*[,}])"
)

Fault = Literal["reported", "unreadable", "unexpected", "missing", "cut"]


@dataclass(frozen=True, slots=True)
class ListingFault:
    """Something that a listing lacks.

    Attributes:
        fault: ``reported`` by the upstream for one data centre; an ``unreadable`` event; an ``unexpected`` one, which
            was passed over; a data centre that was asked for and is ``missing``; the stream was ``cut``.
        endpoint_id: the data centre, if it is known.
        text: what the upstream or the reader says.
    """

    fault: Fault
    endpoint_id: int | None
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class EndpointClusters:
    """What one data centre answered. ``error`` is the upstream's own word; its clusters may be there all the same."""

    endpoint_id: int
    endpoint_name: str | None
    clusters: Payload[tuple[Cluster, ...]]
    error: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClusterListing:
    """What the stream brought.

    Attributes:
        clusters: of all data centres, in the order of their events.
        endpoint_data: by data centre.
        errors: all that is lacking.
        complete: the stream came to its own end, and no event was unreadable. A data centre that reported an error
            or was not heard of does not change this; it is in the errors.
        repaired: events whose ``createdTime`` had to be quoted.
    """

    clusters: Payload[tuple[Cluster, ...]]
    endpoint_data: tuple[EndpointClusters, ...]
    errors: tuple[ListingFault, ...]
    complete: bool
    repaired: int


class _EndpointEvent(msgspec.Struct, frozen=True, rename="camel"):
    endpoint_id: Id
    endpoint_name: str | None = None
    clusters: msgspec.Raw = msgspec.Raw(b"[]")
    error: object = None


class ClusterReader:
    """Reads one stream. What it has heard can be had at any time."""

    def __init__(self, asked: Collection[int]) -> None:
        """Expect the data centres *asked* for."""
        self._asked = asked
        self._stream = EventStream()
        self._heard: dict[int, EndpointClusters] = {}
        self._faults: list[ListingFault] = []
        self._repaired = 0
        self._done = False

    @property
    def heard_anything(self) -> bool:
        """Whether any event came, readable or not."""
        return self._done or bool(self._heard) or bool(self._faults)

    def feed(self, chunk: bytes) -> bool:
        """Read on; return whether the stream has said that it is complete."""
        return self._take(self._stream.feed(chunk))

    def finish(self) -> None:
        """Read what an orderly end of the stream completes. Not to be called when the stream broke."""
        self._take(self._stream.finish())

    def listing(self) -> ClusterListing:
        """Return what was heard; what was not is among the errors."""
        heard = tuple(self._heard.values())
        faults = [
            *self._faults,
            *(
                ListingFault("missing", id_, "no event for this data centre")
                for id_ in self._asked
                if id_ not in self._heard
            ),
        ]
        if not self._done:
            faults.append(ListingFault("cut", None, "the stream ended before it was complete"))
        raw = b",".join(inner for each in heard if (inner := each.clusters.raw.strip()[1:-1].strip()))
        return ClusterListing(
            clusters=Payload(
                b"[" + raw + b"]", tuple(cluster for each in heard for cluster in each.clusters.value)
            ),
            endpoint_data=heard,
            errors=tuple(faults),
            complete=self._done and not any(fault.fault == "unreadable" for fault in self._faults),
            repaired=self._repaired,
        )

    def _take(self, events: list[Event]) -> bool:
        for event in events:
            if self._done:
                break
            if event.name == "complete":
                self._done = True
            elif event.name == "endpoint":
                self._read(event.data)
            else:
                self._faults.append(ListingFault("unexpected", None, "an event of another kind"))
        return self._done

    def _read(self, data: bytes) -> None:
        repaired = _BARE_TIME.sub(rb'\1"\2"', data)
        try:
            strict_json(repaired)
            event = typed(repaired, _EndpointEvent, "the event")
            raw = b"[]" if bytes(event.clusters) == b"null" else event.clusters
            clusters = payload(raw, tuple[Cluster, ...])
        except BadUpstreamBody as error:
            self._faults.append(ListingFault("unreadable", None, str(error)))
            return
        self._repaired += repaired != data
        text = None
        if event.error is not None:
            text = event.error if isinstance(event.error, str) else "an error without a text"
            self._faults.append(ListingFault("reported", event.endpoint_id, text))
        self._heard[event.endpoint_id] = EndpointClusters(
            event.endpoint_id, event.endpoint_name, clusters, text
        )
