"""What does a get cost that finds its value in memory?"""

from __future__ import annotations

import random
from itertools import cycle, islice, repeat
from typing import TYPE_CHECKING, Any

from benchmarks import peers, subject
from benchmarks.report import Goal, Report, answer
from benchmarks.timing import race

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.timing import Batch, Race
    from coatcheck import Resource, SessionCache

    Get = Callable[[str, str], Awaitable[Any]]

WITHIN = Goal(1.5)
PEEKING = Goal(1.15)


async def measure(quick: bool) -> Report:
    """Hot: one key again and again. Random: entries of many users in random order, so that few are near the processor."""
    report = Report(
        "hit: what does a get cost that finds its value in memory?",
        "awaiting a coroutine that looks up (user, resource) in a dict and reads the clock",
    )
    owners = subject.users(20 if quick else 10_000)
    order = [(owner, number) for owner in owners for number in range(len(subject.NAMES))]
    random.Random(1).shuffle(order)
    rounds, seconds = (3, 0.0005) if quick else (25, 0.005)

    flat, resources = subject.flat()
    chained, chain = subject.chained()
    look_up = subject.looker(subject.dictionary(owners))
    clients: dict[str, Get] = {}
    if not quick:
        found, missing = peers.installed()
        clients = {peer.name: await filled(peer(subject.load, len(order)), order) for peer in found}
        report.notes += [f"not installed: {name}" for name in missing]

    async with (
        subject.roomy(flat) as cache,
        subject.roomy(chained) as deep,
        subject.roomy(flat, on_event=lambda _: None) as observed,
    ):
        await subject.fill(cache, owners, resources)
        await subject.fill(observed, owners[:1], resources)
        await subject.fill_chain(deep, owners, chain)
        hot = await race(
            hot_gets(look_up),
            {
                "coatcheck session.get": session_gets(cache, resources[0]),
                "coatcheck session.get, observed": session_gets(observed, resources[0]),
                "coatcheck leaf three deep": session_gets(deep, chain[3]),
                "coatcheck session.peek": session_peeks(cache, resources[0]),
                **{name: hot_gets(get) for name, get in clients.items()},
            },
            rounds=rounds,
            seconds=seconds,
        )
        add(report, hot, {"coatcheck session.peek": PEEKING})

        asked = [(subject.anew(owner), number) for owner, number in order]
        pairs = [(owner, resources[number]) for owner, number in asked]
        leaves = [(owner, chain[3 + number % 3]) for owner, number in asked]
        names = [(owner, subject.NAMES[number]) for owner, number in asked]
        scattered = await race(
            random_gets(look_up, names),
            {
                "coatcheck cache.session.get": cache_gets(cache, pairs),
                "coatcheck leaf three deep, random": cache_gets(deep, leaves),
                **{f"{name}, random": random_gets(get, names) for name, get in clients.items()},
            },
            rounds=3 if quick else 11,
            seconds=seconds * 8,
            most=len(order),
        )
        add(report, scattered, {}, floor="floor, random")
    return report


async def filled(client: peers.Client, order: list[tuple[str, int]]) -> Get:
    """Return the client's get, with everything in."""
    for owner, number in sorted(order):
        await client.get(owner, subject.NAMES[number])
    return client.get


def hot_gets(get: Get) -> Batch:
    """Get one key again and again."""

    async def batch(number: int) -> None:
        user, resource = "user-0@example.com", subject.NAMES[0]
        for _ in repeat(None, number):
            await get(user, resource)

    return batch


def session_gets(cache: SessionCache[None], resource: Resource[Any]) -> Batch:
    """Get one resource of one session again and again."""

    async def batch(number: int) -> None:
        session = cache.session("user-0@example.com")
        for _ in repeat(None, number):
            await session.get(resource)

    return batch


def session_peeks(cache: SessionCache[None], resource: Resource[Any]) -> Batch:
    """Peek at one resource of one session again and again."""

    async def batch(number: int) -> None:
        session = cache.session("user-0@example.com")
        for _ in repeat(None, number):
            session.peek(resource)

    return batch


def random_gets(get: Get, order: list[tuple[str, str]]) -> Batch:
    """Get one key after the other, going on where the last turn ended."""
    keys = cycle(order)

    async def batch(number: int) -> None:
        for user, resource in islice(keys, number):
            await get(user, resource)

    return batch


def cache_gets(cache: SessionCache[None], order: list[tuple[str, Resource[Any]]]) -> Batch:
    """Do the same from the cache on: the session, then its get."""
    keys = cycle(order)

    async def batch(number: int) -> None:
        for user, resource in islice(keys, number):
            await cache.session(user).get(resource)

    return batch


def add(report: Report, result: Race, goals: dict[str, Goal], *, floor: str = "floor") -> None:
    """Add a race's rows, in nanoseconds."""
    least = result.value("floor") * 1e9
    for name in result.seconds:
        goal = goals.get(name, WITHIN) if name.startswith("coatcheck") else None
        report.add(
            floor if name == "floor" else name,
            result.value(name) * 1e9,
            "ns",
            floor=least,
            ratio=result.ratio(name),
            goal=goal,
        )


if __name__ == "__main__":
    answer(measure)
