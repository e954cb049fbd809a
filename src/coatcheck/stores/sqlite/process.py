"""What a process does with its open stores when it forks and when it ends."""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import sqlite3


class Opened(Protocol):
    """A store that is open in this process."""

    def inherited(self) -> list[sqlite3.Connection]:
        """Refuse every call from now on, in a forked child; return connections that must not be closed in it."""
        ...

    def end(self) -> None:
        """Close, at the end of the process, within a bounded time."""
        ...


_open: weakref.WeakSet[Opened] = weakref.WeakSet()
_lock = threading.Lock()
_hooked = False


def watch(store: Opened) -> None:
    """Tell *store* of forks of this process and of its end, for as long as it lives."""
    global _hooked  # noqa: PLW0603 - hooks are of the process, and cannot be taken back
    with _lock:
        _open.add(store)
        if not _hooked:
            _hooked = True
            os.register_at_fork(after_in_child=_forked)
            atexit.register(_end)


def _forked() -> None:
    global _lock  # noqa: PLW0603 - whoever held it does not exist in the child
    _lock = threading.Lock()
    for store in list(_open):
        for connection in store.inherited():
            # SQLite allows nothing to be done with it here, not even to close it, as the end of the process would.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    _open.clear()


def _end() -> None:
    for store in list(_open):
        store.end()
