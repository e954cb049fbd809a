"""All commands as one program, and what each kind of failure is to its caller: one line and an exit code."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Final

from cyclopts import App, CycloptsError

from coatcheck.cli.demo import demo
from coatcheck.cli.get import get
from coatcheck.cli.mistake import Mistake
from coatcheck.cli.simulator import simulator
from coatcheck.errors import CoatcheckError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command that *arguments* name; see `coatcheck.cli.main`."""
    try:
        result = program()(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        return _complain(" ".join(str(error).split()), MISUSED)
    except (Mistake, SettingsError) as error:
        return _complain(str(error), MISUSED)
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; Python must not try to write the rest on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (CoatcheckError, OSError) as error:
        return _complain(str(error), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
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
    for command in (demo, get, simulator):
        app.command(command)
    return app


def _complain(text: str, code: int) -> int:
    for line in text.splitlines() or ["failed"]:
        sys.stderr.write(f"coatcheck: {line}\n")
    return code
