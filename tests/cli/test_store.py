"""``coatcheck store``: a check that says what is wrong and shows nothing, and a file that becomes smaller."""

from __future__ import annotations

import json
import sqlite3

import pytest

from cli.stored import ANN, BOB, HOUR, Shelf, shelf
from coatcheck.stores.sqlite.file import DAMAGED, damage_at

__all__ = ["shelf"]


def test_check_counts_what_there_is_and_opens_all_of_it(shelf: Shelf) -> None:
    shelf.fill(ANN, BOB)
    ended = shelf.call("store", "check")
    assert (0, "") == (ended.code, ended.err)
    assert [
        ["file", "sound"],
        ["sessions", "2"],
        ["entries", "4"],
        ["open", "4"],
        ["do not open", "0"],
    ] == [line.rsplit(maxsplit=1) for line in ended.out.splitlines()]
    ended = shelf.call("store", "check", "--json")
    assert {
        "sound": True,
        "problems": [],
        "sessions": 2,
        "entries": 4,
        "opened": 4,
        "rejected": 0,
        "cleared": 0,
    } == json.loads(ended.out)


def test_check_counts_what_is_cleared_and_opens_none_of_it(shelf: Shelf) -> None:
    shelf.fill(ANN, BOB)
    shelf.clear_in_vain(ANN)
    ended = shelf.call("store", "check")
    assert (0, "") == (ended.code, ended.err)
    assert [
        ["file", "sound"],
        ["sessions", "2"],
        ["cleared, not yet removed", "1"],
        ["entries", "4"],
        ["open", "2"],
        ["do not open", "0"],
    ] == [line.rsplit(maxsplit=1) for line in ended.out.splitlines()]
    shown = json.loads(shelf.call("store", "check", "--json").out)
    assert (2, 1, 2) == (shown["sessions"], shown["cleared"], shown["opened"])
    shelf.keys.unlink()
    assert 1 == json.loads(shelf.call("store", "check", "--json").out)["cleared"]


def test_check_without_keys_opens_nothing(shelf: Shelf) -> None:
    shelf.fill(ANN)
    shelf.keys.unlink()
    ended = shelf.call("store", "check")
    assert 0 == ended.code
    assert "open      not tried: there are no keys\n" in ended.out
    shown = json.loads(shelf.call("store", "check", "--json").out)
    assert (2, None, None) == (shown["entries"], shown["opened"], shown["rejected"])


def test_entries_that_do_not_open_are_exit_1(shelf: Shelf) -> None:
    shelf.fill(ANN, BOB)
    ended = shelf.call("store", "check", "--keys", shelf.strange_keys(), "--json")
    assert (1, 0, 4) == (ended.code, json.loads(ended.out)["opened"], json.loads(ended.out)["rejected"])
    assert "coatcheck: 4 of 4 entries do not open with these keys\n" == ended.err

    with sqlite3.connect(shelf.path) as connection:
        # An entry of one under the name of the other.
        connection.execute("UPDATE entries SET sealed = (SELECT max(sealed) FROM entries)")
    connection.close()
    ended = shelf.call("store", "check")
    assert 1 == ended.code
    assert "open         1\ndo not open  3\n" in ended.out
    assert f"coatcheck: 3 of 4 entries do not open with the keys at {shelf.keys}\n" == ended.err


def test_a_damaged_file_is_exit_1(shelf: Shelf) -> None:
    shelf.fill(ANN)
    shelf.damage()
    before = shelf.path.read_bytes()
    ended = shelf.call("store", "check")
    told = f"coatcheck: {damage_at(shelf.path)}\n"
    assert (1, "file  damaged\n", told) == (ended.code, ended.out[:14], ended.err)
    shown = json.loads(shelf.call("store", "check", "--json").out)
    assert not shown["sound"]
    assert shown["problems"]
    assert before == shelf.path.read_bytes()


def test_what_is_no_database_is_exit_1(shelf: Shelf) -> None:
    shelf.fill(ANN)
    shelf.path.write_bytes(b"\xa5" * 8_192)
    ended = shelf.call("store", "check")
    told = f"coatcheck: {damage_at(shelf.path)}\n"
    assert (1, "file  damaged\n", told) == (ended.code, ended.out, ended.err)
    shown = json.loads(shelf.call("store", "check", "--json").out)
    assert (False, [DAMAGED]) == (shown["sound"], shown["problems"])


@pytest.mark.parametrize("command", [("store", "check"), ("store", "compact"), ("sessions", "list")])
def test_an_empty_file_is_said_to_be_empty(shelf: Shelf, command: tuple[str, ...]) -> None:
    shelf.path.parent.mkdir()
    shelf.path.touch()
    ended = shelf.call(*command)
    told = f"there is no store at {shelf.path} yet: the file is empty, until a program begins one in it"
    assert (1, told) == (ended.code, ended.complaint)
    assert [shelf.path] == list(shelf.path.parent.iterdir())


def test_check_works_while_a_program_has_the_store_open(shelf: Shelf) -> None:
    shelf.fill(ANN)
    with shelf.in_use():
        assert 0 == shelf.call("store", "check").code


def test_compact_removes_what_has_expired_and_gives_back_the_room(shelf: Shelf) -> None:
    shelf.fill(*(f"user {number}" for number in range(300)), age=72 * HOUR)
    assert 600 == json.loads(shelf.call("store", "check", "--json").out)["entries"]
    ended = shelf.call("store", "compact", "--json")
    sizes = json.loads(ended.out)
    assert (0, "") == (ended.code, ended.err)
    assert sizes["after"] < sizes["before"] / 2
    assert sizes["after"] == shelf.path.stat().st_size
    shown = json.loads(shelf.call("store", "check", "--json").out)
    assert (0, 0) == (shown["sessions"], shown["entries"])

    ended = shelf.call("store", "compact")
    assert [["before", "bytes"], ["after", "bytes"]] == [line.split()[::2] for line in ended.out.splitlines()]


def test_compact_needs_no_keys_and_loses_nothing_that_is_kept(shelf: Shelf) -> None:
    shelf.fill(ANN)
    kept = shelf.keys.rename(shelf.path.with_name("kept"))
    assert 0 == shelf.call("store", "compact").code
    assert not shelf.keys.exists()
    kept.rename(shelf.keys)
    assert 2 == shelf.held(ANN)


def test_compact_is_refused_while_a_program_has_the_store_open(shelf: Shelf) -> None:
    shelf.fill(ANN)
    with shelf.in_use():
        ended = shelf.call("store", "compact")
    assert (
        1,
        f"the store at {shelf.path} is open in a program: that program must compact it, or end first",
    ) == (ended.code, ended.complaint)


@pytest.mark.parametrize("command", ["check", "compact"])
def test_a_missing_store_is_one_line_and_nothing_is_made(shelf: Shelf, command: str) -> None:
    ended = shelf.call("store", command)
    assert (1, f"there is no store at {shelf.path}") == (ended.code, ended.complaint)
    assert not shelf.path.parent.exists()


def test_compact_of_a_damaged_store_leaves_it_as_it_is(shelf: Shelf) -> None:
    shelf.fill(ANN)
    shelf.damage()
    before = shelf.path.read_bytes()
    ended = shelf.call("store", "compact")
    assert (1, damage_at(shelf.path)) == (ended.code, ended.complaint)
    assert before == shelf.path.read_bytes()
