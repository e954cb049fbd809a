"""Replays the chat session for many users at once, timing every request and checking every answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from coatcheck.cli.chat_session import CHAT_SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coatcheck.cli.truth import Truth, Verdict
    from coatcheck.clock import Clock
    from coatcheck.engine.cache import SessionCache
    from coatcheck.ipc.api import IpcCloud

AT_ONCE: Final = 64
"""Users whose sessions run at one time; the others wait for their turn."""


@dataclass
class Replay:
    """What came of it.

    Attributes:
        seconds: of every request.
        verdicts: on every answer.
    """

    seconds: list[float] = field(default_factory=list)
    verdicts: Counter[Verdict] = field(default_factory=Counter)

    def mean(self) -> float:
        """Return the mean seconds of a request."""
        return sum(self.seconds) / len(self.seconds)

    def quantiles(self, *shares: float) -> list[float]:
        """Return the seconds that these shares of all requests did not exceed."""
        ordered = sorted(self.seconds)
        return [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in shares]


async def replay(
    cache: SessionCache[IpcCloud],
    truth: Truth,
    users: Sequence[str],
    *,
    passes: int,
    clock: Clock,
    advance: Callable[[], object],
) -> Replay:
    """Let every user do so many passes of the chat session, one request after the other; users side by side.

    Args:
        cache: what answers.
        truth: has learnt the users.
        users: their e-mails.
        passes: how often each user does the whole session.
        clock: times the requests.
        advance: called after each pass of a user.

    Raises:
        CoatcheckError: of the first request that failed.
    """
    result = Replay()
    turns = asyncio.Semaphore(AT_ONCE)

    async def chat(user: str) -> None:
        async with turns:
            session = cache.session(user)
            for _ in range(passes):
                for number, step in enumerate(CHAT_SESSION):
                    began = clock.monotonic()
                    answer = await step(session)
                    result.seconds.append(clock.monotonic() - began)
                    result.verdicts[truth.judge(user, number, answer)] += 1
                advance()

    try:
        async with asyncio.TaskGroup() as group:
            for user in users:
                group.create_task(chat(user))
    except ExceptionGroup as failures:
        failure = failures.exceptions[0]
    else:
        return result
    raise failure
