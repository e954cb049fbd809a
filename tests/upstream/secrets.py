"""Looks for what must not be told."""

from __future__ import annotations

CANARY = "CANARY"
"""Part of every secret in these tests: tokens, passwords, e-mails, bodies, paths."""


def assert_silent(error: BaseException | None) -> None:
    """Look through an exception and all that hangs on it."""
    seen = set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        told = (str(each), repr(each), repr(each.args), repr(vars(each)))
        assert not any(CANARY in text or CANARY.lower() in text for text in told), type(each)
        waiting += [each.__cause__, each.__context__]
