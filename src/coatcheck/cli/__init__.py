"""The command line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 1 for a failure, 2 for a mistake in the call, 130 for Ctrl-C.

    Args:
        arguments: instead of those that the process was called with.
    """
    try:
        from coatcheck.cli.app import run  # noqa: PLC0415 - what is missing must not end in a traceback
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "coatcheck":
            raise
        sys.stderr.write("coatcheck: the command line is an extra: install coatcheck[cli]\n")
        return 2
    return run(arguments)
