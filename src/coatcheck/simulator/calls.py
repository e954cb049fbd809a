"""The calls that arrived, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

NOBODY = "nobody"
_SECONDS_KEPT = 3600


class Shape(Enum):
    """What kind of answer a call gets."""

    LOGIN = auto()
    ENVELOPE = auto()
    STREAM = auto()


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a call before it is answered.

    Attributes:
        name: of the route.
        path: as it was asked for.
        email: of the token, expired or not, or of the log-in; ``nobody`` when there is none that counts.
        shape: what kind of answer it gets.
        token: the running number of its token; 0 without one.
    """

    name: str
    path: str
    email: str
    shape: Shape
    token: int = 0


class Calls:
    """Counts calls by user and name, by second, and those that carried a cookie."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.reset()

    def reset(self) -> None:
        """Begin anew at nothing. Calls that are still being answered end uncounted."""
        self._start = self._now()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._seconds: Counter[int] = Counter()
        self._with_cookie = 0
        self._running: set[object] = set()
        self._peak = 0

    def begin(self, call: Call, *, cookie: bool) -> object:
        """Count a call that arrived; returns what to give to ``end``."""
        self._counts[call.email, call.name] += 1
        self._with_cookie += cookie
        self._count_second(int(self._now() - self._start))
        running = object()
        self._running.add(running)
        self._peak = max(self._peak, len(self._running))
        return running

    def end(self, running: object) -> None:
        """Note that a call was answered, or given up."""
        self._running.discard(running)

    def view(self, email: str | None = None) -> dict[str, object]:
        """Return the counts, of everyone or of one user.

        Returns:
            ``{total, by_path, by_user}``; of everyone also ``with_cookie``, ``peak`` (most calls at one time)
            and ``by_second`` (seconds since the last reset, the last hour of those that saw a call).
        """
        by_path: Counter[str] = Counter()
        by_user: Counter[str] = Counter()
        for (user, name), count in self._counts.items():
            if email is None or user == email:
                by_path[name] += count
                by_user[user] += count
        counts = {"total": by_path.total(), "by_path": dict(by_path), "by_user": dict(by_user)}
        if email is not None:
            return counts
        by_second = {str(second): count for second, count in self._seconds.items()}
        return {**counts, "with_cookie": self._with_cookie, "peak": self._peak, "by_second": by_second}

    def _count_second(self, second: int) -> None:
        if second not in self._seconds and len(self._seconds) == _SECONDS_KEPT:
            del self._seconds[next(iter(self._seconds))]
        self._seconds[second] += 1
