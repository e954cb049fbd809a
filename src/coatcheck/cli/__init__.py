"""The command line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from coatcheck.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 1 for a failure, 2 for a mistake in the call, 130 for Ctrl-C.

    Args:
        arguments: instead of those that the process was called with.
    """
    try:
        from coatcheck.cli.app import run  # noqa: PLC0415 - what is missing must not end in a traceback

        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ModuleNotFoundError, MissingExtra) as error:
        missing = error.name or ""
        if missing.partition(".")[0] == "coatcheck":
            raise
    sys.stderr.write(f"coatcheck: the command line needs {missing}, an extra: install coatcheck[cli]\n")
    return MISUSED
