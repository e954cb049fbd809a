"""What is common to all commands: help, version, mistakes, and how each failure ends."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from cli.conftest import Coatcheck
from coatcheck.cli import main


def test_without_arguments_it_shows_its_commands(coatcheck: Coatcheck) -> None:
    ended = coatcheck()
    assert ended.code == 0
    assert ended.err == ""
    for command in ("demo", "get", "keys", "sessions", "simulator", "store"):
        assert f" {command} " in ended.out


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("demo",),
        ("get",),
        ("sessions",),
        ("sessions", "list"),
        ("sessions", "show"),
        ("sessions", "clear"),
        ("simulator",),
        ("store",),
        ("store", "check"),
        ("store", "compact"),
    ],
)
def test_help_says_what_a_command_does(coatcheck: Coatcheck, command: tuple[str, ...]) -> None:
    ended = coatcheck(*command, "--help")
    assert ended.code == 0
    assert ended.out.startswith(f"Usage: {' '.join(('coatcheck', *command))}")


@pytest.mark.parametrize(
    ("command", "which"),
    [("show", "PSEUDONYM | --user USER"), ("clear", "PSEUDONYM | --user USER | --all")],
)
def test_help_says_what_a_session_may_be_named_by(coatcheck: Coatcheck, command: str, which: str) -> None:
    first, *_ = coatcheck("sessions", command, "--help").out.splitlines()
    assert first == f"Usage: coatcheck sessions {command} [OPTIONS] {which}"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("demo", {"--users", "--passes", "--seed", "--latency-scale", "--outage", "--restart", "--json"}),
        ("get", {"--user", "--arg", "--refresh", "--json", "--config"}),
        ("sessions list", {"--reveal", "--json", "--store", "--keys", "--config"}),
        ("sessions show", {"--user", "--reveal", "--json", "--store", "--keys", "--config"}),
        ("sessions clear", {"--user", "--all", "--store", "--keys", "--config"}),
        ("simulator", {"--port", "--seed", "--users", "--latency-scale"}),
        ("store check", {"--json", "--store", "--keys", "--config"}),
        ("store compact", {"--json", "--store", "--config"}),
    ],
)
def test_help_lists_every_option_and_no_other(coatcheck: Coatcheck, command: str, options: set[str]) -> None:
    words = coatcheck(*command.split(), "--help").out.split()
    assert {word for word in words if word.startswith("--")} == options


def test_version_is_that_of_the_package(coatcheck: Coatcheck) -> None:
    ended = coatcheck("--version")
    assert (ended.code, ended.out) == (0, f"coatcheck {metadata.version('coatcheck')}\n")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nonsense"], "Unknown command nonsense"),
        (["--nonsense"], "Unknown command --nonsense"),
        (["demo", "--nonsense"], "Unknown option: --nonsense"),
        (["demo", "more"], "more"),
        (["demo", "--users"], "--users requires an argument"),
        (["demo", "--users", "many"], "unable to convert many into int"),
        (["demo", "--users", "0"], "--users. Must be >= 1"),
        (["demo", "--users", "100001"], "--users. Must be <= 100000"),
        (["demo", "--passes", "0"], "--passes. Must be >= 1"),
        (["demo", "--seed", "x"], "--seed"),
        (["demo", "--latency-scale", "-1"], "--latency-scale. Must be a number not below 0"),
        (["demo", "--latency-scale", "nan"], "--latency-scale. Must be a number not below 0"),
        (["simulator", "--port", "65536"], "--port. Must be <= 65535"),
        (["simulator", "--port", "-1"], "--port. Must be >= 0"),
        (["get"], "RESOURCE requires an argument. Required: RESOURCE, --user."),
        (["get", "endpoints"], "--user requires an argument"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(coatcheck: Coatcheck, arguments: list[str], part: str) -> None:
    ended = coatcheck(*arguments)
    assert ended.code == 2
    # What is put in quotes differs between the parser's versions.
    assert part in ended.complaint.replace('"', "")


@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 1)])
def test_an_interruption_ends_without_a_traceback(
    raised: BaseException, code: int, coatcheck: Coatcheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise raised

    # What is left to write would go there; not to be confused with that of the test runner.
    with Path(os.devnull).open("w") as nowhere:
        monkeypatch.setattr(sys.stdout, "fileno", nowhere.fileno, raising=False)
        monkeypatch.setattr("coatcheck.cli.comparison.compare", interrupted)
        ended = coatcheck("demo")
    assert (ended.code, ended.out, ended.err) == (code, "", "")


@pytest.mark.parametrize("missing", ["cyclopts", "aiohttp"])
def test_a_missing_extra_is_one_line_and_exit_2(missing: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.modules['{missing}'] = None\nfrom coatcheck.cli import main\nsys.exit(main(['demo']))",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"coatcheck: the command line needs {missing}, an extra: install coatcheck[cli]\n"


def test_the_module_runs_as_a_program_and_starts_without_http_or_settings() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "coatcheck", "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"coatcheck {metadata.version('coatcheck')}\n")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"aiohttp", "cryptography", "pydantic", "pydantic_settings", "sqlite3"}


def test_main_takes_the_arguments_of_the_process(
    bare: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["coatcheck", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("coatcheck ")
