"""What tests of the SQLite store share: a store on a path, SQL behind its back, and the bytes that lie on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coatcheck.engine.store import Owner, Record
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.stores.sqlite.operations import Chore
from coatcheck.testing import FakeClock, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from coatcheck.stores.sqlite.tables import Tables

ANN = Owner("ipc", "ann.canary@example.com")
BOB = Owner("ipc", "bob.canary@example.com")
HOUR = 3_600.0
DAY = 24 * HOUR
PATIENCE = 20.0
KEYS = KeyRing.drawn()


class Rig:
    """A store on a path, to be opened and closed as often as a test likes."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.path = folder / "sessions.db"
        self.clock = clock
        self.keys = KEYS

    @contextlib.asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[SQLiteStore]:
        store = SQLiteStore(self.path, **{"keys": self.keys, "clock": self.clock, **options})
        try:
            yield store
        finally:
            await store.aclose()

    def sql(self, statement: str, *parameters: object) -> list[Any]:
        """Do something to the file behind the store's back."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None, timeout=5)) as connection:
            return connection.execute(statement, parameters).fetchall()

    def script(self, statements: str) -> None:
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None, timeout=5)) as connection:
            connection.executescript(statements)

    def on_disk(self) -> bytes:
        """Return the bytes of all files, the log included, also while the store is open."""
        # In another process: closing a file here that SQLite has open here would release its locks.
        files = sorted(
            str(each) for each in self.path.parent.iterdir() if each.is_file() and ".keys" not in each.name
        )
        return subprocess.run(["cat", *files], check=True, capture_output=True).stdout

    def overwrite(self, *places: tuple[int, bytes]) -> None:
        """Write over parts of the file, in another process."""
        program = (
            "import sys\n"
            "with open(sys.argv[1], 'r+b') as file:\n"
            "    for line in sys.stdin:\n"
            "        offset, content = line.split()\n"
            "        file.seek(int(offset)), file.write(bytes.fromhex(content))\n"
        )
        lines = "".join(f"{offset} {content.hex()}\n" for offset, content in places)
        subprocess.run([sys.executable, "-c", program, str(self.path)], input=lines, text=True, check=True)

    def copy(self, folder: Path) -> Rig:
        """Return a copy of the file and its log as they are now, as a power cut would leave them."""
        folder.mkdir()
        for suffix in ("", "-wal"):
            done = subprocess.run(["cat", f"{self.path}{suffix}"], check=True, capture_output=True)
            (folder / f"{self.path.name}{suffix}").write_bytes(done.stdout)
        return Rig(folder, self.clock)

    def aside(self) -> list[Path]:
        return sorted(self.path.parent.glob("sessions.db.corrupt-*"))


def record(resource: str = "zones", arguments: bytes = b"", body: bytes = b"[1]", age: float = 0.0) -> Record:
    return Record(resource, arguments, body, age)


def eventually(check: Callable[[], bool]) -> None:
    """Wait for another thread or process."""
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def in_one_group(store: SQLiteStore, *calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """Ask a store for some writes while its writer is kept waiting, so that it takes them together; return the answers."""
    waits, go = threading.Event(), threading.Event()

    def wait() -> None:
        waits.set()
        go.wait(PATIENCE)

    store._threads.writer.asked.put(Chore(wait))
    assert waits.wait(PATIENCE)
    asked = [asyncio.ensure_future(call) for call in calls]
    await settle()
    go.set()
    return await asyncio.gather(*asked)


def tables_of(store: SQLiteStore) -> Tables:
    tables = store._threads.writer.database.tables
    assert tables is not None
    return tables
