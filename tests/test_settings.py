"""Settings: where they come from, who wins, and that a wrong one is one line without a value."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from coatcheck import Limits
from coatcheck.errors import SettingsError
from coatcheck.settings import (
    AccountSettings,
    LimitSettings,
    Settings,
    SharedAccount,
    default_keys,
    default_store,
    load,
)
from coatcheck.stores.key_ring import NO_PATH, TAG, KeyRing

CANARY = "c4n4ry-pa55word"
PLACE = "http(s)://host[:port][/prefix] and nothing else"
DURATION = "must be seconds, or a duration such as PT30M"
ACCOUNT = "must be a password, or a table with email and password"
MEANT = "must be a path: is `memory` meant?"
PACE = "must be a number above zero"
NO_KEY = "of the keys is no key: coatcheck-key-1: and 64 hexadecimal digits"
KEY = f"{TAG}{'c4' * 32}"
BEHIND = (
    "the keys are in one line, and one of them is behind a #, where all is a comment: leave out the comment"
)
NO_PATHS = (("STORE", "; COATCHECK_KEYS_TEXT takes keys"), ("CONFIG", ""))


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of whoever runs the tests is seen, and no file."""
    for name in list(os.environ):
        if name.upper().startswith("COATCHECK_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def complaint() -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load()
    shown = f"{caught.value!s}{caught.value!r}"
    assert CANARY not in shown
    assert "c4c4" not in shown
    # What an exception drags along ends up in logs as well.
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    return str(caught.value).splitlines()


def test_without_any_there_are_defaults_and_no_upstream() -> None:
    settings = load()
    assert settings == Settings()
    assert settings.upstream_url is None
    assert settings.timeout == timedelta(seconds=30)
    assert settings.max_body == 1024 * 1024
    assert settings.ttl is None
    assert settings.default_email is None
    assert settings.strict_users is False
    assert settings.accounts == {}
    assert settings.token is None
    assert settings.everyone_sees_data_of is None
    assert settings.store is None
    assert settings.max_store_bytes == 1024**3
    assert settings.keys is None
    assert settings.keys_text is None
    assert settings.given_keys() is None
    assert settings.limits.limits() == Limits()


def test_every_setting_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "UPSTREAM_URL": "https://upstream.example/prefix",
        "TIMEOUT": "PT5S",
        "MAX_BODY": "2048",
        "TTL": "3600",
        "DEFAULT_EMAIL": "ann@example.com",
        "STRICT_USERS": "true",
        "ACCOUNTS": '{"bob": "one", "eve": {"email": "e@example.com", "password": "two"}}',
        "TOKEN": CANARY,
        "EVERYONE_SEES_DATA_OF__EMAIL": "all@example.com",
        "EVERYONE_SEES_DATA_OF__PASSWORD": CANARY,
        "STORE": "/var/lib/shop/sessions",
        "MAX_STORE_BYTES": "2000000",
        "KEYS": "/etc/shop/keys",
        "LIMITS__MAX_SESSIONS": "7",
        "LIMITS__MAX_LOADS_PER_SECOND": "2.5",
    }.items():
        monkeypatch.setenv(f"COATCHECK_{name}", value)
    settings = load()
    assert settings.upstream_url == "https://upstream.example/prefix"
    assert settings.timeout == timedelta(seconds=5)
    assert settings.max_body == 2048
    assert settings.ttl == timedelta(hours=1)
    assert settings.default_email == "ann@example.com"
    assert settings.strict_users is True
    assert {user: account.password.get_secret_value() for user, account in settings.accounts.items()} == {
        "bob": "one",
        "eve": "two",
    }
    assert settings.accounts["eve"].email == "e@example.com"
    assert settings.token is not None
    assert settings.token.get_secret_value() == CANARY
    assert settings.everyone_sees_data_of is not None
    assert settings.everyone_sees_data_of.email == "all@example.com"
    assert settings.store_file() == Path("/var/lib/shop/sessions")
    assert settings.max_store_bytes == 2_000_000
    assert settings.keys_file() == Path("/etc/shop/keys")
    assert settings.limits.limits() == Limits(max_sessions=7, max_loads_per_second=2.5)


FILE = """
upstream_url = "http://file.example"
timeout = 7
ttl = "PT12H"
store = "~/sessions"
max_store_bytes = 1_048_576
keys = "~/keys"

[accounts]
"ann@example.com" = "one"
"bob@example.com" = { email = "robert@example.com", password = "two" }

[limits]
max_bytes = 5
max_loads_per_second = 4
"""


def test_every_setting_can_come_from_the_file(tmp_path: Path) -> None:
    Path("coatcheck.toml").write_text(FILE)
    settings = load()
    assert settings.upstream_url == "http://file.example"
    assert settings.timeout == timedelta(seconds=7)
    assert settings.ttl == timedelta(hours=12)
    assert settings.accounts["ann@example.com"].email is None
    assert settings.accounts["bob@example.com"].email == "robert@example.com"
    assert settings.store_file() == Path.home() / "sessions"
    assert settings.max_store_bytes == 1024 * 1024
    assert settings.keys_file() == Path.home() / "keys"
    assert settings.limits.limits() == Limits(max_bytes=5, max_loads_per_second=4)


def test_every_bound_is_a_setting() -> None:
    assert set(Limits.__struct_fields__) == set(LimitSettings.model_fields)


def test_the_environment_wins_over_the_file_field_by_field(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("coatcheck.toml").write_text(FILE)
    monkeypatch.setenv("COATCHECK_TIMEOUT", "9")
    monkeypatch.setenv("COATCHECK_LIMITS__MAX_LOADS", "3")
    settings = load()
    assert settings.timeout == timedelta(seconds=9)
    assert settings.upstream_url == "http://file.example"
    assert settings.limits.limits() == Limits(max_bytes=5, max_loads=3, max_loads_per_second=4)


def test_the_file_is_the_one_given_then_the_one_named_then_the_one_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path("coatcheck.toml").write_text("max_body = 1")
    assert load().max_body == 1
    Path("named.toml").write_text("max_body = 2")
    monkeypatch.setenv("COATCHECK_CONFIG", "named.toml")
    assert load().max_body == 2
    Path("given.toml").write_text("max_body = 3")
    assert load(tmp_path / "given.toml").max_body == 3


def test_an_empty_variable_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("coatcheck.toml").write_text("max_body = 1")
    monkeypatch.setenv("COATCHECK_CONFIG", "")
    monkeypatch.setenv("COATCHECK_MAX_BODY", "")
    monkeypatch.setenv("COATCHECK_UPSTREAM_URL", "")
    assert load() == Settings(max_body=1)


def test_keys_that_are_an_empty_text_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was to bring them has failed: with new ones all that is stored would be removed."""
    monkeypatch.setenv("COATCHECK_KEYS_TEXT", "")
    with pytest.raises(SettingsError, match="COATCHECK_KEYS_TEXT: is empty; give the keys, or unset it"):
        load()


def test_the_store_is_in_the_folder_for_data_unless_it_is_named_or_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert load().store_file() == default_store() == tmp_path / "data" / "coatcheck" / "sessions.sqlite"
    assert load().keys_file() == default_keys() == tmp_path / "config" / "coatcheck" / "keys"
    assert Settings(store="memory").store_file() is None
    assert Settings(store="./memory").store_file() == Path("memory")
    assert [] == list(tmp_path.iterdir())


def test_settings_made_directly_read_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("coatcheck.toml").write_text("max_body = 1")
    monkeypatch.setenv("COATCHECK_TTL", "5")
    assert Settings().max_body == 1024 * 1024
    assert Settings().ttl is None


def test_settings_are_frozen() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.max_body = 5


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("UPSTREAM_URL", f"http://ann:{CANARY}@host", f"must be {PLACE}"),
        ("UPSTREAM_URL", "ftp://host", f"must be {PLACE}"),
        ("UPSTREAM_URL", "http://", f"must be {PLACE}"),
        ("UPSTREAM_URL", "http://[::1", f"must be {PLACE}"),
        ("UPSTREAM_URL", "http://host:99999", f"must be {PLACE}"),
        ("UPSTREAM_URL", f"http://host?key={CANARY}", f"must be {PLACE}"),
        ("UPSTREAM_URL", "http://host\n", f"must be {PLACE}"),
        ("TIMEOUT", "0", "must be longer than zero"),
        ("TIMEOUT", "nan", DURATION),
        ("TTL", CANARY, DURATION),
        ("TTL", "-5", "must be longer than zero"),
        ("TTL", "1e12", "must be ten years or less"),
        ("MAX_BODY", CANARY, "must be a whole number"),
        ("MAX_BODY", "0", "must be 1 or more"),
        ("MAX_BODY", "1.5", "must be a whole number"),
        ("MAX_STORE_BYTES", "1048575", "must be 1048576 or more"),
        ("MAX_STORE_BYTES", CANARY, "must be a whole number"),
        (
            "KEYS",
            f"coatcheck-key-1:{CANARY}",
            "must be the path of a file of keys, not a key; COATCHECK_KEYS_TEXT takes keys",
        ),
        *(
            (name, key, f"{NO_PATH}{rest}")
            for name, rest in NO_PATHS
            for key in (f"{TAG}{CANARY}", KEY, KEY[-64:])
        ),
        *(("STORE", each, MEANT) for each in ("Memory", "MEMORY", " memory", ":memory:")),
        ("STORE", f"# Keys of coatcheck\n{KEY}\n", f"{NO_PATH}; COATCHECK_KEYS_TEXT takes keys"),
        ("KEYS_TEXT", CANARY, f"line 1 {NO_KEY}"),
        ("KEYS_TEXT", f"/etc/{CANARY}/keys", f"line 1 {NO_KEY}"),
        ("KEYS_TEXT", f"{KEY}\n{TAG}{CANARY}", f"line 2 {NO_KEY}"),
        ("KEYS_TEXT", f"{KEY} \udcff{CANARY}", f"line 1 {NO_KEY}"),
        ("KEYS_TEXT", f"{KEY} {KEY}", "a key ring has a key twice"),
        ("KEYS_TEXT", f"# {CANARY} {KEY}", BEHIND),
        ("KEYS_TEXT", f"{KEY} # {CANARY} {TAG}{'c4' * 32}", BEHIND),
        ("KEYS_TEXT", f"# {CANARY}", "the keys cannot be used: there is no key"),
        ("KEYS_TEXT", f"# {CANARY}\n# {KEY}", "the keys cannot be used: there is no key"),
        ("STRICT_USERS", CANARY, "must be true or false"),
        ("TOKEN", f"{CANARY} with blanks", "must be printable ASCII without blanks, to be sent in a header"),
        ("TOKEN", CANARY, "whose is it? set COATCHECK_DEFAULT_EMAIL, too"),
        ("ACCOUNTS", f"{{{CANARY}", "must be a table written as JSON"),
        ("ACCOUNTS", f'["{CANARY}"]', "must be a table"),
        ("ACCOUNTS", f'{{"{CANARY}": 3}}', f"of one account: {ACCOUNT}"),
        ("ACCOUNTS", f'{{"{CANARY}": {{}}}}', "password of one account: is missing"),
        ("ACCOUNTS", f'{{"{CANARY}": ""}}', "password of one account: must not be empty"),
        (
            "ACCOUNTS",
            f'{{"ann": {{"password": "{CANARY}", "passwrod": "{CANARY}"}}}}',
            "passwrod of one account: there is no such setting",
        ),
        ("LIMITS", f'"{CANARY}"', "must be a table"),
        ("LIMITS__MAX_SESSIONS", "0", "must be 1 or more"),
        ("LIMITS__MAX_SESSION", "5", "there is no such setting"),
        *(
            ("LIMITS__MAX_LOADS_PER_SECOND", each, PACE)
            for each in (CANARY, "0", "-1", "nan", "inf", "1e999")
        ),
        ("CONFIG", "/nowhere/coatcheck.toml", "/nowhere/coatcheck.toml does not exist"),
        ("CONFIG", "/", "/ cannot be read (Is a directory)"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it_without_its_value(
    name: str, value: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"COATCHECK_{name}", value)
    assert complaint() == [f"setting COATCHECK_{name}: {text}"]


def test_an_account_for_all_needs_both_its_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COATCHECK_EVERYONE_SEES_DATA_OF__PASSWORD", CANARY)
    assert complaint() == ["setting COATCHECK_EVERYONE_SEES_DATA_OF__EMAIL: is missing"]


def test_a_token_and_a_password_for_one_user_contradict_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COATCHECK_DEFAULT_EMAIL", "ann")
    monkeypatch.setenv("COATCHECK_TOKEN", CANARY)
    monkeypatch.setenv("COATCHECK_ACCOUNTS", f'{{"ann": "{CANARY}"}}')
    assert complaint() == [
        "setting COATCHECK_TOKEN: its user has a password in COATCHECK_ACCOUNTS, too; give one of them"
    ]


@pytest.mark.parametrize("text", [KeyRing.drawn().rotated().text(), f" {KEY} {TAG}{'5e' * 32} "])
def test_the_keys_themselves_can_come_from_the_environment(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes what is in a file of keys, also where lines have become one."""
    monkeypatch.setenv("COATCHECK_KEYS_TEXT", text)
    assert KeyRing.from_text(text) == load().given_keys()


def test_the_keys_themselves_are_not_taken_from_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks who may read the file of settings; what else is wrong there is told, too."""
    line = (
        "setting keys_text in coatcheck.toml: comes from COATCHECK_KEYS_TEXT alone; here, keys names a file of keys, which"
        " is private"
    )
    for name in ("keys_text", "KEYS_TEXT", "Keys_Text"):
        Path("coatcheck.toml").write_text(f"{name} = '{KEY}'")
        assert [line] == complaint()
    monkeypatch.setenv("COATCHECK_KEYS_TEXT", KEY)
    assert [line] == complaint()
    Path("coatcheck.toml").write_text(f"ttl = true\n[keys_text]\n'{CANARY}' = '{KEY}'")
    assert [line, f"setting ttl in coatcheck.toml: {DURATION}"] == complaint()


@pytest.mark.parametrize(
    ("file", "environment", "named"),
    [
        ("", {"COATCHECK_KEYS": "keys"}, "COATCHECK_KEYS"),
        ("keys = 'keys'", {}, "keys in coatcheck.toml"),
        ("keys = 'keys'", {"COATCHECK_KEYS": "others"}, "COATCHECK_KEYS"),
    ],
)
def test_keys_and_the_path_of_keys_contradict_each_other(
    file: str, environment: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of the two a store is sealed with must not be a guess: with the wrong ones all that is stored goes."""
    Path("coatcheck.toml").write_text(file)
    for name, value in {"COATCHECK_KEYS_TEXT": KEY, **environment}.items():
        monkeypatch.setenv(name, value)
    assert [
        f"setting COATCHECK_KEYS_TEXT: {named} names a file of keys, too; give one of them"
    ] == complaint()
    with pytest.raises(ValidationError, match="keys_text: keys names a file of keys, too") as caught:
        Settings(keys=Path("keys"), keys_text=SecretStr(KEY))
    assert KEY not in f"{caught.value}{caught.value!r}"


def test_nothing_that_is_printed_of_the_keys_is_one_or_its_id() -> None:
    """Settings are printed whole, by whoever looks for a mistake in them."""
    settings = Settings(keys_text=SecretStr(KEY))
    (key,) = KeyRing.from_text(KEY).keys
    shown = (
        f"{settings!r}{settings}{settings.model_dump()}{settings.model_dump_json()}{settings.given_keys()!r}"
    )
    assert "c4c4" not in shown
    assert repr(key.secret) not in shown
    with pytest.raises(ValidationError) as caught:
        Settings(keys_text=SecretStr(f"{KEY} {CANARY}"))
    assert CANARY not in f"{caught.value}{caught.value!r}"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "upstream_ulr = 'http://host'",
            ["setting upstream_ulr in coatcheck.toml: there is no such setting"],
        ),
        (
            f"[limits]\nmax_loadz = '{CANARY}'",
            ["setting limits.max_loadz in coatcheck.toml: there is no such setting"],
        ),
        ("ttl = true", [f"setting ttl in coatcheck.toml: {DURATION}"]),
        ("TTL = true", [f"setting ttl in coatcheck.toml: {DURATION}"]),
        ("ttl = nan", [f"setting ttl in coatcheck.toml: {DURATION}"]),
        ("accounts = 3", ["setting accounts in coatcheck.toml: must be a table"]),
        (
            f"[accounts]\n'{CANARY}' = {{}}",
            ["setting accounts in coatcheck.toml: password of one account: is missing"],
        ),
        (
            f"token = '{CANARY}'",
            ["setting token in coatcheck.toml: whose is it? set default_email, too"],
        ),
        (
            f"token = '{CANARY}'\ndefault_email = 'ann'\naccounts.ann = '{CANARY}'",
            [
                (
                    "setting token in coatcheck.toml: its user has a password in accounts in coatcheck.toml, too;"
                    " give one of them"
                )
            ],
        ),
        (
            "[everyone_sees_data_of]\nemail = 'all@example.com'",
            ["setting everyone_sees_data_of.password in coatcheck.toml: is missing"],
        ),
        ("[limits]\nmax_loads = 'x'", ["setting limits.max_loads in coatcheck.toml: must be a whole number"]),
        (
            "limits.max_loads_per_second = []",
            [f"setting limits.max_loads_per_second in coatcheck.toml: {PACE}"],
        ),
        ('store = "a\\u0000b"', ["setting store in coatcheck.toml: must be a path: it has a NUL in it"]),
        ('"a\\nb" = 1', ["setting … in coatcheck.toml: there is no such setting"]),
        (
            f"password = {CANARY}",
            ["the file of settings coatcheck.toml is not TOML (at line 1, column 12)"],
        ),
        (
            f"password = '{CANARY}",
            ["the file of settings coatcheck.toml is not TOML (at end of document)"],
        ),
        (
            "max_body = 0\nstrict_users = 'perhaps'",
            [
                "setting max_body in coatcheck.toml: must be 1 or more",
                "setting strict_users in coatcheck.toml: must be true or false",
            ],
        ),
    ],
)
def test_a_wrong_file_is_a_line_for_each_mistake(text: str, lines: list[str]) -> None:
    Path("coatcheck.toml").write_text(text)
    assert complaint() == lines


@pytest.mark.parametrize(
    ("text", "name", "value", "line"),
    [
        ("ttl = 5", "TTL", CANARY, f"COATCHECK_TTL: {DURATION}"),
        ("ttl = true", "MAX_BODY", "5", f"ttl in coatcheck.toml: {DURATION}"),
        ("limits.max_loads = 'x'", "LIMITS__MAX_BYTES", "5", "limits.max_loads in coatcheck.toml: must be a whole number"),
        ("limits.max_loads = 5", "LIMITS__MAX_LOADS", "x", "COATCHECK_LIMITS__MAX_LOADS: must be a whole number"),
        ("limits.max_loads = 5", "LIMITS", '{"max_loads": "x"}', "max_loads in COATCHECK_LIMITS: must be a whole number"),
        (f"accounts.'{CANARY}' = 3", "ACCOUNTS", '{"bob": "one"}', f"accounts in coatcheck.toml: of one account: {ACCOUNT}"),
        ("accounts.bob = 'one'", "ACCOUNTS", f'{{"{CANARY}": 3}}', f"COATCHECK_ACCOUNTS: of one account: {ACCOUNT}"),
        ("default_email = ''", "TOKEN", CANARY, "default_email in coatcheck.toml: must not be empty"),
        (
            f"token = '{CANARY}'\ndefault_email = 'ann'",
            "ACCOUNTS",
            f'{{"ann": "{CANARY}"}}',
            "token in coatcheck.toml: its user has a password in COATCHECK_ACCOUNTS, too; give one of them",
        ),
    ],
)  # fmt: skip
def test_of_file_and_environment_the_one_is_named_in_which_the_mistake_is_written(
    text: str, name: str, value: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both may speak of one setting, or of one table; what was overruled is not blamed."""
    Path("coatcheck.toml").write_text(text)
    monkeypatch.setenv(f"COATCHECK_{name}", value)
    assert [f"setting {line}"] == complaint()


def test_a_file_that_cannot_be_read_is_named_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable only if it was the variable that named it."""
    monkeypatch.setenv("COATCHECK_CONFIG", "named.toml")
    assert ["setting COATCHECK_CONFIG: named.toml does not exist"] == complaint()
    with pytest.raises(SettingsError) as caught:
        load("given.toml")
    assert "the file of settings given.toml does not exist" == str(caught.value)


def test_a_misspelt_key_is_told_with_the_file_that_it_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.toml").write_text(f"tl = '{CANARY}'\n[limits]\nmax_bytes = 5")
    monkeypatch.setenv("COATCHECK_CONFIG", "mine.toml")
    monkeypatch.setenv("COATCHECK_LIMITS__MAX_BITES", "5")
    assert set(complaint()) == {
        "setting tl in mine.toml: there is no such setting",
        "setting COATCHECK_LIMITS__MAX_BITES: there is no such setting",
    }


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("COATCHECK_STROE", "COATCHECK_STROE"),
        ("coatcheck_stroe", "coatcheck_stroe"),
        ("COATCHECK_TTL__X", "COATCHECK_TTL__X"),
        ("COATCHECK_", "COATCHECK_"),
        ("COATCHECK_A B\n", "COATCHECK_…"),
        (f"COATCHECK_{KEY}", "COATCHECK_…"),
        (f"COATCHECK_{KEY[-64:]}", "COATCHECK_…"),
        (f"COATCHECK_KEYS_TEXT_{KEY[-64:].upper()}", "COATCHECK_…"),
    ],
)
def test_a_variable_that_is_no_setting_is_named_in_the_log_without_its_value(
    name: str, shown: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(name, CANARY)
    assert load() == Settings()
    assert [f"{shown} is ignored: there is no such setting"] == [each.getMessage() for each in caplog.records]
    assert CANARY not in repr([vars(each) for each in caplog.records])


def test_nothing_is_said_of_variables_that_are_read_or_empty(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Path("mine.toml").touch()
    given = {
        "COATCHECK_CONFIG": "mine.toml",
        "COATCHECK_DEEP": "1",
        "COATCHECK_SEED": "7",
        "COATCHECK_STROE": "",
        "COATCHECK_KEYS": "keys",
        "coatcheck_max_body": "5",
        "COATCHECK_ACCOUNTS__ANN": "p",
        "COATCHECK_LIMITS__MAX_LOADS": "3",
        "COATCHECK_EVERYONE_SEES_DATA_OF__EMAIL": "all@example.com",
        "COATCHECK_EVERYONE_SEES_DATA_OF__PASSWORD": "p",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert (5, 3, {"ann"}) == (settings.max_body, settings.limits.max_loads, set(settings.accounts))
    assert [] == caplog.records


def test_a_file_that_is_no_text_is_named() -> None:
    Path("coatcheck.toml").write_bytes(b"\xff\xfe")
    assert complaint() == ["the file of settings coatcheck.toml is not UTF-8"]


def test_nothing_that_is_printed_of_settings_is_secret_or_somebody() -> None:
    secret = SecretStr(CANARY)
    settings = Settings(
        default_email="ann@example.com",
        accounts={"bob@example.com": AccountSettings(password=secret, email="b@example.com")},
        token=secret,
        everyone_sees_data_of=SharedAccount(email="all@example.com", password=secret),
    )
    shown = f"{settings!r}{settings}{settings.accounts['bob@example.com']!r}"
    assert CANARY not in shown
    assert "@" not in shown
