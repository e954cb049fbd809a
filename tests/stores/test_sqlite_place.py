"""A path that is not a store's: nothing there is changed, moved, made private or put beside it."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from coatcheck.bootstrap import session_store
from coatcheck.errors import StoreFailed
from coatcheck.settings import Settings
from coatcheck.stores.key_ring import NO_PATH, TAG
from coatcheck.stores.sqlite import SQLiteStore, inspect
from coatcheck.stores.sqlite.place import MARK
from coatcheck.stores.sqlite.upkeep import upkeep
from coatcheck.testing.store_contract import held
from stores.sqlite_rig import ANN, DAY, KEYS, Rig, record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def folder(path: Path) -> None:
    path.mkdir(0o755)


def pipe(path: Path) -> None:
    os.mkfifo(path, 0o644)


def text(path: Path) -> None:
    path.write_text("what somebody wrote\n" * 500)


def one_byte(path: Path) -> None:
    path.write_text("x")


def a_line(path: Path) -> None:
    path.write_text("what somebody wrote\n")


def database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")


def marked_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")


def damaged_database(path: Path) -> None:
    database(path)
    path.write_bytes(path.read_bytes()[:4_200])


def database_of_which_all_is_in_its_log(path: Path) -> None:
    source = path.with_name("source")
    with contextlib.closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE theirs (x)")
        for suffix in ("", "-wal"):
            path.with_name(f"{path.name}{suffix}").write_bytes(
                source.with_name(f"source{suffix}").read_bytes()
            )
    source.unlink()
    path.with_name(f"{path.name}-wal").chmod(0o644)


THEIRS = {
    folder: "it is a folder, not a file",
    pipe: "it is not a file",
    text: "is not a store of coatcheck",
    a_line: "is not a store of coatcheck",
    one_byte: "is not a store of coatcheck",
    database: "is the database of another program",
    marked_database: "is the database of another program",
    damaged_database: "",
    database_of_which_all_is_in_its_log: "is the database of another program",
}


def seen(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return all there is in a folder, with modes and contents."""
    return {
        each.name: (stat.S_IMODE(each.stat().st_mode), each.read_bytes() if each.is_file() else b"")
        for each in folder.iterdir()
    }


@pytest.mark.parametrize("tag", [TAG, ""], ids=["a key", "what a key ends in"])
def test_a_key_in_the_place_of_its_path_is_not_shown_and_becomes_no_file(
    rig: Rig, caplog: pytest.LogCaptureFixture, tag: str
) -> None:
    path = rig.path.with_name(f"{tag}{'c4' * 32}")
    openings: list[Callable[[], object]] = [
        lambda: SQLiteStore(path),
        lambda: inspect(path).__enter__(),
        lambda: upkeep(path).__enter__(),
    ]
    for open_it in openings:
        with pytest.raises(StoreFailed) as caught:
            open_it()
        assert NO_PATH == str(caught.value)
    assert [] == list(path.parent.iterdir())
    assert "" == caplog.text


@pytest.mark.parametrize("path", ["a\0b", "a/\0", "\ud800"])
def test_a_path_that_no_file_can_have_is_refused_as_any_other(path: str) -> None:
    openings: list[Callable[[], object]] = [
        lambda: SQLiteStore(path),
        lambda: inspect(path).__enter__(),
        lambda: upkeep(path).__enter__(),
    ]
    for open_it in openings:
        with pytest.raises(StoreFailed) as caught:
            open_it()
        assert str(caught.value).startswith("there can be no store at ")
        assert caught.value.__context__ is None


def test_what_sqlite_calls_memory_becomes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes it wants nothing to be kept, and would not look for keys on the disk."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreFailed) as caught:
        SQLiteStore(":memory:")
    assert str(caught.value) == (
        f"there can be no store at {tmp_path / ':memory:'}: this one is a file; without a store sessions are in memory alone,"
        " and for tests there is MemoryStore in coatcheck.testing"
    )
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("below", ["s.sqlite", "deeper/still/s.sqlite"])
def test_a_file_in_the_place_of_its_folder_is_said_to_be_none(rig: Rig, below: str) -> None:
    """Rights have nothing to do with it."""
    note = rig.path.with_name("note.txt")
    note.write_text("what somebody wrote")
    path = note / below
    openings: list[Callable[[], object]] = [
        lambda: SQLiteStore(path),
        lambda: session_store(Settings(store=str(path), keys=rig.path.parent / "keys")),
        lambda: inspect(path).__enter__(),
        lambda: upkeep(path).__enter__(),
    ]
    for open_it in openings:
        with pytest.raises(StoreFailed) as caught:
            open_it()
        assert f"there can be no store at {path}: {note} is no folder" == str(caught.value)
    assert [note] == list(note.parent.iterdir())


@pytest.mark.parametrize("lock", [None, b"", b"theirs"], ids=["no lock", "an empty lock", "their lock"])
@pytest.mark.parametrize(("make", "message"), THEIRS.items(), ids=[each.__name__ for each in THEIRS])
def test_what_is_not_a_store_is_refused_and_untouched(
    rig: Rig, caplog: pytest.LogCaptureFixture, make: Callable[[Path], None], message: str, lock: bytes | None
) -> None:
    make(rig.path)
    if stat.S_ISREG(rig.path.stat().st_mode):
        rig.path.chmod(0o644)
    if lock is not None:
        rig.path.with_name(f"{rig.path.name}.lock").write_bytes(lock)
    before = seen(rig.path.parent)
    named = Settings(store=str(rig.path), keys=rig.path.parent / "keys")
    openings: list[Callable[[], object]] = [
        # With keys of its own, which would be made.
        lambda: SQLiteStore(rig.path),
        lambda: SQLiteStore(rig.path, keys=KEYS),
        lambda: session_store(named),
    ]
    for open_it in openings:
        with pytest.raises(StoreFailed) as caught:
            open_it()
        assert str(rig.path) in str(caught.value)
        if lock != b"theirs":
            assert message in str(caught.value)
        assert before == seen(rig.path.parent)
    for look in (lambda: inspect(rig.path), lambda: upkeep(rig.path)):
        with pytest.raises(StoreFailed), look():
            pass
    assert before == seen(rig.path.parent)
    assert "" == caplog.text


def test_the_lock_of_another_program_stays_as_it_is(rig: Rig) -> None:
    lock = rig.path.with_name(f"{rig.path.name}.lock")
    lock.write_text("poetry's, say")
    with pytest.raises(StoreFailed, match="is not the lock of a store"):
        SQLiteStore(rig.path, keys=KEYS)
    assert {lock} == set(rig.path.parent.iterdir())
    assert "poetry's, say" == lock.read_text()


def emptied(path: Path) -> None:
    database(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE theirs")


@pytest.mark.parametrize("make", [lambda path: path.touch(), emptied], ids=["file", "database"])
async def test_what_is_empty_is_taken(rig: Rig, make: Callable[[Path], None]) -> None:
    make(rig.path)
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
    async with rig.open() as store:
        assert {("zones", b"")} == set(held(await store.open(ANN)))
    assert MARK == rig.path.with_name(f"{rig.path.name}.lock").read_bytes()


async def test_a_store_with_a_second_name_is_refused_by_both(rig: Rig) -> None:
    """By the second it could be opened once more: its lock and its log are found by the name."""
    link = rig.path.with_name("link")
    async with rig.open() as store:
        session = await store.open(ANN)
        os.link(rig.path, link)
        before = set(rig.path.parent.iterdir())
        for open_it in (
            lambda: SQLiteStore(link, keys=KEYS),
            lambda: inspect(link).__enter__(),
            lambda: upkeep(link).__enter__(),
        ):
            with pytest.raises(StoreFailed, match=f"^the store at {link} has more than one name"):
                open_it()
        assert before == set(rig.path.parent.iterdir())
        assert session.id == (await store.open(ANN)).id
    with pytest.raises(StoreFailed, match=f"^the store at {rig.path} has more than one name"):
        SQLiteStore(rig.path, keys=KEYS)
    link.unlink()
    async with rig.open() as store:
        assert session.id == (await store.open(ANN)).id


async def test_a_store_is_a_store_without_its_lock_too(rig: Rig) -> None:
    """As after a copy. A page that is damaged beyond the header changes nothing about whose it is."""
    async with rig.open() as store:
        session = await store.open(ANN)
    lock = rig.path.with_name(f"{rig.path.name}.lock")
    lock.unlink()
    async with rig.open() as store:
        assert session.id == (await store.open(ANN)).id
    lock.unlink()
    os.truncate(rig.path, 4_096 + 100)
    async with rig.open() as store:
        await store.open(ANN)
    assert 1 == len(rig.aside())


async def test_a_header_that_is_gone_is_ours_by_the_mark_alone(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig.open():
        pass
    rig.overwrite((0, b"not a database!!" * 8))
    lock = rig.path.with_name(f"{rig.path.name}.lock")
    lock.write_bytes(b"")
    with pytest.raises(StoreFailed, match="is not a store of coatcheck"):
        SQLiteStore(rig.path, keys=KEYS, clock=rig.clock)
    assert [] == rig.aside()
    lock.write_bytes(MARK)
    with caplog.at_level(logging.ERROR):
        async with rig.open() as store:
            await store.open(ANN)
    assert 1 == len(rig.aside())


async def test_a_file_put_in_its_place_while_it_was_open_is_left_alone(rig: Rig) -> None:
    """And the store goes on when it has gone."""
    async with rig.open() as store:
        session = await store.open(ANN)
        store._threads.writer.database.close()
        ours = rig.path.rename(rig.path.with_name("ours"))
        database(rig.path)
        rig.path.chmod(0o644)
        before = rig.path.read_bytes()
        with pytest.raises(StoreFailed, match="another program"):
            await store.put(ANN, session.id, record(), keep_for=DAY)
        assert (0o644, before) == (stat.S_IMODE(rig.path.stat().st_mode), rig.path.read_bytes())
        ours.replace(rig.path)
        assert session.id == (await store.open(ANN)).id
