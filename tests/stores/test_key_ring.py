"""A ring of keys: the first seals, all open; in a file that nobody else may read, made once however many ask."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.errors import CoatcheckError, KeysUnusable
from coatcheck.stores import key_ring
from coatcheck.stores.key_ring import TAG, Key, KeyRing, is_key, without_keys

SECRET = b"CANARY" + b"s" * 26
OTHER = bytes(range(32))
RACERS, PLACES = 3, 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def private(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(ask: Callable[[], object]) -> str:
    """Return how it is refused: in one line that neither shows a secret nor hangs on an exception that does."""
    with pytest.raises(KeysUnusable) as caught:
        ask()
    error: BaseException = caught.value
    assert isinstance(error, CoatcheckError)
    assert error.__cause__ is None
    assert error.__context__ is None
    for secret in (SECRET.hex(), "CANARY", OTHER.hex()):
        assert secret not in repr(error)
    (line,) = str(error).splitlines()
    return line


def test_the_id_follows_from_the_secret_and_does_not_tell_it() -> None:
    assert Key(SECRET).id == Key(SECRET).id
    assert len({Key(bytes([number]) * 32).id for number in range(200)}) == 200
    assert re.fullmatch("[0-9a-f]{8}", Key(SECRET).id)
    # Other ids would make what is stored unreadable.
    assert "890fd405" == Key(OTHER).id


def test_keys_and_rings_show_their_ids_only() -> None:
    ring = KeyRing([Key(SECRET), Key(OTHER)])
    ids = [key.id for key in ring.keys]
    assert f"<key {ids[0]}>" == repr(ring.keys[0]) == str(ring.keys[0])
    assert f"<keyring {ids[0]} {ids[1]}>" == repr(ring)


def test_rings_of_the_same_keys_in_the_same_order_are_equal() -> None:
    one, other = Key(SECRET), Key(OTHER)
    assert KeyRing([one, other]) == KeyRing((Key(SECRET), Key(OTHER))) != KeyRing([other, one])
    assert hash(KeyRing([one])) == hash(KeyRing([Key(SECRET)]))
    assert one != other
    assert one != SECRET
    assert KeyRing([one]) != [one]


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_key_has_32_bytes(length: int) -> None:
    assert "a key has 32 bytes" == refusal(lambda: Key(b"s" * length))


def test_a_ring_has_at_least_one_key_and_each_once() -> None:
    assert "a key ring needs at least one key" == refusal(lambda: KeyRing([]))
    assert "a key ring has a key twice" == refusal(lambda: KeyRing([Key(SECRET), Key(OTHER), Key(SECRET)]))


def test_no_ring_is_drawn_twice() -> None:
    assert 100 == len({KeyRing.drawn() for _ in range(100)})


def test_rotation_puts_a_new_key_first_and_keeps_so_many_in_all() -> None:
    one = KeyRing.drawn()
    two = one.rotated()
    three = two.rotated()
    assert one.keys == two.keys[1:]
    assert two.keys[:1] == three.keys[1:]
    assert two.keys == two.rotated(keep=3).keys[1:]
    assert 1 == len(two.rotated(keep=1).keys)
    assert one.keys[0] not in two.rotated(keep=1).keys
    for keep in (0, -1):
        with pytest.raises(ValueError, match="at least one key"):
            one.rotated(keep=keep)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=4, unique=True))
def test_a_ring_is_read_as_it_was_written(secrets: list[bytes]) -> None:
    ring = KeyRing(map(Key, secrets))
    assert ring == KeyRing.from_text(ring.text())


def test_its_text_begins_with_what_it_is() -> None:
    first, *lines = KeyRing([Key(SECRET), Key(OTHER)]).text().splitlines()
    assert first.startswith("# Keys of coatcheck")
    assert [f"coatcheck-key-1:{SECRET.hex()}", f"coatcheck-key-1:{OTHER.hex()}"] == lines


@pytest.mark.parametrize(
    "text",
    [
        f"{TAG}{SECRET.hex()}\n{TAG}{OTHER.hex()}",
        f"\r\n{TAG}{SECRET.hex()}\r\n# old\r\n\r\n{TAG}{OTHER.hex()}\r\n",
        f"  {TAG}{SECRET.hex().upper()} {TAG}{OTHER.hex()} # {TAG}",
    ],
)
def test_blanks_and_comments_are_passed_over(text: str) -> None:
    assert KeyRing([Key(SECRET), Key(OTHER)]) == KeyRing.from_text(text)


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", f"\n#{TAG}{SECRET.hex()}"])
def test_a_text_without_a_key_is_refused(text: str) -> None:
    assert "the keys cannot be used: there is no key" == refusal(lambda: KeyRing.from_text(text))


def test_a_variable_that_is_not_set_is_no_text() -> None:
    """As `os.environ.get` tells of it."""
    text: Any = None
    assert "there is no text with keys in it, but a NoneType" == refusal(lambda: KeyRing.from_text(text))
    text = TAG.encode() + b"c4" * 32
    assert "there is no text with keys in it, but a bytes" == refusal(lambda: KeyRing.from_text(text))


@pytest.mark.parametrize("before", ["", f"{TAG}{OTHER.hex()} "])
def test_a_key_behind_a_comment_in_the_same_line_is_not_left_out_without_a_word(
    before: str, path: Path
) -> None:
    """As where the lines of a file were made one. In a file, or with lines, it is a key that somebody wants out."""
    line = f"{before}# Keys {TAG}{SECRET.hex()}"
    told = "the keys are in one line, and one of them is behind a #, where all is a comment: leave out the comment"
    assert told == refusal(lambda: KeyRing.from_text(f"{line}\n"))
    if before:
        assert (
            KeyRing([Key(OTHER)]) == KeyRing.from_text(f"# Keys\n{line}") == KeyRing.read(private(path, line))
        )


@pytest.mark.parametrize(
    "line",
    [
        SECRET.hex(),
        f"coatcheck-key-2:{SECRET.hex()}",
        f"{TAG}{SECRET.hex()}0",
        f"{TAG}{SECRET.hex()[1:]}",
        f"{TAG} {SECRET.hex()}",
        f"{TAG}{SECRET.hex()[1:]}g",
        f"{TAG}{SECRET.hex()[1:]}٣",
        f"{TAG}{SECRET.hex()}{TAG}{OTHER.hex()}",
        "CANARY",
    ],
)
def test_what_is_no_key_is_refused_by_its_line(line: str) -> None:
    text = f"# keys\n{TAG}{OTHER.hex()}\n{line}\n"
    assert f"line 3 of the keys is no key: {TAG} and 64 hexadecimal digits" == refusal(
        lambda: KeyRing.from_text(text)
    )


@pytest.mark.parametrize(
    "path",
    [
        f"{TAG}{SECRET.hex()}",
        f"/srv/{TAG}",
        SECRET.hex(),
        f" {SECRET.hex().upper()}\n",
        f"/srv/{SECRET.hex()}",
        f'"{SECRET.hex()}"',
        f"SHOP_KEYS={SECRET.hex()}",
        f"{SECRET.hex()},{OTHER.hex()}",
        f"# Keys\n{TAG}{SECRET.hex()}\n",
    ],
)
def test_a_key_is_told_from_a_path(path: str) -> None:
    assert is_key(path)
    assert is_key(Path(path))


@pytest.mark.parametrize(
    "path", ["/srv/keys", "coatcheck-key-1", f"/srv/{SECRET.hex()}/keys", f"{SECRET.hex()}.sqlite"]
)
def test_a_path_is_none_though_a_folder_be_called_like_a_key(path: str) -> None:
    assert not is_key(path)
    assert f"there is no {path}." == without_keys(f"there is no {path}.")


@pytest.mark.parametrize("path", [f"/srv/keys-{SECRET.hex()}", f"{SECRET.hex()}-keys"])
def test_a_name_that_is_made_of_a_digest_and_more_is_a_path(path: str) -> None:
    assert not is_key(path)


@pytest.mark.parametrize("tag", [TAG, TAG.upper(), ""])
def test_a_key_is_taken_out_of_a_message(tag: str) -> None:
    key = f"{tag}{SECRET.hex()}"
    for quoted in (key, f"--{key}", f"'{key}'", f'"{key}"', f"['{key}', '{key}']"):
        assert f"unknown: {quoted.replace(key, '…')}" == without_keys(f"unknown: {quoted}")


def test_a_ring_is_written_where_nobody_else_may_read(path: Path, tmp_path: Path) -> None:
    ring, place = KeyRing.drawn().rotated(), tmp_path / "a" / "folder" / "keys"
    before = os.umask(0)
    try:
        ring.write(place)
        ring.write(str(path))
    finally:
        os.umask(before)
    assert ring == KeyRing.read(place) == KeyRing.read(str(path))
    assert (0o600, 0o600, 0o700) == (mode(place), mode(path), mode(place.parent))
    assert ["keys"] == names(place.parent)


def test_writing_replaces_and_new_does_not(path: Path) -> None:
    old, new = KeyRing.drawn(), KeyRing.drawn()
    old.write(path, new=True)
    assert f"there is something at {path} already; it stays as it is" == refusal(
        lambda: new.write(path, new=True)
    )
    assert old == KeyRing.read(path)
    new.write(path)
    assert new == KeyRing.read(path)
    assert ["keys"] == names(path.parent)


def test_what_a_link_points_to_is_replaced_and_not_the_link(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    ring = KeyRing.at(path)
    assert ring == KeyRing.read(tmp_path / "elsewhere")
    ring.rotated().write(path)
    assert path.is_symlink()
    assert 2 == len(KeyRing.read(path).keys)


def test_a_file_is_old_or_new_but_never_half(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full, or a crash, leaves what was there, and nothing else."""
    old = KeyRing.drawn()
    old.write(path)

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert f"the file of keys {path} cannot be written (No space left on device)" == refusal(
        lambda: KeyRing.drawn().write(path)
    )
    assert old == KeyRing.read(path)
    assert ["keys"] == names(path.parent)


def test_it_is_on_the_disk_before_it_is_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, link = os.fsync, os.link

    def synced(file: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        fsync(file)

    def linked(draft: Path, goal: Path) -> None:
        done.append("link")
        link(draft, goal)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    KeyRing.at(path)
    assert ["file", "link", "folder"] == done


@pytest.mark.parametrize("allowed", [0o600, 0o400])
def test_a_file_of_ones_own_is_read(path: Path, allowed: int) -> None:
    assert KeyRing([Key(SECRET)]) == KeyRing.read(private(path, KeyRing([Key(SECRET)]).text(), allowed))


@pytest.mark.parametrize("open_to", [0o644, 0o640, 0o604, 0o660, 0o602, 0o620, 0o610, 0o601, 0o700, 0o4600])
@pytest.mark.parametrize("ask", [KeyRing.read, KeyRing.at])
def test_a_file_that_others_may_use_is_refused(
    path: Path, open_to: int, ask: Callable[[Path], KeyRing]
) -> None:
    private(path, KeyRing([Key(SECRET)]).text(), open_to)
    assert (
        f"the file of keys {path} is open to others (mode {open_to:04o}): make its mode 0600, and rotate the keys"
        == refusal(lambda: ask(path))
    )
    assert open_to == mode(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "cannot be used: there is no key"),
        (b"\xff\xfe\0CANARY", "is no key"),
        (b"\0" * 100, "is no key"),
        (b"#" * 70_000, "is too large"),
        (f"{TAG}{SECRET.hex()}\n".encode() * 2, "a key ring has a key twice"),
    ],
)
def test_a_file_of_something_else_is_refused(path: Path, content: bytes, problem: str) -> None:
    assert problem in refusal(lambda: KeyRing.read(private(path, content)))
    assert content == path.read_bytes()


def test_a_file_that_is_not_there_is_refused_with_what_makes_one(path: Path) -> None:
    assert f"there is no file of keys at {path}; `coatcheck keys new --keys {path}` makes one" == refusal(
        lambda: KeyRing.read(path)
    )


@pytest.mark.parametrize("ask", [KeyRing.read, KeyRing.at])
def test_what_is_no_file_is_refused(tmp_path: Path, ask: Callable[[Path], KeyRing]) -> None:
    assert refusal(lambda: ask(tmp_path)).endswith("is no file")
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert refusal(lambda: ask(tmp_path / "pipe")).endswith("is no file")
    beneath = private(tmp_path / "file", "") / "keys"
    assert refusal(lambda: ask(beneath)).endswith("cannot be read (Not a directory)")
    assert refusal(lambda: ask(Path("a\0b"))).endswith("cannot be read (no usable path)")


def test_where_no_folder_can_be_made_it_says_so(tmp_path: Path) -> None:
    beneath = private(tmp_path / "file", "") / "folder" / "keys"
    assert re.search(
        r"the folder of the keys .* cannot be made \(Not a directory\)$",
        refusal(lambda: KeyRing.drawn().write(beneath)),
    )
    assert "cannot be written" in refusal(lambda: KeyRing.drawn().write(tmp_path))


@pytest.mark.parametrize("ask", [KeyRing.read, KeyRing.at, KeyRing.drawn().write])
def test_a_key_where_a_path_should_be_is_not_shown(
    ask: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "this takes the path of a file of keys, not a key" == refusal(lambda: ask(f"{TAG}{SECRET.hex()}"))
    assert [] == names(tmp_path)


def test_the_first_use_makes_a_ring_and_says_once_where(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ring = KeyRing.at(path)
    assert ring == KeyRing.at(path) == KeyRing.at(str(path)) == KeyRing.read(path)
    assert 1 == len(ring.keys)
    (record,) = caplog.records
    assert (logging.WARNING, "coatcheck.stores") == (record.levelno, record.name)
    told = f"made new keys in {path}: keep them, nobody can read without them what they seal"
    assert told == record.getMessage()
    assert 1 == len(record.getMessage().splitlines())
    assert ring.keys[0].secret.hex() not in repr(vars(record))
    assert (0o600, ["keys"]) == (mode(path), names(path.parent))


def overtaken(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[KeyRing, KeyRing]:
    """Let another process write its ring when ours is about to; return both."""
    theirs, write = KeyRing.drawn(), key_ring._write_private

    def late(draft: Path, text: str) -> None:
        write(draft, text)
        private(path, theirs.text())

    monkeypatch.setattr(key_ring, "_write_private", late)
    return KeyRing.at(path), theirs


def test_who_comes_second_takes_what_the_first_has_written(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = overtaken(path, monkeypatch)
    assert ours == theirs == KeyRing.read(path)
    assert [] == caplog.records
    assert ["keys"] == names(path.parent)


def test_a_mutant_that_renames_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename takes the place of what another has written: one of the two then seals with keys that are gone."""
    monkeypatch.setattr(os, "link", os.replace)
    ours, theirs = overtaken(path, monkeypatch)
    assert ours != theirs


def test_processes_that_race_agree(tmp_path: Path) -> None:
    script = (
        "import json, logging, sys\n"
        "from coatcheck.stores.key_ring import KeyRing\n"
        "logging.basicConfig(stream=sys.stderr, format='%(message)s')\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        f"print(json.dumps([KeyRing.at(f'{{sys.argv[1]}}/{{place}}/keys').keys[0].id for place in range({PLACES})]))\n"
    )
    pipe = subprocess.PIPE
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        for _ in range(RACERS)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert "ready\n" == racer.stdout.readline()
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    ended = [racer.communicate() for racer in racers]
    assert [0] * RACERS == [racer.returncode for racer in racers]

    found = [json.loads(out) for out, _ in ended]
    places = [tmp_path / str(place) / "keys" for place in range(PLACES)]
    assert [[KeyRing.read(place).keys[0].id for place in places]] * RACERS == found
    assert PLACES == len(set(found[0]))
    assert {("keys",)} == {tuple(names(place.parent)) for place in places}
    # Each place is told of by the one process that made it.
    told = [line for _, err in ended for line in err.splitlines()]
    assert PLACES == len(told)
    assert all(any(f"{place}:" in line for line in told) for place in places)
