"""How many hits a second do 1,000 tasks get that yield after each?"""

from __future__ import annotations

import asyncio
from itertools import repeat
from typing import TYPE_CHECKING, Any

from benchmarks import peers, subject
from benchmarks.report import Goal, Report, answer
from benchmarks.timing import race

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from benchmarks.timing import Batch
    from coatcheck import Resource, Session, SessionCache

    Get = Callable[[str, str], Awaitable[Any]]
    # Gets so many times, yielding after each.
    Worker = Callable[[int], Coroutine[Any, Any, None]]

AT_LEAST = Goal(0.85, least=True)


async def measure(quick: bool) -> Report:
    """Every task has a user of its own and goes on getting one resource, yielding after each get."""
    report = Report(
        "hit_concurrent: how many hits a second do 1,000 tasks get that yield after each?",
        "the same tasks awaiting a coroutine that looks up (user, resource) in a dict and reads the clock",
    )
    owners = subject.users(20 if quick else 1_000)
    catalog, resources = subject.flat()
    name = subject.NAMES[0]
    look_up = subject.looker(subject.dictionary(owners))
    floor = together(owners, lambda owner: plain(look_up, owner, name))
    async with subject.roomy(catalog) as cache:
        await subject.fill(cache, owners, resources[:1])
        candidates = {
            "coatcheck session.get": together(
                owners, lambda owner: from_session(cache.session(owner), resources[0])
            ),
            "coatcheck cache.session.get": together(
                owners, lambda owner: from_cache(cache, owner, resources[0])
            ),
        }
        if not quick:
            found, missing = peers.installed()
            report.notes += [f"not installed: {each}" for each in missing]
            for peer in found:
                candidates[peer.name] = await of_peer(peer, owners, name)
        # A turn begins and ends a thousand tasks, which must not be what is measured.
        result = await race(
            floor,
            candidates,
            rounds=2 if quick else 21,
            seconds=0.002 if quick else 0.06,
            fewest=1 if quick else 32,
        )
    rate = len(owners) / result.value("floor")
    for each in result.seconds:
        report.add(
            each,
            len(owners) / result.value(each),
            "gets/s",
            floor=rate,
            ratio=1 / result.ratio(each),
            goal=AT_LEAST if each.startswith("coatcheck") else None,
        )
    return report


def together(owners: list[str], worker: Callable[[str], Worker]) -> Batch:
    """Let a task for each user get so many times."""

    async def batch(number: int) -> None:
        await asyncio.gather(*(worker(owner)(number) for owner in owners))

    return batch


def plain(get: Get, owner: str, resource: str) -> Worker:
    """Get by user and resource."""

    async def work(number: int) -> None:
        for _ in repeat(None, number):
            await get(owner, resource)
            await asyncio.sleep(0)

    return work


def from_session(session: Session, resource: Resource[Any]) -> Worker:
    """Get from a session at hand."""

    async def work(number: int) -> None:
        for _ in repeat(None, number):
            await session.get(resource)
            await asyncio.sleep(0)

    return work


def from_cache(cache: SessionCache[None], owner: str, resource: Resource[Any]) -> Worker:
    """Get from the cache on: the session, then its get."""

    async def work(number: int) -> None:
        for _ in repeat(None, number):
            await cache.session(owner).get(resource)
            await asyncio.sleep(0)

    return work


async def of_peer(peer: Any, owners: list[str], name: str) -> Batch:
    """Return the same over a peer that holds everything."""
    get = peer(subject.load, 10_000).get
    for owner in owners:
        await get(owner, name)
    return together(owners, lambda owner: plain(get, owner, name))


if __name__ == "__main__":
    answer(measure)
