"""``coatcheck keys``: what it makes, lists and rotates, without showing a secret."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Coatcheck, Ended
from coatcheck.settings import Settings, default_keys
from coatcheck.stores.key_ring import NO_PATH, TAG, KeyRing

Keys = Callable[..., Ended]

COST = "sessions that began under it are fetched anew"


@pytest.fixture
def keys(coatcheck: Coatcheck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Call it, and look through what it shows for the secrets of all rings that are there."""
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))

    def call(*arguments: str) -> Ended:
        rings = [path.read_text() for path in tmp_path.rglob("keys*") if path.is_file()]
        ended = coatcheck("keys", *arguments)
        rings += [path.read_text() for path in tmp_path.rglob("keys*") if path.is_file()]
        for secret in re.findall(rf"{TAG}(\w+)", "\n".join(rings)):
            assert secret not in ended.out + ended.err
        assert TAG not in ended.out + ended.err
        assert "Traceback" not in ended.err
        return ended

    return call


def ids(path: Path) -> list[str]:
    return [key.id for key in KeyRing.read(path).keys]


def test_new_makes_a_file_of_one_key_where_no_setting_says_otherwise(keys: Keys, tmp_path: Path) -> None:
    ended = keys("new")
    path = default_keys()
    assert tmp_path / "home" in path.parents
    assert ("coatcheck", "keys") == path.parts[-2:]
    (only,) = ids(path)
    assert (0, f"made key {only} in {path}\n", "") == (ended.code, ended.out, ended.err)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert 0o700 == stat.S_IMODE(path.parent.stat().st_mode)


def test_new_leaves_what_is_there(keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keys("new", "--keys", str(path))
    before = path.read_text()
    ended = keys("new", "--keys", str(path))
    assert (1, f"there is something at {path} already; it stays as it is") == (ended.code, ended.complaint)
    assert before == path.read_text()


def test_list_says_which_key_seals(keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    KeyRing.drawn().rotated().rotated(keep=3).write(path)
    ended = keys("list", "--keys", str(path))
    first, second, third = ids(path)
    assert (0, f"{first}  seals and opens\n{second}  opens\n{third}  opens\n") == (ended.code, ended.out)


def test_rotate_adds_a_first_key_and_keeps_so_many(keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keys("new", "--keys", str(path))
    (one,) = ids(path)

    ended = keys("rotate", "--keys", str(path))
    two, *others = ids(path)
    assert [one] == others
    assert (0, f"{two}  new: seals and opens\n{one}  kept: opens\n") == (ended.code, ended.out)

    ended = keys("rotate", "--keys", str(path))
    three, *others = ids(path)
    assert [two] == others
    assert f"{three}  new: seals and opens\n{two}  kept: opens\n{one}  dropped: {COST}\n" == ended.out

    keys("rotate", "--keep", "9", "--keys", str(path))
    assert [three, two] == ids(path)[1:]

    ended = keys("rotate", "--keep", "1", "--keys", str(path))
    assert 1 == len(ids(path))
    assert 3 == ended.out.count("dropped")


def test_where_the_keys_are_is_a_setting(keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "coatcheck.toml").write_text("keys = 'keys-of-the-file'")
    keys("new")
    monkeypatch.setenv("COATCHECK_KEYS", str(tmp_path / "keys-of-the-environment"))
    keys("new")
    keys("new", "--keys", "keys-of-the-call")
    made = [ids(tmp_path / f"keys-of-the-{whom}") for whom in ("file", "environment", "call")]
    assert 3 == len({each for (each,) in made})
    assert f"{made[1][0]}  seals and opens\n" == keys("list").out
    assert not default_keys().exists()


def test_without_a_setting_they_are_where_the_users_settings_are(keys: Keys) -> None:
    assert default_keys() == Settings().keys_file()
    assert Path("elsewhere") == Settings(keys=Path("elsewhere")).keys_file()


@pytest.mark.parametrize("command", ["list", "rotate"])
def test_where_there_are_none_it_says_what_makes_some(keys: Keys, command: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    ended = keys(command, "--keys", str(path))
    assert (1, f"there is no file of keys at {path}; `coatcheck keys new --keys {path}` makes one") == (
        ended.code,
        ended.complaint,
    )
    assert not path.exists()


@pytest.mark.parametrize("command", ["list", "rotate"])
def test_keys_that_others_may_read_are_refused(keys: Keys, command: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    KeyRing.drawn().write(path)
    path.chmod(0o644)
    before = path.read_text()
    ended = keys(command, "--keys", str(path))
    assert 1 == ended.code
    assert "is open to others (mode 0644): make its mode 0600" in ended.complaint
    assert before == path.read_text()


def test_a_key_in_the_place_of_its_path_is_not_shown(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = KeyRing.drawn().keys[0].secret.hex()
    ended = keys("list", "--keys", f"coatcheck-key-1:{secret}")
    assert (1, "this takes the path of a file of keys, not a key") == (ended.code, ended.complaint)
    monkeypatch.setenv("COATCHECK_KEYS", f"coatcheck-key-1:{secret}")
    ended = keys("list")
    assert (
        2,
        "setting COATCHECK_KEYS: must be the path of a file of keys, not a key; COATCHECK_KEYS_TEXT takes keys",
    ) == (ended.code, ended.complaint)


@pytest.mark.parametrize(
    ("command", "code", "complaint"),
    [
        ("sessions list --store KEY", 2, f"--store: {NO_PATH}"),
        ("sessions clear --all --store KEY", 2, f"--store: {NO_PATH}"),
        ("store check --store KEY", 2, f"--store: {NO_PATH}"),
        ("sessions list --config KEY", 2, f"the file of settings: {NO_PATH}"),
        ("get zones_list --user ann --config KEY", 2, f"the file of settings: {NO_PATH}"),
        ("keys rotate --keys KEY", 1, "this takes the path of a file of keys, not a key"),
        ("store check --keys KEY --store x", 1, "this takes the path of a file of keys, not a key"),
        ("keys list KEY", 2, None),
        ("keys KEY", 2, None),
        ("KEY", 2, None),
        ("keys list --KEY", 2, None),
        ("keys rotate --keep KEY", 2, None),
        ("store KEY", 2, None),
    ],
)
@pytest.mark.parametrize("tag", [TAG, ""], ids=["a key", "what a key ends in"])
def test_a_key_is_not_shown_wherever_it_is_given(
    keys: Keys, coatcheck: Coatcheck, command: str, code: int, complaint: str | None, tag: str, tmp_path: Path
) -> None:
    secret = KeyRing.drawn().keys[0].secret.hex()
    ended = coatcheck(*command.replace("KEY", f"{tag}{secret}").split())
    assert secret not in ended.out + ended.err
    assert code == ended.code
    assert complaint in {None, ended.complaint}
    assert not list(tmp_path.rglob(f"*{secret}*"))


def test_list_shows_the_ids_of_the_keys_in_the_environment(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file is made and rotated with is how the text is made, too."""
    path = tmp_path / "keys"
    keys("new", "--keys", str(path))
    monkeypatch.setenv("COATCHECK_KEYS_TEXT", path.read_text())
    (one,) = ids(path)
    assert (0, f"{one}  seals and opens\n") == (keys("list").code, keys("list").out)

    assert 0 == keys("rotate", "--keys", str(path)).code
    assert f"{one}  seals and opens\n" == keys("list").out
    monkeypatch.setenv("COATCHECK_KEYS_TEXT", path.read_text())
    two = ids(path)[0]
    assert f"{two}  seals and opens\n{one}  opens\n" == keys("list").out

    other = tmp_path / "keys-of-the-call"
    KeyRing.drawn().write(other)
    assert f"{ids(other)[0]}  seals and opens\n" == keys("list", "--keys", str(other)).out


@pytest.mark.parametrize("command", ["new", "rotate"])
def test_where_the_keys_are_in_the_environment_no_file_is_made_that_nobody_uses(
    keys: Keys, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who rotates a file, while programs have their keys from elsewhere, has rotated nothing."""
    KeyRing.drawn().write(tmp_path / "keys")
    monkeypatch.setenv("COATCHECK_KEYS_TEXT", (tmp_path / "keys").read_text())
    ended = keys(command)
    assert (2, "the keys are in COATCHECK_KEYS_TEXT, not in a file: --keys names a file for this") == (
        ended.code,
        ended.complaint,
    )
    assert not default_keys().exists()


@pytest.mark.parametrize(
    "command", [("keys", "list"), ("keys", "new"), ("keys", "rotate"), ("store", "check")]
)
def test_a_text_that_is_no_key_is_told_by_its_variable_and_not_shown(
    coatcheck: Coatcheck, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that was cut off is still most of a key."""
    ring = KeyRing.drawn()
    monkeypatch.setenv("COATCHECK_KEYS_TEXT", ring.text().strip()[:-1])
    ended = coatcheck(*command)
    told = f"line 2 of the keys is no key: {TAG} and 64 hexadecimal digits"
    assert (2, f"setting COATCHECK_KEYS_TEXT: {told}") == (ended.code, ended.complaint)
    assert not default_keys().exists()


@pytest.mark.parametrize("command", ["keys", "keys list", "get", "sessions list", "store check", "demo"])
def test_help_shows_no_key_that_is_in_the_environment(
    coatcheck: Coatcheck, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A default that comes from a variable is what some parsers show."""
    ring = KeyRing.drawn()
    monkeypatch.setenv("COATCHECK_KEYS_TEXT", ring.text())
    ended = coatcheck(*command.split(), "--help")
    assert 0 == ended.code
    assert ring.keys[0].secret.hex() not in ended.out + ended.err
    assert TAG not in ended.out + ended.err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["rotate", "--keep", "0"], "--keep. Must be >= 1"),
        (["rotate", "--keep", "x"], "--keep"),
        (["new", "more"], "more"),
        (["lose"], "Unknown command lose"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(keys: Keys, arguments: list[str], part: str) -> None:
    ended = keys(*arguments)
    assert 2 == ended.code
    # What is put in quotes differs between the parser's versions.
    assert part in ended.complaint.replace('"', "")
    assert not default_keys().exists()


@pytest.mark.parametrize(
    ("command", "options"), [("new", {"--keys"}), ("list", {"--keys"}), ("rotate", {"--keys", "--keep"})]
)
def test_help_lists_every_option_and_no_other(coatcheck: Coatcheck, command: str, options: set[str]) -> None:
    ended = coatcheck("keys", command, "--help")
    assert ended.out.startswith(f"Usage: coatcheck keys {command} ")
    assert options == {word for word in ended.out.split() if word.startswith("--")}


def test_help_names_the_commands(coatcheck: Coatcheck) -> None:
    assert " keys " in coatcheck().out
    ended = coatcheck("keys", "--help")
    assert ended.out.startswith("Usage: coatcheck keys")
    for command in ("new", "list", "rotate"):
        assert f" {command} " in ended.out
