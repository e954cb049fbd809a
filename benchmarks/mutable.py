"""What does a hit cost on a value that its caller may change?"""

from __future__ import annotations

import copy
from itertools import repeat
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks import subject
from benchmarks.report import Goal, Report, answer
from benchmarks.timing import race
from coatcheck import Catalog

if TYPE_CHECKING:
    from benchmarks.timing import Batch
    from coatcheck import SessionCache

WITHIN = Goal(1.1)
USER = "user@example.com"


async def measure(quick: bool) -> Report:
    """A dictionary of 5 kB, decoded anew for every caller, so that nobody sees another's changes."""
    report = Report(
        "mutable: what does a hit cost on a dict of 5 kB that its caller may change?",
        "one msgspec decode of its body",
    )
    catalog: Catalog[None] = Catalog("mutable")
    document = {
        "items": [
            {"id": number, "name": f"environment {number}", "active": True, "zones": ["north", "south"]}
            for number in range(62)
        ]
    }
    body = msgspec.json.encode(document)
    decode = msgspec.json.Decoder(dict[str, Any]).decode

    @catalog.resource(subject.LASTING)
    async def settings(api: None) -> dict[str, Any]:
        return document

    async def decoded(number: int) -> None:
        for _ in repeat(None, number):
            decode(body)

    async def copied(number: int) -> None:
        for _ in repeat(None, number):
            copy.deepcopy(document)

    async with subject.roomy(catalog) as cache:
        await cache.session(USER).get(settings)
        rounds, seconds = (3, 0.0005) if quick else (101, 0.01)
        result = await race(
            decoded,
            {
                "coatcheck session.get": session_gets(cache, settings),
                "coatcheck cache.session.get": cache_gets(cache, settings),
                "copy.deepcopy": copied,
            },
            rounds=rounds,
            seconds=seconds,
        )
    for name in result.seconds:
        report.add(
            name,
            result.value(name) * 1e6,
            "µs",
            floor=result.value("floor") * 1e6,
            ratio=result.ratio(name),
            goal=WITHIN if name.startswith("coatcheck") else None,
        )
    report.notes.append(f"a body of {len(body):,} bytes")
    return report


def session_gets(cache: SessionCache[None], resource: Any) -> Batch:
    """Get from one session again and again."""

    async def batch(number: int) -> None:
        session = cache.session(USER)
        for _ in repeat(None, number):
            await session.get(resource)

    return batch


def cache_gets(cache: SessionCache[None], resource: Any) -> Batch:
    """Do the same from the cache on."""

    async def batch(number: int) -> None:
        for _ in repeat(None, number):
            await cache.session(USER).get(resource)

    return batch


if __name__ == "__main__":
    answer(measure)
