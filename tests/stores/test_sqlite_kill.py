"""kill -9 at any moment: the store opens, nothing is torn, and nothing that was cleared comes back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore
from stores import killed_writer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coatcheck.engine.store import StoredSession

DEEP = os.environ.get("COATCHECK_DEEP") == "1"
ROUNDS, USERS = (200, 20_000) if DEEP else (20, 2_000)
# Rounds that go on with one file, before another is begun.
ROUNDS_A_FILE = 10
LONGEST = 0.7


class Acknowledged:
    """What the killed process was told, round after round.

    Attributes:
        cleared: ids of sessions whose clear returned.
        put: of the last round: session and resource of entries whose put returned.
    """

    def __init__(self) -> None:
        self.cleared: set[str] = set()
        self.put: dict[tuple[str, str], str] = {}

    def take(self, lines: Iterator[str]) -> None:
        self.put.clear()
        for line in lines:
            what, *words = line.split()
            if what == "cleared":
                self.cleared.add(words[1])
            elif what == "put":
                self.put[words[1], words[2]] = words[0]


@pytest.mark.timeout(3_600 if DEEP else 180)
@pytest.mark.parametrize("first", range(0, ROUNDS, ROUNDS_A_FILE))
def test_a_process_killed_at_any_moment_leaves_a_store_that_keeps_its_promises(
    tmp_path: Path, first: int
) -> None:
    KeyRing.drawn().write(tmp_path / "keys")
    acknowledged = Acknowledged()
    restored = puts = 0
    for seed in range(first, first + ROUNDS_A_FILE):
        sys.stdout.write(f"seed {seed}\n")
        acknowledged.take(killed(tmp_path, seed))
        puts += len(acknowledged.put)
        restored += asyncio.run(check(tmp_path, acknowledged))
        assert [] == list(tmp_path.glob("*.corrupt-*"))
    # There was something to be lost.
    assert acknowledged.cleared
    assert puts
    assert restored


def killed(folder: Path, seed: int) -> Iterator[str]:
    """Run the program, kill it at a moment that *seed* draws, and return the lines it wrote."""
    options = map(str, (folder / "sessions.db", folder / "keys", USERS, seed))
    process = subprocess.Popen([sys.executable, killed_writer.__file__, *options], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == b"ready\n"
        moment = time.monotonic() + random.Random(seed).random() * LONGEST
        lines = b""
        os.set_blocking(said.fileno(), False)
        while time.monotonic() < moment:
            lines += said.read() or b""
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.set_blocking(said.fileno(), True)
        lines += said.read()
    # The last line may have been cut off by the kill: it was not said then.
    return iter(lines.decode().rpartition("\n")[0].splitlines())


async def check(folder: Path, acknowledged: Acknowledged) -> int:
    """Open the store that was left behind and look at every user; return how many entries came back."""
    store = SQLiteStore(folder / "sessions.db", keys=KeyRing.read(folder / "keys"))
    try:
        owners = [killed_writer.owner_of(number) for number in range(USERS)]
        sessions: list[tuple[StoredSession, float, float]] = []
        for start in range(0, USERS, 500):
            asked = time.time()
            opened = await asyncio.gather(*(store.open(owner) for owner in owners[start : start + 500]))
            answered = time.time()
            sessions += [(session, asked, answered) for session in opened]
        found: dict[str, set[str]] = {}
        for owner, (session, asked, answered) in zip(owners, sessions, strict=True):
            assert 0 == session.rejected
            assert session.id.hex() not in acknowledged.cleared, "a session that was cleared came back"
            found[session.id.hex()] = {each.resource for each in session.records}
            for each in session.records:
                user, id_, _, started = killed_writer.read(each.body)
                assert (owner.user, session.id.hex()) == (user, id_)
                assert asked - started - 1.0 < each.age < answered - started + 1.0
        for (id_, resource), user in acknowledged.put.items():
            # Unless a clear of theirs was on its way: a process that dies loses no put.
            assert id_ not in found or resource in found[id_], user
        checked = await store.check()
        assert ((), 0) == (checked.problems, checked.rejected)
        return sum(map(len, found.values()))
    finally:
        await store.aclose()
