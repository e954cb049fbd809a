"""Answers that come with 200 and are none, that are too large, or that point elsewhere (scenarios 26, 27, 28)."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from coatcheck.errors import BadUpstreamBody, NotFound, UpstreamRejected
from coatcheck.ipc.resources import engagement_data, zones_list
from coatcheck.upstream.client import MIB
from outage.world import ANN, HOUR, PATHS, Fault, World, keys_of


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 200, "body": '{"error": "something went wrong"}'},
        {"kind": "status", "status": 200, "body": '{"status": "success", "data": "none", "message": null}'},
        {"kind": "status", "status": 200, "body": "[]"},
        {"kind": "status", "status": 200, "body": ""},
        {"kind": "html"},
    ],
    ids=keys_of,
)
async def test_an_error_that_comes_with_200_is_no_value(world: World, fault: Fault) -> None:
    """With nothing held it is a failure; with something held, that is served."""
    session = world.cache.session(ANN)
    world.fail({**fault, "path": PATHS[zones_list.name]})
    with pytest.raises(BadUpstreamBody):
        await session.get(zones_list)
    assert session.peek(zones_list) is None
    world.fail()
    right = await session.get(zones_list)
    assert right == world.right(ANN, zones_list)

    world.clock.jump(25 * HOUR)
    world.fail({**fault, "path": PATHS[zones_list.name]})
    look = await session.lookup(zones_list)
    assert (look.value, look.stale) == (right, True)


async def test_no_engagement_where_there_must_be_one_is_a_refusal(world: World) -> None:
    """What was held of it is not shown any more; a list that may be empty is a value."""
    session = world.cache.session(ANN)
    await world.expired(ANN)
    world.fail({"kind": "empty_list", "path": PATHS[zones_list.name]})
    look = await session.lookup(zones_list)
    assert (look.value, look.stale) == ((), False)

    world.fail({"kind": "empty_list", "path": PATHS[engagement_data.name]})
    for _ in range(2):
        with pytest.raises(NotFound):
            await session.get(engagement_data, force_refresh=True)
    with pytest.raises(NotFound):
        await session.get(engagement_data)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "huge_body", "bytes": 256 * MIB, "declared": True},
        {"kind": "huge_body", "bytes": 256 * MIB, "declared": False},
        {"kind": "gzip_bomb", "bytes": 64 * MIB},
    ],
    ids=keys_of,
)
async def test_a_body_that_is_too_large_is_let_go_of_in_time(world: World, fault: Fault) -> None:
    """Counted after decompression; what is in memory of it stays below four times the cap, what sends it included."""
    right = world.right(ANN, zones_list)
    session = world.cache.session(ANN)
    await world.expired(ANN)
    await session.get(engagement_data)
    world.fail({**fault, "path": PATHS[zones_list.name]})
    tracemalloc.start()
    try:
        look = await session.lookup(zones_list)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (look.value, look.stale) == (right, True)
    assert peak < 4 * MIB
    with pytest.raises(BadUpstreamBody):
        await session.get(zones_list, force_refresh=True)


class Listener:
    """Somebody whom nobody should connect to.

    Attributes:
        came: how often it happened.
        known: whether the connection is there that the test makes itself, after all others.
    """

    def __init__(self) -> None:
        self.came = 0
        self.known = asyncio.Event()

    async def __call__(self, asked: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        """Count a connection."""
        self.came += 1
        if await asked.read(1) == b"!":
            self.known.set()
        out.close()

    async def visit(self, port: int) -> None:
        """Connect, and return when that was noticed."""
        _, out = await asyncio.open_connection("127.0.0.1", port)
        out.write(b"!")
        await self.known.wait()
        out.close()
        await out.wait_closed()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/latest/meta-data",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://localhost:{port}/",
        "//127.0.0.1:{port}/",
        "http://169.254.169.254/latest/meta-data",
        "/paasservice/paas/engagements",
    ],
)
async def test_a_redirect_is_not_followed(world: World, target: str, status: int) -> None:
    """Nobody else is connected to and nothing else is asked; it is the request that was wrong, so nothing hides it."""
    session = world.cache.session(ANN)
    await world.expired(ANN)
    await session.get(engagement_data)
    world.asked()
    listener = Listener()
    async with await asyncio.start_server(listener, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        location = target.format(port=port)
        world.fail(
            {"kind": "redirect", "location": location, "status": status, "path": PATHS[zones_list.name]}
        )
        with pytest.raises(UpstreamRejected) as caught:
            await session.get(zones_list)
        await listener.visit(port)
    assert listener.came == 1
    assert caught.value.status == status
    asked = world.asked()
    assert asked[PATHS[zones_list.name]] == 1
    assert PATHS[engagement_data.name] not in asked
