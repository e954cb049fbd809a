"""The resident memory of what is built in a process of its own, and what the garbage collector makes of it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import thread_time
from typing import TYPE_CHECKING, Any

from benchmarks import peers, subject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PAGE_BYTES = 4096


@dataclass
class Footprint:
    """What stayed after all had been put in.

    Attributes:
        resident: bytes more than before.
        collection: seconds of processor time of one full garbage collection.
    """

    resident: int
    collection: float


def alone(build: Callable[[int], Awaitable[object]], owners: int) -> Footprint:
    """Build for so many users in a fresh process and measure there."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(_measure, build, owners).result()


async def build_nothing(owners: int) -> object:
    """Hold the names of the users alone: what every candidate holds."""
    return subject.users(owners)


async def build_floor(owners: int) -> object:
    """Hold a flat dictionary by user and resource, with one shared value and a deadline each."""
    return subject.dictionary(subject.users(owners))


async def build_flat(owners: int) -> object:
    """Hold six resources of each user that depend on nothing."""
    catalog, resources = subject.flat()
    cache = subject.roomy(catalog)
    await subject.fill(cache, subject.users(owners), resources)
    return cache


async def build_chained(owners: int) -> object:
    """Hold five stored resources of each user, four of them reached through others, and a derived one."""
    catalog, chain = subject.chained()
    cache = subject.roomy(catalog)
    await subject.fill_chain(cache, subject.users(owners), chain)
    return cache


class BuildPeer:
    """Hold six values of each user in a peer."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, owners: int) -> object:
        """Build."""
        (peer,) = (each for each in peers.PEERS if each.name == self.name)
        client: Any = peer(subject.load, owners * len(subject.NAMES))
        for owner in subject.users(owners):
            for resource in subject.NAMES:
                await client.get(owner, resource)
        return client


def _measure(build: Callable[[int], Awaitable[object]], owners: int) -> Footprint:
    return asyncio.run(_measured(build, owners))


async def _measured(build: Callable[[int], Awaitable[object]], owners: int) -> Footprint:
    await build(2)
    before = resident()
    held = await build(owners)
    # Tasks and callbacks of the filling itself end here.
    await asyncio.sleep(0.01)
    after = resident()
    times = []
    for _ in range(5):
        began = thread_time()
        gc.collect()
        times.append(thread_time() - began)
    del held
    return Footprint(after - before, median(times))


def resident() -> int:
    """Return the resident bytes of this process, garbage collected and free memory returned."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
