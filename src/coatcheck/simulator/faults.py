"""The faults that are switched on: read, replaced as a whole, drawn for every call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from coatcheck.simulator import breakage as b
from coatcheck.simulator import garbling as g
from coatcheck.simulator import lapses as la

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from coatcheck.simulator.calls import Call
    from coatcheck.simulator.rule import Rule

AnyRule = (
    b.Status
    | b.Html
    | b.Redirect
    | b.SetCookie
    | b.Delay
    | b.SlowBody
    | b.Hang
    | b.Reset
    | b.Cut
    | b.HugeBody
    | b.GzipBomb
    | g.InvalidJson
    | g.TruncatedJson
    | g.ByteOrderMark
    | g.WrongCharset
    | g.DuplicateKeys
    | g.DeepJson
    | g.NotANumber
    | g.BigInt
    | g.WrongType
    | g.LoneSurrogate
    | g.FailureEnvelope
    | g.DataNull
    | g.EmptyList
    | la.ExpiredToken
    | la.ShortToken
    | la.LoginFailure
    | la.ChangedEngagement
    | la.CutStream
    | la.StreamError
    | la.BadEvent
)

KINDS: tuple[str, ...] = tuple(sorted(kind.__struct_config__.tag for kind in get_args(AnyRule)))


class BadFault(ValueError):
    """A list of faults that cannot be used; the message is one line that says why."""


def parse(faults: object) -> list[Rule]:
    """Return the rules of a list as it came by JSON.

    Raises:
        BadFault: an unknown kind, or a parameter that is missing, unknown or out of range.
    """
    try:
        rules: list[Rule] = msgspec.convert(faults, list[AnyRule])
    except msgspec.ValidationError as error:
        hint = (
            f"; the kinds are {', '.join(KINDS)}" if ".kind" in str(error) or "`kind`" in str(error) else ""
        )
        raise BadFault(f"{error}{hint}") from None
    return rules


@dataclass(slots=True)
class _Armed:
    """A rule in force, how often it happened, and the newest token when it was switched on."""

    rule: Rule
    newest_token: int
    hits: int = 0


class Faults:
    """The rules in force.

    Several may meet one call; then they happen one after the other, in the order of the list.
    """

    def __init__(self, names: Iterable[str], dice: random.Random) -> None:
        self._names = frozenset(names)
        self._dice = dice
        self._armed: list[_Armed] = []

    def replace(self, faults: object, newest_token: int = 0) -> None:
        """Put these rules in the place of all that are in force, or change nothing.

        Raises:
            BadFault: as ``parse`` does.
        """
        self._armed = [_Armed(rule, newest_token) for rule in parse(faults)]

    def view(self) -> list[dict[str, Any]]:
        """Return the rules as they were given, each with ``hits``: how often it happened."""
        return [{**msgspec.to_builtins(armed.rule), "hits": armed.hits} for armed in self._armed]

    def draw(self, call: Call) -> tuple[Rule, ...]:
        """Return what happens to this call, and count it."""
        return tuple(armed.rule for armed in self._armed if self._happens(armed, call))

    def change(self, email: str) -> int | None:
        """Return which engagement stands in the place of this user's first one, or None for its own."""
        for armed in self._armed:
            rule = armed.rule
            if isinstance(rule, la.ChangedEngagement) and rule.user in (None, email):
                return rule.to
        return None

    def _happens(self, armed: _Armed, call: Call) -> bool:
        rule = armed.rule
        if not rule.meant_for(call, self._names):
            return False
        if isinstance(rule, la.ExpiredToken) and not rule.concerns(call.token, armed.newest_token):
            return False
        if rule.times is not None and armed.hits >= rule.times:
            return False
        if rule.fraction < 1 and self._dice.random() >= rule.fraction:
            return False
        armed.hits += 1
        return True
