"""What every fault has in common: for which calls it is meant and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec
from msgspec import Meta

from coatcheck.simulator.calls import Shape

if TYPE_CHECKING:
    from coatcheck.simulator.answer import Answer
    from coatcheck.simulator.calls import Call

EVERY_SHAPE = frozenset(Shape)


class Rule(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="kind",
):
    """One fault, in force until the list of faults is replaced.

    Attributes:
        path: the name of a route, or a part of the path as it is asked for; None means every path.
        user: an e-mail; None means everyone.
        fraction: of the matching calls, how many it meets.
        times: how often it happens at most; None means without end.
    """

    shapes: ClassVar[frozenset[Shape]] = EVERY_SHAPE

    path: Annotated[str, Meta(min_length=1)] | None = None
    user: Annotated[str, Meta(min_length=1)] | None = None
    fraction: Annotated[float, Meta(ge=0, le=1)] = 1.0
    times: Annotated[int, Meta(ge=1)] | None = None

    def meant_for(self, call: Call, names: frozenset[str]) -> bool:
        """Tell whether the call is one that this fault can happen to.

        Args:
            call: the call.
            names: the names of all routes; a path that is one of them means that route alone.
        """
        if call.shape not in self.shapes or self.user not in (None, call.email):
            return False
        if self.path is None or self.path == call.name:
            return True
        return self.path not in names and self.path in call.path

    def spoil(self, answer: Answer) -> Answer:
        """Return what becomes of an answer; by default nothing does."""
        return answer
