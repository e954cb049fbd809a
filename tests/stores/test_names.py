"""What the package of stores hands out, and what it brings with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import coatcheck.stores


def printed(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_it_brings_no_extra_until_a_store_is_asked_for() -> None:
    assert "set()\nTrue\n" == printed(
        "import sys, coatcheck, coatcheck.stores\n"
        "from coatcheck.stores import *\n"
        "print({'cryptography', 'sqlite3'} & sys.modules.keys())\n"
        "from coatcheck.stores import KeyRing, SQLiteStore\n"
        "print('cryptography' in sys.modules)\n"
    )


def test_without_the_extra_it_says_what_to_install() -> None:
    assert "coatcheck.stores.seal needs cryptography: install coatcheck[crypto]\n" == printed(
        "import sys; sys.modules['cryptography'] = None\n"
        "from coatcheck.stores import KeyRing\n"
        "try:\n"
        "    from coatcheck.stores import SQLiteStore\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )


def test_other_names_are_missing_as_usual() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = coatcheck.stores.no_such_name
