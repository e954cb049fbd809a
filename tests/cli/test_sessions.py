"""``coatcheck sessions``: what is stored, without a name unless it is asked for, and its end."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Coatcheck
from cli.stored import ANN, ARGUMENT, AUTHORITY, BOB, HOUR, VALUE, Shelf, shelf
from coatcheck.bootstrap import session_store
from coatcheck.settings import Settings, default_keys
from coatcheck.stores.key_ring import TAG, KeyRing
from coatcheck.stores.sqlite.file import damage_at

__all__ = ["shelf"]


def listed(shelf: Shelf) -> list[dict[str, Any]]:
    ended = shelf.call("sessions", "list", "--json")
    assert (0, "") == (ended.code, ended.err)
    found: list[dict[str, Any]] = json.loads(ended.out)["sessions"]
    return found


def pseudonym_of(shelf: Shelf, user: str) -> str:
    sessions = json.loads(shelf.call("sessions", "list", "--reveal", "--json", revealed=True).out)["sessions"]
    (found,) = (each["pseudonym"] for each in sessions if each["user"] == user)
    return str(found)


# -- list -----------------------------------------------------------------------------------------------------------


def test_list_is_a_table_of_pseudonyms(shelf: Shelf) -> None:
    shelf.fill(ANN, age=50 * 60)
    shelf.fill(BOB, age=200)
    ended = shelf.call("sessions", "list")
    heading, ann, bob = (line.split("  ") for line in ended.out.splitlines())
    assert (0, "") == (ended.code, ended.err)
    assert ["session", "opened", "newest entry", "entries", "bytes"] == [
        each.strip() for each in heading if each
    ]
    assert ["50 min", "50 min", "2"] == [each.strip() for each in ann if each][1:4]
    assert ["3 min", "3 min", "2"] == [each.strip() for each in bob if each][1:4]


def test_list_as_json_has_exact_figures(shelf: Shelf) -> None:
    shelf.fill(ANN, age=3 * HOUR)
    (only,) = listed(shelf)
    assert {"pseudonym", "opened_age", "newest_age", "entries", "bytes", "cleared"} == only.keys()
    assert only["cleared"] is False
    assert 3 * HOUR <= only["newest_age"] <= only["opened_age"] < 4 * HOUR
    assert 2 == only["entries"]
    assert only["bytes"] > 100
    assert 16 == len(bytes.fromhex(only["pseudonym"])) * 2


def test_a_pseudonym_stays_the_same_from_run_to_run(shelf: Shelf) -> None:
    shelf.fill(ANN, BOB)
    before = [each["pseudonym"] for each in listed(shelf)]
    shelf.fill(BOB, ANN)
    assert before == [each["pseudonym"] for each in listed(shelf)]


def test_users_are_named_when_that_is_asked_for(shelf: Shelf) -> None:
    shelf.fill(ANN, BOB)
    ended = shelf.call("sessions", "list", "--reveal", revealed=True)
    assert 0 == ended.code
    assert [("shop", ANN), ("shop", BOB)] == [tuple(line.split()[-2:]) for line in ended.out.splitlines()[1:]]
    ended = shelf.call("sessions", "list", "--reveal", "--json", revealed=True)
    assert [("shop", ANN), ("shop", BOB)] == [
        (each["catalog"], each["user"]) for each in json.loads(ended.out)["sessions"]
    ]


def test_a_name_that_a_terminal_would_obey_is_written_out(shelf: Shelf) -> None:
    shelf.fill("ann\x1b[2J\n@example.com")
    ended = shelf.call("sessions", "list", "--reveal", revealed=True)
    assert r"ann\x1b[2J\n@example.com" in ended.out
    assert "\x1b" not in ended.out


def test_without_the_right_keys_nobody_is_named(shelf: Shelf) -> None:
    shelf.fill(ANN, BOB)
    ended = shelf.call("sessions", "list", "--reveal", "--keys", shelf.strange_keys())
    assert (1, "coatcheck: 2 of 2 sessions do not open with these keys\n") == (ended.code, ended.err)
    assert [["?", "?"]] * 2 == [line.split()[-2:] for line in ended.out.splitlines()[1:]]


def test_the_keys_beside_a_store_that_is_named_come_before_the_default_ones(shelf: Shelf) -> None:
    """Nobody has to name the keys that a program's own store made for itself."""
    KeyRing.drawn().write(default_keys())
    shelf.fill(ANN)
    assert ANN in shelf.call("sessions", "list", "--reveal", revealed=True).out


def test_keys_that_are_named_come_before_those_beside_the_store_and_it_says_so(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option before a setting, and a setting before what lies there; where they do not open it, which they were."""
    shelf.fill(ANN)
    strange = shelf.strange_keys()
    monkeypatch.setenv("COATCHECK_KEYS", strange)
    told = f"with the keys at {strange}: --keys {shelf.keys} takes those beside the store"
    for arguments, complaint in (
        (("list", "--reveal"), f"1 of 1 session does not open {told}"),
        (("show", "--user", ANN), f"there is no session of this user that opens: 1 does not {told}"),
        (("clear", "--user", ANN), f"there is no session of this user that opens: 1 does not {told}"),
    ):
        ended = shelf.call("sessions", *arguments)
        assert (1, f"coatcheck: {complaint}\n") == (ended.code, ended.err)

    monkeypatch.setenv("COATCHECK_KEYS", str(shelf.keys))
    ended = shelf.call("sessions", "list", "--reveal", "--keys", strange)
    assert (1, "coatcheck: 1 of 1 session does not open with these keys\n") == (ended.code, ended.err)
    assert ANN in shelf.call("sessions", "list", "--reveal", revealed=True).out

    nowhere = str(shelf.path.with_name("none"))
    monkeypatch.setenv("COATCHECK_KEYS", nowhere)
    ended = shelf.call("sessions", "list", "--reveal")
    assert (
        1,
        f"there is no file of keys at {nowhere}: --keys {shelf.keys} takes those beside the store",
    ) == (ended.code, ended.complaint)


def test_keys_in_the_environment_come_before_those_beside_the_store_and_it_says_so(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are named, as a file by a setting is: after an option, before what lies there."""
    shelf.fill(ANN)
    strange = Path(shelf.strange_keys())
    monkeypatch.setenv("COATCHECK_KEYS_TEXT", strange.read_text())
    told = f"with the keys in COATCHECK_KEYS_TEXT: --keys {shelf.keys} takes those beside the store"
    for command, complaint in (
        (("sessions", "list", "--reveal"), f"1 of 1 session does not open {told}"),
        (
            ("sessions", "clear", "--user", ANN),
            f"there is no session of this user that opens: 1 does not {told}",
        ),
        (("store", "check"), f"2 of 2 entries do not open {told}"),
    ):
        ended = shelf.call(*command)
        assert (1, f"coatcheck: {complaint}\n") == (ended.code, ended.err)
    assert ANN in shelf.call("sessions", "list", "--reveal", "--keys", str(shelf.keys), revealed=True).out

    # What follows needs no file of keys at all.
    monkeypatch.setenv("COATCHECK_KEYS_TEXT", shelf.keys.read_text())
    shelf.keys.rename(shelf.path.with_name("kept-keys"))
    assert ANN in shelf.call("sessions", "list", "--reveal", revealed=True).out
    assert VALUE in shelf.call("sessions", "show", "--user", ANN, "--reveal", revealed=True).out
    assert (0, "") == (shelf.call("store", "check").code, shelf.call("store", "check").err)
    monkeypatch.setenv("COATCHECK_KEYS_TEXT", strange.read_text())
    told = "with the keys in COATCHECK_KEYS_TEXT"
    assert f"coatcheck: 2 of 2 entries do not open {told}\n" == shelf.call("store", "check").err


@pytest.mark.parametrize("command", [("sessions", "list", "--reveal"), ("store", "check")])
def test_a_store_whose_path_has_no_name_is_refused_in_one_line(
    coatcheck: Coatcheck, command: tuple[str, ...]
) -> None:
    """There is no name to look for keys by."""
    ended = coatcheck(*command, "--store", "/")
    assert (1, "there ") == (ended.code, ended.complaint[:6])


def test_list_needs_no_keys(shelf: Shelf) -> None:
    shelf.fill(ANN)
    shelf.keys.unlink()
    assert 1 == len(listed(shelf))


@pytest.mark.parametrize(
    "arguments", [("list",), ("show", "0" * 16), ("clear", "0" * 16), ("clear", "--all")]
)
def test_keys_that_are_named_must_be_usable_also_where_none_are_needed(
    shelf: Shelf, arguments: tuple[str, ...]
) -> None:
    """Who gives a key for a path learns of it at once; and a path that is misspelt is not taken for one that helped."""
    shelf.fill(ANN)
    key = f"{TAG}{'c4' * 32}"
    ended = shelf.call("sessions", *arguments, "--keys", key)
    assert (1, "this takes the path of a file of keys, not a key") == (ended.code, ended.complaint)
    nowhere = str(shelf.path.with_name("none"))
    ended = shelf.call("sessions", *arguments, "--keys", nowhere)
    assert 1 == ended.code
    assert ended.complaint.startswith(f"there is no file of keys at {nowhere}: ")
    assert 2 == shelf.held(ANN)


@pytest.mark.parametrize(
    "arguments", [("list", "--reveal"), ("show", "--user", ANN), ("clear", "--user", ANN)]
)
def test_where_keys_are_needed_and_there_are_none_it_says_so(
    shelf: Shelf, arguments: tuple[str, ...]
) -> None:
    shelf.fill(ANN)
    shelf.keys.unlink()
    nowhere = str(shelf.path.with_name("none"))
    ended = shelf.call("sessions", *arguments, "--keys", nowhere)
    assert (1, f"there is no file of keys at {nowhere}: --keys names the one of this store") == (
        ended.code,
        ended.complaint,
    )
    assert 1 == len(listed(shelf))


@pytest.mark.parametrize("arguments", [("show", "--user", ANN), ("clear", "--user", ANN)])
def test_where_the_keys_beside_a_store_are_lost_it_is_those_that_are_missed(
    shelf: Shelf, arguments: tuple[str, ...]
) -> None:
    """The default ones have nothing to do with a store that is named, unless they are there."""
    shelf.fill(ANN)
    shelf.keys.unlink()
    assert not default_keys().exists()
    ended = shelf.call("sessions", *arguments)
    assert (1, f"there is no file of keys at {shelf.keys}: --keys names the one of this store") == (
        ended.code,
        ended.complaint,
    )
    KeyRing.drawn().write(default_keys())
    ended = shelf.call("sessions", *arguments)
    assert ended.complaint.endswith(f" with the keys at {default_keys()}")


def test_it_works_while_a_program_has_the_store_open(shelf: Shelf) -> None:
    shelf.fill(ANN)
    with shelf.in_use():
        (only,) = listed(shelf)
        ended = shelf.call("sessions", "show", only["pseudonym"])
        assert (0, "") == (ended.code, ended.err)
        assert "zones(account)" in ended.out


def test_the_store_and_the_keys_are_those_of_the_settings(
    shelf: Shelf, coatcheck: Coatcheck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.fill(ANN)
    mine = tmp_path / "mine.toml"
    mine.write_text(f"store = '{shelf.path}'\nkeys = '{shelf.keys}'")
    ended = coatcheck("sessions", "list", "--reveal", "--config", str(mine))
    assert ANN in ended.out

    monkeypatch.setenv("COATCHECK_STORE", str(shelf.path))
    monkeypatch.setenv("COATCHECK_KEYS", str(shelf.keys))
    assert ANN in coatcheck("sessions", "list", "--reveal").out

    monkeypatch.setenv("COATCHECK_STORE", "memory")
    ended = coatcheck("sessions", "list")
    assert (2, "the settings keep sessions in memory alone: --store names a file") == (
        ended.code,
        ended.complaint,
    )


def test_without_a_setting_it_is_the_default_place(coatcheck: Coatcheck) -> None:
    path = Settings().store_file()
    assert path is not None
    ended = coatcheck("sessions", "list")
    assert (1, f"there is no store at {path}") == (ended.code, ended.complaint)

    async def make() -> None:
        store = session_store(Settings())
        assert store is not None
        await store.aclose()

    asyncio.run(make())
    ended = coatcheck("sessions", "list", "--json")
    assert (0, '{"sessions":[]}\n') == (ended.code, ended.out)
    assert 1 == len(coatcheck("sessions", "list").out.splitlines())


# -- show -----------------------------------------------------------------------------------------------------------


def test_show_tells_resources_ages_and_sizes(shelf: Shelf) -> None:
    shelf.fill(ANN, age=20 * 60)
    pseudonym = pseudonym_of(shelf, ANN)
    ended = shelf.call("sessions", "show", pseudonym)
    title, heading, *entries = ended.out.splitlines()
    assert (0, "") == (ended.code, ended.err)
    assert title.startswith(f"{pseudonym}  opened 20 min ago, 2 entries, ")
    assert ["age", "kept", "for", "bytes", "resource"] == heading.split()
    shown = {line.split()[-1]: " ".join(line.split()[:4]) for line in entries}
    assert {"zones(account)": "20 min 47 h", "plan()": "20 min 39 min"} == shown


def test_one_entry_is_called_one(shelf: Shelf) -> None:
    shelf.fill(ANN)
    with sqlite3.connect(shelf.path) as connection:
        connection.execute("DELETE FROM entries WHERE sealed = (SELECT min(sealed) FROM entries)")
    connection.close()
    pseudonym = pseudonym_of(shelf, ANN)
    assert ", 1 entry, " in shelf.call("sessions", "show", pseudonym).out
    ended = shelf.call("sessions", "show", pseudonym, "--keys", shelf.strange_keys())
    assert ended.err == "coatcheck: 1 of 1 entry does not open with these keys\n"


def test_show_as_json(shelf: Shelf) -> None:
    shelf.fill(ANN, age=20 * 60)
    ended = shelf.call("sessions", "show", "--user", ANN, "--json")
    (session,) = json.loads(ended.out)["sessions"]
    assert {"pseudonym", "opened_age", "cleared", "entries"} == session.keys()
    assert session["cleared"] is False
    assert all({"resource", "age", "kept_for", "bytes"} == each.keys() for each in session["entries"])
    by_name = {each["resource"]: each for each in session["entries"]}
    assert {"zones(account)", "plan()"} == by_name.keys()
    assert 40 * 60 == pytest.approx(by_name["plan()"]["kept_for"], abs=60)
    assert 20 * 60 == pytest.approx(by_name["plan()"]["age"], abs=60)


def test_show_without_keys_tells_what_is_visible(shelf: Shelf) -> None:
    shelf.fill(ANN)
    pseudonym = pseudonym_of(shelf, ANN)
    shelf.keys.unlink()
    ended = shelf.call("sessions", "show", pseudonym, "--json")
    assert (0, "") == (ended.code, ended.err)
    (session,) = json.loads(ended.out)["sessions"]
    assert [None, None] == [each["resource"] for each in session["entries"]]
    ended = shelf.call("sessions", "show", pseudonym)
    assert ["?", "?"] == [line.split()[-1] for line in ended.out.splitlines()[2:]]


def test_show_reveals_user_arguments_and_values_when_that_is_asked_for(shelf: Shelf) -> None:
    shelf.fill(ANN)
    ended = shelf.call("sessions", "show", "--user", ANN, "--reveal", "--json", revealed=True)
    (session,) = json.loads(ended.out)["sessions"]
    assert ("shop", ANN) == (session["catalog"], session["user"])
    shown = {each["key"]: (each["value"], each["authority"]) for each in session["entries"]}
    assert {
        f'zones(account="{ARGUMENT}")': ([VALUE, ANN], AUTHORITY),
        "plan": (f"{VALUE} of {ANN}", AUTHORITY),
    } == shown
    ended = shelf.call("sessions", "show", "--user", ANN, "--reveal", revealed=True)
    assert f"catalog shop, user {ANN}\n" in ended.out
    assert f'["{VALUE}","{ANN}"]\n' in ended.out


def test_show_of_an_entry_whose_time_has_come_says_so(shelf: Shelf) -> None:
    shelf.fill(ANN, age=2 * HOUR)
    ended = shelf.call("sessions", "show", "--user", ANN)
    assert {"plan()": "expired", "zones(account)": "45 h"} == {
        line.split()[-1]: "expired" if "expired" in line else " ".join(line.split()[2:4])
        for line in ended.out.splitlines()[2:]
    }


def test_show_with_other_keys_says_that_they_do_not_open_it(shelf: Shelf) -> None:
    shelf.fill(ANN)
    pseudonym, strange = pseudonym_of(shelf, ANN), shelf.strange_keys()
    ended = shelf.call("sessions", "show", pseudonym, "--reveal", "--keys", strange)
    assert (1, "coatcheck: 2 of 2 entries do not open with these keys\n") == (ended.code, ended.err)
    assert 4 == len(ended.out.splitlines())
    ended = shelf.call("sessions", "show", "--user", ANN, "--keys", strange)
    assert (1, "there is no session of this user that opens: 1 does not with these keys") == (
        ended.code,
        ended.complaint,
    )


def test_one_session_is_shown_and_no_other(shelf: Shelf) -> None:
    shelf.fill(ANN, BOB)
    for user in (ANN, BOB):
        ended = shelf.call("sessions", "show", pseudonym_of(shelf, user).upper(), "--reveal", revealed=True)
        assert user in ended.out
        assert ({ANN, BOB} - {user}).pop() not in ended.out


@pytest.mark.parametrize("arguments", [("show", "0" * 16), ("clear", "0" * 16), ("show", "--user", "nobody")])
def test_what_is_not_there_is_said_in_one_line(shelf: Shelf, arguments: tuple[str, ...]) -> None:
    shelf.fill(ANN)
    ended = shelf.call("sessions", *arguments)
    assert 1 == ended.code
    assert ended.complaint.startswith("there is no ")
    assert "nobody" not in ended.complaint


# -- what is cleared and still there --------------------------------------------------------------------------------


def test_a_session_that_is_cleared_in_vain_is_listed_as_such(shelf: Shelf) -> None:
    shelf.fill(ANN, BOB)
    cleared = pseudonym_of(shelf, ANN)
    shelf.clear_in_vain(ANN)
    assert {True: cleared, False: pseudonym_of(shelf, BOB)} == {
        each["cleared"]: each["pseudonym"] for each in listed(shelf)
    }
    for reveal in (["--reveal"], []):
        ended = shelf.call("sessions", "list", *reveal, revealed=bool(reveal))
        assert (0, "") == (ended.code, ended.err)
        marked = [line for line in ended.out.splitlines() if line.endswith("  cleared, not yet removed")]
        assert [cleared] == [line.split()[0] for line in marked]


def test_so_are_all_that_are_cleared_at_once(shelf: Shelf) -> None:
    shelf.fill(ANN, BOB)
    shelf.clear_in_vain(None)
    assert [True, True] == [each["cleared"] for each in listed(shelf)]


@pytest.mark.parametrize("user", [ANN, None], ids=["one", "everybody"])
@pytest.mark.parametrize("reveal", [[], ["--reveal"]], ids=["plain", "revealed"])
def test_nothing_is_shown_of_a_session_that_is_cleared(
    shelf: Shelf, user: str | None, reveal: list[str]
) -> None:
    shelf.fill(ANN)
    pseudonym = pseudonym_of(shelf, ANN)
    shelf.clear_in_vain(user)
    for which in ([pseudonym], ["--user", ANN]):
        # Not even whose it was.
        ended = shelf.call("sessions", "show", *which, *reveal)
        assert (0, f"{pseudonym}  cleared, not yet removed\n", "") == (ended.code, ended.out, ended.err)
        ended = shelf.call("sessions", "show", *which, *reveal, "--json")
        (shown,) = json.loads(ended.out)["sessions"]
        assert (0, pseudonym, True, []) == (
            ended.code,
            shown["pseudonym"],
            shown["cleared"],
            shown["entries"],
        )


def test_who_clears_it_once_more_removes_it(shelf: Shelf) -> None:
    shelf.fill(ANN, BOB)
    shelf.clear_in_vain(ANN)
    assert 0 == shelf.call("sessions", "clear", "--user", ANN).code
    assert [False] == [each["cleared"] for each in listed(shelf)]
    shelf.fill(ANN)
    assert [False, False] == [each["cleared"] for each in listed(shelf)]


@pytest.mark.parametrize(
    "command", [("sessions", "list"), ("sessions", "show", "0" * 16), ("store", "check")]
)
def test_what_is_cleared_must_be_known(shelf: Shelf, command: tuple[str, ...]) -> None:
    """Or what is would be shown."""
    shelf.fill(ANN)
    clears = shelf.path.with_name(f"{shelf.path.name}.clears")
    clears.write_text("what somebody wrote")
    ended = shelf.call(*command)
    told = f"what is cleared cannot be read from {clears}: it is not a store's"
    assert (1, f"{told}; it belongs to the store's file: delete both or none") == (
        ended.code,
        ended.complaint,
    )
    clears.unlink()
    assert "there is no such session" in shelf.call("sessions", "show", "0" * 16).err
    assert not clears.exists()


# -- clear ----------------------------------------------------------------------------------------------------------


def test_clear_ends_a_session_for_good(shelf: Shelf) -> None:
    shelf.fill(ANN, BOB)
    with sqlite3.connect(shelf.path) as connection:
        [before] = connection.execute("SELECT salt FROM salts ORDER BY slot LIMIT 1").fetchone()
    connection.close()
    assert before in shelf.on_disk()

    ended = shelf.call("sessions", "clear", pseudonym_of(shelf, ANN))
    assert (0, "cleared 1 session\n", "") == (ended.code, ended.out, ended.err)
    assert before not in shelf.on_disk()
    assert [pseudonym_of(shelf, BOB)] == [each["pseudonym"] for each in listed(shelf)]
    assert 0 == shelf.held(ANN)
    assert 2 == shelf.held(BOB)


def test_clear_of_a_user_is_no_other_users(shelf: Shelf) -> None:
    shelf.fill(ANN, BOB, ANN.upper())
    ended = shelf.call("sessions", "clear", "--user", ANN)
    assert (0, "cleared 1 session\n") == (ended.code, ended.out)
    assert (0, 2, 2) == (shelf.held(ANN), shelf.held(BOB), shelf.held(ANN.upper()))


def test_clear_of_a_user_who_has_nothing_may_be_repeated(shelf: Shelf) -> None:
    shelf.fill(BOB)
    for _ in range(2):
        ended = shelf.call("sessions", "clear", "--user", ANN)
        assert (0, "cleared 0 sessions\n") == (ended.code, ended.out)
    assert 2 == shelf.held(BOB)


def test_clear_of_a_user_with_other_keys_does_not_say_that_it_is_done(shelf: Shelf) -> None:
    shelf.fill(ANN)
    ended = shelf.call("sessions", "clear", "--user", ANN, "--keys", shelf.strange_keys())
    assert (1, "there is no session of this user that opens: 1 does not with these keys") == (
        ended.code,
        ended.complaint,
    )
    assert 2 == shelf.held(ANN)


def test_clear_all_needs_no_keys(shelf: Shelf) -> None:
    shelf.fill(ANN, BOB)
    kept = shelf.keys.read_text()
    shelf.keys.unlink()
    ended = shelf.call("sessions", "clear", "--all")
    assert (0, "cleared 2 sessions\n") == (ended.code, ended.out)
    assert [] == listed(shelf)
    assert not shelf.keys.exists()
    shelf.keys.write_text(kept)
    shelf.keys.chmod(0o600)
    assert 0 == shelf.held(ANN)


@pytest.mark.parametrize("which", [("--all",), ("--user", ANN), ("pseudonym",)])
def test_clear_is_refused_while_a_program_has_the_store_open(shelf: Shelf, which: tuple[str, ...]) -> None:
    shelf.fill(ANN, BOB)
    arguments = (pseudonym_of(shelf, ANN),) if which == ("pseudonym",) else which
    with shelf.in_use():
        ended = shelf.call("sessions", "clear", *arguments)
        assert (
            1,
            f"the store at {shelf.path} is open in a program: that program must clear it, or end first",
        ) == (ended.code, ended.complaint)
        assert 2 == len(listed(shelf))
    assert 0 == shelf.call("sessions", "clear", *arguments).code
    assert 0 == shelf.held(ANN)


def test_clear_says_so_when_a_reader_keeps_the_log(shelf: Shelf) -> None:
    shelf.fill(ANN, BOB)
    reader = sqlite3.connect(shelf.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM entries").fetchall()
    ended = shelf.call("sessions", "clear", "--all")
    reader.close()
    told = f"another program reads the store at {shelf.path} and keeps its log from being emptied: try again"
    assert (1, told) == (ended.code, ended.complaint)
    ended = shelf.call("sessions", "clear", "--all")
    assert (0, "cleared 0 sessions\n") == (ended.code, ended.out)
    assert not shelf.path.with_name("sessions.sqlite-wal").exists()


# -- all of them ----------------------------------------------------------------------------------------------------


COMMANDS = (
    ("sessions", "list"),
    ("sessions", "show", "0" * 16),
    ("sessions", "show", "--user", ANN),
    ("sessions", "clear", "0" * 16),
    ("sessions", "clear", "--all"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_store_is_one_line_and_nothing_is_made(shelf: Shelf, command: tuple[str, ...]) -> None:
    shelf.path.parent.mkdir()
    keys = shelf.strange_keys()
    ended = shelf.call(*command, "--keys", keys)
    assert (1, f"there is no store at {shelf.path}") == (ended.code, ended.complaint)
    assert [Path(keys)] == list(shelf.path.parent.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_store_is_one_line_and_stays_as_it_is(shelf: Shelf, command: tuple[str, ...]) -> None:
    shelf.fill(ANN)
    shelf.damage()
    before = shelf.path.read_bytes()
    ended = shelf.call(*command)
    assert (1, damage_at(shelf.path)) == (ended.code, ended.complaint)
    assert str(shelf.path) in ended.complaint
    assert before == shelf.path.read_bytes()
    assert not list(shelf.path.parent.glob("*corrupt*"))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_database_of_another_program_is_left_alone(shelf: Shelf, command: tuple[str, ...]) -> None:
    shelf.fill(ANN)
    shelf.path.unlink()
    with sqlite3.connect(shelf.path) as connection:
        connection.execute("CREATE TABLE sessions (session, owner)")
    connection.close()
    before = shelf.path.read_bytes()
    ended = shelf.call(*command)
    assert (
        1,
        f"what is at {shelf.path} is the database of another program, not a store of coatcheck: choose another path",
    ) == (ended.code, ended.complaint)
    assert before == shelf.path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["show"], "this takes a pseudonym or --user"),
        (["show", "0" * 16, "--user", ANN], "this takes only one of a pseudonym or --user"),
        (["show", "0123"], "a pseudonym has 16 hexadecimal digits"),
        (["clear"], "this takes a pseudonym, --user or --all"),
        (["clear", "--all", "--user", ANN], "this takes only one of a pseudonym, --user or --all"),
        (["clear", ANN], "a pseudonym has 16 hexadecimal digits"),
        (["clear", "0" * 16, "1" * 16], "Unused Tokens"),
        (["lose"], "Unknown command lose"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(coatcheck: Coatcheck, arguments: list[str], part: str) -> None:
    ended = coatcheck("sessions", *arguments)
    assert 2 == ended.code
    assert part in ended.complaint.replace('"', "")
    assert ANN not in ended.complaint
