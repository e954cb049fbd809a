"""I13 for what comes from upstream: whatever the bytes, there is a value of the declared type or an error of ours."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coatcheck.engine.codec import Body, Codec
from coatcheck.errors import BadUpstreamBody, LoadError
from coatcheck.ipc.envelope import Payload, unwrap
from coatcheck.ipc.models import BusinessUnits, Endpoint, Engagement, VmList, Zone

TYPES = [Engagement, tuple[Endpoint, ...], BusinessUnits, tuple[Zone, ...], VmList]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["success", "failure", "failed", "error"]) | values,
        "data": values,
        "message": values,
        "responseCode": st.sampled_from([0, 200, 401, 403, 404, 429, 500]) | values,
    },
)
bodies = (
    st.binary()
    | values.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
    | envelopes.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
)


@given(bodies, st.sampled_from(TYPES))
@example(b'{"status": "success", "data": ' + b"[" * 100_000, tuple[Zone, ...])
@example(b'{"status": "success", "data": ' + b"9" * 5_000 + b"}", Engagement)
@example(b'{"status": "success", "data": NaN}', Engagement)
@example(b'\xef\xbb\xbf{"status": "success", "data": []}', tuple[Zone, ...])
@example(b'{"status": "success", "data": [], "data": []}', tuple[Zone, ...])
@example(b'{"status": "\\ud800", "data": []}', tuple[Zone, ...])
def test_an_envelope_is_a_value_or_an_error_of_ours(body: bytes, declared: type[object]) -> None:
    """Nothing else is raised, and what is accepted is of the type."""
    try:
        opened = unwrap(body, declared)
    except LoadError:
        return

    assert isinstance(opened, Payload)
    assert Codec[object](declared, name="again").decode(opened.raw) == opened.value


@given(bodies, st.sampled_from(TYPES))
def test_a_body_for_the_cache_is_a_value_or_refused(body: bytes, declared: type[object]) -> None:
    """What the codec keeps decodes again to the same; anything else is no JSON of the declared type."""
    codec = Codec[object](declared, name="body")
    try:
        kept, value = codec.accept(Body(body))
    except BadUpstreamBody:
        return

    assert body == kept
    assert value == codec.decode(kept)


def test_the_check_can_fail() -> None:
    """A body that is accepted is found, so the properties above are not empty."""
    with pytest.raises(BadUpstreamBody):
        unwrap(b'{"status": "success", "data": [{}]}', tuple[Zone, ...])
    assert () == unwrap(b'{"status": "success", "data": []}', tuple[Zone, ...]).value
