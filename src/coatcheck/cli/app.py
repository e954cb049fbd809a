"""All commands as one program, and what each kind of failure is to its caller: one line and an exit code."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError, MissingArgumentError

from coatcheck.cli import FAILED, MISUSED
from coatcheck.cli.demo import demo
from coatcheck.cli.get import get
from coatcheck.cli.keys import keys
from coatcheck.cli.mistake import Mistake
from coatcheck.cli.sessions import sessions
from coatcheck.cli.simulator import simulator
from coatcheck.cli.store import store
from coatcheck.errors import CoatcheckError, MissingExtra, SettingsError
from coatcheck.stores.key_ring import without_keys

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(arguments: Sequence[str]) -> int:
    """Run the command that *arguments* name and return the exit code; see `coatcheck.cli.main`.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        ModuleNotFoundError, MissingExtra: an extra is not installed.
    """
    try:
        result = program()(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        return _complain(" ".join([*str(error).split(), *_required(error)]), MISUSED)
    except (Mistake, SettingsError) as error:
        return _complain(str(error), MISUSED)
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; Python must not try to write the rest on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except MissingExtra:
        raise
    except CoatcheckError as error:
        return _complain(str(error), FAILED)
    except OSError as error:
        return _complain(error.strerror or type(error).__name__, FAILED)
    return result if isinstance(result, int) else 0


def program() -> App:
    """Return the parser with all commands."""
    app = App(
        name="coatcheck",
        help="A per-user session cache for slow upstream APIs. The demo shows what it saves and needs no upstream.",
        version=lambda: f"coatcheck {metadata.version('coatcheck')}",
        help_format="plaintext",
        version_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    for command in (demo, get, keys(), sessions(), simulator, store()):
        app.command(command)
    return app


def _required(error: CycloptsError) -> list[str]:
    """Return what to add where one of several required arguments is missing: the error names but the first."""
    if not isinstance(error, MissingArgumentError) or error.app is None:
        return []
    names = [each.name for each in error.app.assemble_argument_collection() if each.required]
    return [f"Required: {', '.join(names)}."] if len(names) > 1 else []


def _complain(text: str, code: int) -> int:
    # What the parser does not understand it quotes.
    for line in without_keys(text).splitlines() or ["failed"]:
        sys.stderr.write(f"coatcheck: {line}\n")
    return code
