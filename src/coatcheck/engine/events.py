"""What happened, as small frozen types, and the bounded feed that takes them to an observer.

No event holds a user, an argument or a value. Hits are counted, not sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import hmac
import secrets
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

import msgspec

from coatcheck.engine.stats import Cause, End, Removal  # noqa: TC001 - a Struct's annotations are read by whoever shows its signature
from coatcheck.errors import SettingsError

BACKLOG = 10_000
"""Events that wait for the observer; further ones are dropped and counted."""

LINGER_SECONDS = 5.0
"""How long the observer's thread waits for a further event before it ends."""

PATIENCE_SECONDS = 1.0
"""How long a close waits for an observer that has not been told everything."""

SHORTEST_KEY = 16
DIGITS = 16


class LoadEnded(msgspec.Struct, frozen=True):
    """A load ended.

    Attributes:
        resource: the name of the resource.
        cause: why it began.
        end: how it ended.
        seconds: from the call of the loader.
        error: the class of the exception, when it failed.
        refused: whether the upstream refused the user; then nothing stale is served.
        attempts: requests that it sent, repeated ones included, if who sends them counts them: `UpstreamClient` does.
        ended: when it did, in Unix time.
        pseudonym: stands for the user; see `SessionCache.pseudonym`.
    """

    resource: str
    cause: Cause
    end: End
    seconds: float
    error: str | None = None
    refused: bool = False
    attempts: int = 0
    ended: float = 0.0
    pseudonym: str = ""


class EntryRemoved(msgspec.Struct, frozen=True):
    """An entry left the memory; not told of each entry when its whole session ends."""

    resource: str
    cause: Removal
    pseudonym: str = ""


class SessionEnded(msgspec.Struct, frozen=True):
    """A session left the memory with all its entries."""

    cause: Removal
    entries: int
    pseudonym: str = ""


class StaleServed(msgspec.Struct, frozen=True):
    """A caller was given a value past its ttl."""

    resource: str
    pseudonym: str = ""


class RefusalServed(msgspec.Struct, frozen=True):
    """A caller was refused from memory: the upstream refused this user lately and was not asked again.

    Attributes:
        resource: the one that was refused; perhaps one that the caller's depends on.
        error: the class of the refusal.
        pseudonym: stands for the user.
    """

    resource: str
    error: str
    pseudonym: str = ""


Event = LoadEnded | EntryRemoved | SessionEnded | StaleServed | RefusalServed

Tell = Callable[[str, Callable[[str], Event]], None]
"""Given a user and what makes an event of the user's pseudonym; makes none when nobody observes."""


class Feed:
    """Takes events to *observer*, in order, one at a time, in a daemon thread of its own and in an empty context.

    The thread begins with the first event, and ends with `close()` or when nothing has happened for a while. An observer
    that raises is counted and harms nothing; one that is too slow loses events, which are counted, too. Sending waits
    for nothing.

    Args:
        observer: called with each event.
        key: what pseudonyms are made with; drawn when there is none.
        backlog: events that may wait.

    Attributes:
        dropped: events that were lost.
        failures: exceptions that the observer raised.

    Raises:
        SettingsError: the key is too short to keep anything secret.
    """

    def __init__(
        self, observer: Callable[[Event], object] | None, *, key: bytes | None = None, backlog: int = BACKLOG
    ) -> None:
        if key is not None and len(key) < SHORTEST_KEY:
            raise SettingsError(f"pseudonym_key must be at least {SHORTEST_KEY} random bytes")
        self._observer = observer
        self._key = secrets.token_bytes(32) if key is None else key
        self._backlog = backlog
        # Calls to make; None asks the thread to end.
        self._waiting: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        # Held by the thread for as long as it attends to the queue.
        self._attended = threading.Lock()
        self.dropped = 0
        self.failures = 0

    @property
    def observed(self) -> bool:
        """Whether there is anybody to tell."""
        return self._observer is not None

    def pseudonym(self, user: str) -> str:
        """Return what stands for *user* in events: the same for the same key, and nobody without it can tell for whom."""
        return hmac.digest(self._key, user.encode(), "sha256").hex()[:DIGITS]

    def send(self, event: Event) -> None:
        """Queue *event*. One thread at a time."""
        if self._observer is None:
            return
        if self._waiting.qsize() >= self._backlog:
            self.dropped += 1
            return
        self._put(functools.partial(self._observer, event))

    async def told(self) -> None:
        """Return when the observer has been told what was sent before."""
        if self._idle():
            return
        loop = asyncio.get_running_loop()
        told = loop.create_future()

        def wake() -> None:
            if not told.done():
                told.set_result(None)

        def reached() -> None:
            with contextlib.suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(wake)

        self._put(reached)
        await told

    async def close(self) -> None:
        """End the thread when all is told. An observer that takes too long is not waited for; it is told the rest."""
        if self._idle():
            return
        telling = asyncio.ensure_future(self.told())
        try:
            await asyncio.wait({telling}, timeout=PATIENCE_SECONDS)
        finally:
            telling.cancel()
            if self._attended.locked():
                self._waiting.put(None)

    def _idle(self) -> bool:
        return self._waiting.empty() and not self._attended.locked()

    def _put(self, call: Callable[[], object]) -> None:
        self._waiting.put(call)
        if self._attended.acquire(blocking=False):
            context = contextvars.Context()
            try:
                threading.Thread(
                    target=context.run, args=(self._attend,), name="coatcheck-events", daemon=True
                ).start()
            except RuntimeError:  # no thread can be had now; the next event tries again
                self._attended.release()

    def _attend(self) -> None:
        while True:
            try:
                call = self._waiting.get(timeout=LINGER_SECONDS)
            except Empty:
                call = None
            if call is None:
                self._attended.release()
                # What was put before that found the queue attended; what is put from now on begins another thread.
                if self._waiting.empty() or not self._attended.acquire(blocking=False):
                    return
                continue
            try:
                call()
            except BaseException:  # noqa: BLE001 - whatever it raises is its own; the count tells of it
                self.failures += 1
