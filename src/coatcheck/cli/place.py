"""Which store a command is about, and with which keys it looks into it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from coatcheck.cli import FAILED
from coatcheck.cli.mistake import Mistake
from coatcheck.errors import KeysUnusable, StoreInUse
from coatcheck.stores.key_ring import NO_PATH, KeyRing, is_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coatcheck.settings import Settings

Store = Annotated[
    Path | None,
    Parameter(name="--store", help="The store's file, instead of the one that the settings name."),
]
Keys = Annotated[
    Path | None,
    Parameter(
        name="--keys",
        help="The file of its keys. Without it: the keys in COATCHECK_KEYS_TEXT, or the file that the settings name; if"
        " they name none, of a store that --store names, the one of the same name that ends in .keys; else the one in the"
        " folder for the user's settings.",
    ),
]
Config = Annotated[
    Path | None,
    Parameter(name="--config", help="The TOML file with the settings, instead of COATCHECK_CONFIG."),
]
Json = Annotated[
    bool, Parameter(name="--json", help="Print one JSON object.", negative="", show_default=False)
]

CLEARED: Final = "cleared, not yet removed"
"""What is said of a session that a clear is noted of which could not be applied to the file yet."""


class Place:
    """Where a store is and where its keys are, as options and settings say. Settings are read only if they are needed.

    Raises:
        Mistake: the store is given as what is a key, which is not shown.
    """

    def __init__(self, *, store: Path | None, keys: Path | None = None, config: Path | None = None) -> None:
        if store is not None and is_key(store):
            raise Mistake(f"--store: {NO_PATH}")
        self._store = store
        self._keys = keys
        self._config = config
        self._read: Settings | None = None

    def file(self) -> Path:
        """Return where the store is.

        Raises:
            Mistake: there is none by the settings.
        """
        if self._store is not None:
            return self._store
        path = self._settings().store_file()
        if path is None:
            raise Mistake("the settings keep sessions in memory alone: --store names a file")
        return path

    def ring(self, *, needed: bool) -> KeyRing | None:
        """Return the keys; None if there are none and they are not *needed*.

        Raises:
            KeysUnusable: they cannot be read, or there are none.
        """
        path = self._keys_file()
        if path is None:
            return self._settings().given_keys()
        if not is_key(path) and not path.exists():
            if not needed and self._keys is None:
                return None
            raise KeysUnusable(
                f"there is no file of keys at {path}: {self._others() or '--keys names the one of this store'}"
            )
        return KeyRing.read(path)

    def tried(self) -> str:
        """Return with which keys the store was looked into, to be told where something does not open."""
        if self._keys is not None:
            return "with these keys"
        path, others = self._keys_file(), self._others()
        where = "in COATCHECK_KEYS_TEXT" if path is None else f"at {path}"
        return f"with the keys {where}{others and f': {others}'}"

    def unopened(self, number: int, *, of: str) -> int:
        """Say that some of what is stored does not open, and with which keys; return the exit code."""
        sys.stdout.flush()
        sys.stderr.write(
            f"coatcheck: {number:,} of {of} {'does' if number == 1 else 'do'} not open {self.tried()}\n"
        )
        return FAILED

    def _keys_file(self) -> Path | None:
        """Return where the keys are; None if the settings hold them themselves."""
        if self._keys is not None:
            return self._keys
        settings = self._settings()
        if settings.keys_text is not None:
            return None
        default = settings.keys_file()
        # What somebody named comes before what happens to lie there.
        if settings.keys is not None or self._store is None:
            return default
        # Where there is neither, it is the store's own that are missing.
        return default if default.exists() and not self._beside().exists() else self._beside()

    def _beside(self) -> Path:
        """Return where a `SQLiteStore` that was given no keys has its own."""
        path = self.file().resolve()
        # The root of all folders has no name; that it is no store is said where it is opened.
        return path.with_suffix(".keys") if path.name else path / ".keys"

    def _others(self) -> str:
        """Return a hint at the keys beside the store, if there are some that were not taken; else nothing."""
        beside, taken = self._beside(), self._keys_file()
        if not beside.exists() or (taken is not None and taken.resolve() == beside.resolve()):
            return ""
        return f"--keys {beside} takes those beside the store"

    def _settings(self) -> Settings:
        if self._read is None:
            from coatcheck.settings import load  # noqa: PLC0415 - with pydantic, slow to import

            self._read = load(self._config)
        return self._read


@contextlib.contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Say, if a program has the store at *path* open, that it is this program which can do *what*.

    Raises:
        StoreInUse: one has.
    """
    try:
        yield
    except StoreInUse:
        pass
    else:
        return
    raise StoreInUse(f"the store at {path} is open in a program: that program must {what}, or end first")
