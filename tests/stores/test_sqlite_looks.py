"""A look into a store's file leaves nothing beside it, and works where nothing can be written."""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from coatcheck.stores.sqlite import inspect
from coatcheck.stores.sqlite.contents import look
from stores.sqlite_junk import COLUMNS, JUNK, spoil
from stores.sqlite_rig import ANN, BOB, DAY, HOUR, KEYS, Rig, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coatcheck.testing import FakeClock


def beside(rig: Rig) -> set[str]:
    return {each.name for each in rig.path.parent.iterdir()}


async def filled(rig: Rig) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)


async def test_a_look_leaves_nothing_beside_a_closed_store(rig: Rig) -> None:
    await filled(rig)
    before, content = beside(rig), rig.path.read_bytes()
    with inspect(rig.path, keys=KEYS) as inspector:
        assert 1 == len(list(inspector.sessions()))
        assert 1 == inspector.check().opened
    with look(rig.path, keys=KEYS) as contents:
        assert [ANN] == [owner for _, owner in contents.owners()]
    assert (before, content) == (beside(rig), rig.path.read_bytes())


async def test_a_store_that_opens_and_closes_during_a_look_is_none_the_worse(rig: Rig) -> None:
    await filled(rig)
    before = beside(rig)
    with inspect(rig.path, keys=KEYS) as inspector:
        async with rig.open() as store:
            await store.open(BOB)
            assert 2 == len(list(inspector.sessions()))
        assert 2 == inspector.check().sessions
    assert before == beside(rig)


async def test_a_log_that_a_crash_left_is_read_and_stays(rig: Rig) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
        crashed = rig.copy(rig.path.parent / "crashed")
    log = crashed.path.with_name(f"{crashed.path.name}-wal")
    before = crashed.path.read_bytes(), log.read_bytes()
    with inspect(crashed.path, keys=KEYS) as inspector:
        assert 1 == inspector.check().opened
    assert before == (crashed.path.read_bytes(), log.read_bytes())


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("column", COLUMNS)
async def test_whatever_a_damaged_file_holds_can_be_looked_at(rig: Rig, column: str, junk: str) -> None:
    await filled(rig)
    spoil(rig, column, junk)
    with inspect(rig.path, keys=KEYS) as inspector:
        [session] = inspector.sessions()
        assert session.opened_age >= 0.0
        assert inspector.size().sessions == 1
        [revealed] = inspector.reveal()
        assert len(revealed.records) + revealed.rejected <= 1
        assert inspector.check().sessions == 1
    with look(rig.path, keys=KEYS) as contents:
        [(listed, owner)] = contents.owners()
        assert owner in {ANN, None}
        found = contents.session(listed) if listed != "?" else None
        assert found is None or all(entry.kept_for <= DAY for entry in found.entries)


async def test_a_file_without_its_dates_is_said_to_be_damaged(rig: Rig) -> None:
    await filled(rig)
    rig.sql("DELETE FROM meta")
    with inspect(rig.path, keys=KEYS) as inspector:
        assert inspector.check().problems == ("the store's file is damaged",)


async def test_what_was_forgotten_is_not_said_to_be_kept(rig: Rig, fake_clock: FakeClock) -> None:
    """The same condition decides here as where a program opens a session: a load of the very moment goes, too."""
    async with rig.open() as store:
        session = await store.open(ANN)
        for resource, age in (("before", 1.0), ("then", 0.0), ("after", 0.0)):
            await store.put(ANN, session.id, record(resource, age=age), keep_for=HOUR)
        floor = rig.sql("SELECT max(started) FROM entries")[0][0]
        kinds = dict(rig.sql("SELECT name, kind FROM entries"))
        # Behind the store's back, so that nothing is swept.
        with look(rig.path, keys=KEYS, clock=fake_clock) as contents:
            (listed,) = (pseudonym for pseudonym, _ in contents.owners())
            found = contents.session(listed)
            assert found is not None
            assert all(each.kept_for for each in found.entries)
        for kind in list(kinds.values())[:2]:
            rig.sql("INSERT INTO floors (scope, kind, floor) VALUES (0, ?, ?)", kind, floor)
        kept = {each.resource for each in (await store.open(ANN)).records}
        with look(rig.path, keys=KEYS, clock=fake_clock) as contents:
            found = contents.session(listed)
        assert found is not None
        shown = {each.contents.resource for each in found.entries if each.kept_for and each.contents}
        assert (1, kept) == (len(kept), shown)


# -- where nothing can be written -----------------------------------------------------------------------------------

GIVE_UP = """
import ctypes, sys
# Who is root may write whatever a mode says: a process without that right is as any other.
class Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
class Data(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]
libc = ctypes.CDLL(None)
assert libc.capset(ctypes.byref(Header(0x20080522, 0)), ctypes.byref((Data * 2)())) == 0
"""
COMMAND = GIVE_UP + "from coatcheck.cli import main; sys.exit(main(sys.argv[1:]))"


def call(rig: Rig, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments, "--store", str(rig.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    folder.chmod(0o500)
    try:
        yield
    finally:
        folder.chmod(0o700)


@pytest.fixture
def shelf(tmp_path: Path, fake_clock: FakeClock) -> Rig:
    folder = tmp_path / "shelf"
    folder.mkdir()
    return Rig(folder, fake_clock)


def denied(rig: Rig) -> str:
    return f"Permission denied: the folder {rig.path.parent}"


needs_linux = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "capset"), reason="rights are given up as on Linux"
)


@needs_linux
async def test_a_sound_store_can_be_looked_into_where_nothing_can_be_written(shelf: Rig) -> None:
    await filled(shelf)
    before = beside(shelf)
    with read_only(shelf.path.parent):
        code, said = call(shelf, "sessions", "list")
        assert (0, 2) == (code, len(said.splitlines()))
        pseudonym = said.splitlines()[1].split()[0]
        assert 0 == call(shelf, "sessions", "show", pseudonym)[0]
        assert 0 == call(shelf, "store", "check")[0]
        for command in (("sessions", "clear", "--all"), ("store", "compact")):
            assert (
                1,
                f"coatcheck: the store at {shelf.path} cannot be written: {denied(shelf)}\n",
            ) == call(shelf, *command)
    assert before == beside(shelf)


@needs_linux
async def test_a_look_into_a_file_that_nobody_may_write_leaves_nothing_beside_it(shelf: Rig) -> None:
    await filled(shelf)
    shelf.path.chmod(0o444)
    before = beside(shelf)
    for command in (("sessions", "list"), ("store", "check")):
        assert 0 == call(shelf, *command)[0]
        assert before == beside(shelf)


@needs_linux
async def test_one_that_is_open_all_the_same_is_read_with_its_log(shelf: Rig) -> None:
    """By a program with more rights, as root's are."""
    async with shelf.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
        shelf.path.chmod(0o444)
        before = beside(shelf)
        code, said = call(shelf, "sessions", "list", "--json")
        assert (0, 1) == (code, said.count("pseudonym"))
        assert before == beside(shelf)


@needs_linux
async def test_with_a_log_it_says_why_it_cannot_be_read_there(shelf: Rig) -> None:
    async with shelf.open() as store:
        await store.open(ANN)
        crashed = shelf.copy(shelf.path.parent / "crashed")
    with read_only(crashed.path.parent):
        for command in (("sessions", "list"), ("store", "check")):
            code, said = call(crashed, *command)
            assert (1, f"coatcheck: the store at {crashed.path} cannot be read: {denied(crashed)}\n") == (
                code,
                said,
            )


@needs_linux
def test_no_store_can_be_begun_where_nothing_can_be_written(shelf: Rig) -> None:
    begin = (
        "from coatcheck.stores import SQLiteStore\n"
        "try: SQLiteStore(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    with read_only(shelf.path.parent):
        done = subprocess.run(
            [sys.executable, "-c", GIVE_UP + begin, str(shelf.path)],
            capture_output=True,
            text=True,
            check=True,
        )
    assert f"StoreFailed there can be no store at {shelf.path}: {denied(shelf)}\n" == done.stdout
    assert not list(shelf.path.parent.iterdir())


@needs_linux
async def test_a_lock_that_cannot_be_opened_is_named(shelf: Rig) -> None:
    """It is what the rights are missing for, and it is not somebody else's."""
    await filled(shelf)
    lock = shelf.path.with_name(f"{shelf.path.name}.lock")
    for mode in (0, 0o400):
        lock.chmod(mode)
        code, said = call(shelf, "sessions", "clear", "--all")
        assert (1, f"coatcheck: there can be no store at {shelf.path}: Permission denied: {lock}\n") == (
            code,
            said,
        )
