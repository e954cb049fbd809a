"""A program that uses a SQLite store with all its might until it is killed, and says what was acknowledged.

Each body tells whose it is, under which session it was put, as which one, and when its load began.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
import time

from coatcheck.engine.store import Owner, Record, Written
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore

TASKS = 100
KEEP = 30 * 86_400.0
RESOURCES = ("zones", "notes", "plans")


def body(owner: Owner, session: bytes, number: int, started: float, size: int) -> bytes:
    """Return a body that can be seen to be whole."""
    text = f"{owner.user} {session.hex()} {number} {started!r} ".encode() + b"." * size
    return text + hashlib.sha256(text).hexdigest().encode()


def read(content: bytes) -> tuple[str, str, int, float]:
    """Return what a body tells.

    Raises:
        AssertionError: it is torn.
    """
    text, digest = content[:-64], content[-64:]
    assert hashlib.sha256(text).hexdigest().encode() == digest, "a torn value"
    user, session, number, started, _ = text.split(b" ", 4)
    return user.decode(), session.decode(), int(number), float(started)


def owner_of(number: int) -> Owner:
    return Owner("ipc", f"user-{number}@example.com")


def say(*words: object) -> None:
    """Write a line, whole, that is there whatever becomes of this process."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def put(
    store: SQLiteStore, owner: Owner, session: bytes, number: int, resource: str, size: int
) -> Written:
    """Put a body whose load began up to 100 seconds ago."""
    age = random.Random(f"{owner.user} {number} {resource}").random() * 100.0
    content = body(owner, session, number, time.time() - age, size)
    return await store.put(owner, session, Record(resource, b"", content, age), keep_for=KEEP)


async def fill(path: str, keys: str, users: int) -> dict[tuple[str, str], str]:
    """Give every user a session of one entry; return session and resource of each, with its user."""
    store = SQLiteStore(path, keys=KeyRing.read(keys))

    async def one(number: int) -> tuple[tuple[str, str], str]:
        owner, resource = owner_of(number), RESOURCES[number % len(RESOURCES)]
        session = (await store.open(owner)).id
        assert await put(store, owner, session, 0, resource, 300) is Written.APPLIED
        return (session.hex(), resource), owner.user

    try:
        filled: dict[tuple[str, str], str] = {}
        for start in range(0, users, 500):
            filled.update(await asyncio.gather(*map(one, range(start, start + 500))))
        return filled
    finally:
        await store.aclose()


async def work(store: SQLiteStore, users: int, task: int, seed: int) -> None:
    """Open, put and clear at random."""
    draw = random.Random(f"{seed} {task}")
    for number in range(1_000_000):
        owner = owner_of(draw.randrange(users))
        session = await store.open(owner)
        for each in session.records:
            assert (owner.user, session.id.hex()) == read(each.body)[:2]
        for resource in draw.sample(RESOURCES, draw.randrange(1, 3)):
            size = draw.choice((0, 300, 900, 5_000))
            written = await put(store, owner, session.id, number, resource, size)
            if written is Written.APPLIED and draw.random() < 0.1:
                say("put", owner.user, session.id.hex(), resource)
        if draw.random() < 0.15:
            say("clears", owner.user)
            await store.clear(owner)
            say("cleared", owner.user, session.id.hex())


async def main(path: str, keys: str, users: int, seed: int) -> None:
    store = SQLiteStore(path, keys=KeyRing.read(keys))
    say("ready")
    await asyncio.gather(*(work(store, users, task, seed) for task in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
