"""Stores that a real cache has written, and what must not be shown of them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cli.conftest import Coatcheck, Ended
from coatcheck import Catalog, Policy, SessionCache
from coatcheck.clock import SystemClock
from coatcheck.engine.store import Owner
from coatcheck.errors import StoreFailed
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.testing import FakeClock

ANN = "ann.c4n4ry@example.com"
BOB = "bob.c4n4ry@example.com"
AUTHORITY = "c4n4ry-account"
VALUE = "c4n4ry-zone"
ARGUMENT = "c4n4ry-argument"
CANARY = "c4n4ry"
HOUR = 3_600.0

catalog: Catalog[str] = Catalog("shop")


@catalog.resource(Policy(ttl=timedelta(hours=24), stale_if_error=timedelta(hours=24)))
async def zones(api: str, account: str = ARGUMENT) -> tuple[str, ...]:
    return (VALUE, api)


@catalog.resource(Policy(ttl=timedelta(hours=1)))
async def plan(api: str) -> str:
    return f"{VALUE} of {api}"


class Shelf:
    """A file of sessions and its keys, and the command line pointed at them."""

    def __init__(self, coatcheck: Coatcheck, folder: Path) -> None:
        self._coatcheck = coatcheck
        self.path = folder / "stored" / "sessions.sqlite"
        self.keys = self.path.with_suffix(".keys")

    def call(self, *arguments: str, revealed: bool = False) -> Ended:
        """Call a command on this store; unless it is told to, it must show nothing of what is stored."""
        ended = self._coatcheck(*arguments, "--store", str(self.path))
        shown = ended.out + ended.err
        if not revealed:
            assert CANARY not in shown
        for file in self.path.parent.glob("*keys*"):
            for secret in re.findall(r"coatcheck-key-1:(\w+)", file.read_text()):
                assert secret not in shown
        assert "Traceback" not in shown
        return ended

    def fill(self, *users: str, age: float = 0.0) -> None:
        """Let a cache store what these users look up, so long ago."""

        async def work() -> None:
            clock = FakeClock(wall=SystemClock().wall() - age)
            store = SQLiteStore(self.path, clock=clock)
            async with SessionCache(
                catalog, connect=lambda user: user, store=store, authority=lambda _: AUTHORITY, clock=clock
            ) as cache:
                for user in users:
                    await cache.session(user).get_many(zones, plan)

        asyncio.run(work())

    def clear_in_vain(self, user: str | None) -> None:
        """Let a program clear a user, or for None everybody, where another keeps the file locked: it is noted only."""

        async def work() -> None:
            store = SQLiteStore(self.path)
            with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreFailed):
                    await (store.clear_all("shop") if user is None else store.clear(Owner("shop", user)))
                await store.aclose()

        asyncio.run(work())

    def held(self, user: str) -> int:
        """Return how many entries of a user a new program finds."""

        async def work() -> int:
            store = SQLiteStore(self.path)
            async with SessionCache(
                catalog, connect=lambda user: user, store=store, authority=lambda _: AUTHORITY
            ) as cache:
                await cache.session(user).get(zones)
                stored = cache.stats().store
                assert stored is not None
                return stored.entries_restored

        return asyncio.run(work())

    def on_disk(self) -> bytes:
        files = sorted(self.path.parent.glob("sessions.sqlite*"))
        return b"".join(file.read_bytes() for file in files)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Have another process keep the store open."""
        program = (
            "import asyncio, sys\n"
            "from coatcheck.stores import SQLiteStore\n"
            "async def main():\n"
            f"    store = SQLiteStore({str(self.path)!r})\n"
            "    print('open', flush=True)\n"
            "    sys.stdin.read()\n"
            "    await store.aclose()\n"
            "asyncio.run(main())\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout is not None
            try:
                assert other.stdout.readline() == "open\n"
                yield
            finally:
                other.communicate()
        assert other.returncode == 0

    def damage(self) -> None:
        """Overwrite what is behind the first page."""
        content = bytearray(self.path.read_bytes())
        content[4_096:] = b"\xa5" * (len(content) - 4_096)
        self.path.write_bytes(content)

    def strange_keys(self) -> str:
        path = self.path.with_name("strange-keys")
        KeyRing.drawn().write(path)
        return str(path)


Fill = Callable[..., None]


@pytest.fixture
def shelf(coatcheck: Coatcheck, tmp_path: Path) -> Shelf:
    return Shelf(coatcheck, tmp_path)
