"""What a process does with its open stores when it forks and when it ends."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import threading
import weakref
from typing import TYPE_CHECKING, Final, Protocol

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


FORK_SECONDS: Final = 1.0
"""How long a fork waits for those who are in SQLite: a disk that is stuck must not keep it for ever."""


class NoFork:
    """As ``with no_fork:``, work of SQLite during which this process is not forked.

    SQLite has locks of its own for the whole process, its memory's for one. A child that is forked while another thread
    holds one would wait for it for ever at its first use of SQLite, with whatever file.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._forks = 0
        # How often each thread is in.
        self._mine = threading.local()

    def __enter__(self) -> None:
        depth = getattr(self._mine, "depth", 0)
        if depth == 0:
            with self._changed:
                while self._forks:
                    self._changed.wait()
                self._inside += 1
        self._mine.depth = depth + 1

    def __exit__(self, *_error: object) -> None:
        depth = getattr(self._mine, "depth", 0)
        if depth == 0:
            return  # forked in here: a child begins anew
        self._mine.depth = depth - 1
        if depth == 1:
            with self._changed:
                self._inside -= 1
                if not self._inside:
                    self._changed.notify_all()

    def before(self) -> None:
        """Keep everybody out, from now until after the fork, and wait for those who are in."""
        self._changed.acquire()
        self._forks += 1
        # Who forks is not in the middle of SQLite, wherever it came from.
        mine = getattr(self._mine, "depth", 0) > 0
        self._changed.wait_for(lambda: self._inside <= mine, FORK_SECONDS)

    def in_parent(self) -> None:
        """Let them in again."""
        self._forks = max(0, self._forks - 1)
        self._let_go()

    def in_child(self) -> None:
        """Begin anew: who was in, or waits, does not exist here."""
        # A signal's handler that forks may return to a fork that waits.
        self._let_go()
        self._begin()

    def _let_go(self) -> None:
        # What a signal's handler raises ends `before` wherever it is, and the fork goes on.
        with contextlib.suppress(RuntimeError):
            self._changed.notify_all()
            self._changed.release()


no_fork: Final = NoFork()
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
            os.register_at_fork(
                before=no_fork.before, after_in_parent=no_fork.in_parent, after_in_child=_forked
            )
            atexit.register(_end)


def _forked() -> None:
    global _lock  # noqa: PLW0603 - whoever held it does not exist in the child
    _lock = threading.Lock()
    no_fork.in_child()
    for store in list(_open):
        for connection in store.inherited():
            # SQLite allows nothing to be done with it here, not even to close it, as the end of the process would.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    _open.clear()


def _end() -> None:
    for store in list(_open):
        store.end()
