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
ROUNDS = 200 if DEEP else 20
USERS = 20_000
# Rounds that go on with one file, before another is begun.
ROUNDS_A_FILE = 20
# Kills, one after the other, before somebody looks through a file and closes it in order.
KILLS = 4
LONGEST = 0.7


class Acknowledged:
    """What the killed processes were told, round after round.

    Attributes:
        ending: users whose session, whichever it was by then, somebody began to clear.
        cleared: ids of sessions whose clear returned.
        put: session and resource of entries whose put returned, with their user.
    """

    def __init__(self, put: dict[tuple[str, str], str]) -> None:
        self.ending: set[str] = set()
        self.cleared: set[str] = set()
        self.put = put

    def take(self, lines: Iterator[str]) -> None:
        for line in lines:
            what, *words = line.split()
            if what == "clears":
                self.ending.add(words[0])
            elif what == "cleared":
                self.cleared.add(words[1])
            elif what == "put":
                self.put[words[1], words[2]] = words[0]


@pytest.mark.timeout(3_600 if DEEP else 300)
@pytest.mark.parametrize("first", range(0, ROUNDS, ROUNDS_A_FILE))
def test_a_process_killed_at_any_moment_leaves_a_store_that_keeps_its_promises(
    tmp_path: Path, first: int
) -> None:
    """Everybody's session is there before the first kill, and most kills are followed by another before a clean close."""
    KeyRing.drawn().write(tmp_path / "keys")
    path, keys = str(tmp_path / "sessions.db"), str(tmp_path / "keys")
    acknowledged = Acknowledged(asyncio.run(killed_writer.fill(path, keys, USERS)))
    restored = 0
    for seed in range(first, first + ROUNDS_A_FILE):
        sys.stdout.write(f"seed {seed}\n")
        acknowledged.take(killed(tmp_path, seed))
        assert [] == list(tmp_path.glob("*.corrupt-*"))
        if (seed + 1) % KILLS == 0:
            restored = asyncio.run(check(tmp_path, acknowledged))
            assert [] == list(tmp_path.glob("*.corrupt-*"))
    # There was something to be lost, and it was not lost with all else.
    assert acknowledged.cleared
    assert len(acknowledged.put) > USERS
    assert restored > USERS - len(acknowledged.ending)


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
            # A process that dies loses no put; a clear that was on its way may have arrived, or not.
            if id_ in found or user not in acknowledged.ending:
                assert resource in found.get(id_, ()), f"an entry of {user} was lost"
        checked = await store.check()
        assert ((), 0) == (checked.problems, checked.rejected)
        return sum(map(len, found.values()))
    finally:
        await store.aclose()
