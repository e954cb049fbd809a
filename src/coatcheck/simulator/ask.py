"""One authenticated question to the upstream, and what the one who asks may see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from coatcheck.simulator.answer import Answer, RefusedCall, envelope
from coatcheck.simulator.ids import IdSpace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coatcheck.simulator.estate import Endpoint, Engagement
    from coatcheck.simulator.rule import Rule
    from coatcheck.simulator.settings import Settings
    from coatcheck.simulator.world import World

_Kind = TypeVar("_Kind", bound="Rule")
_LONGEST_ID = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A call with a good token.

    Attributes:
        world: who owns what.
        settings: the choices of this upstream.
        engagements: what the user may see, in order; never empty.
        params: the variable parts of the path.
        query: the query string.
        body: as it was sent.
        rules: the faults that happen to this call.
    """

    world: World
    settings: Settings
    engagements: tuple[Engagement, ...]
    params: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    rules: tuple[Rule, ...]

    def rule(self, kind: type[_Kind]) -> _Kind | None:
        """Return the fault of this kind that happens to this call, or None."""
        return next((rule for rule in self.rules if isinstance(rule, kind)), None)

    def success(self, data: object, message: str | None = "success", code: int | None = None) -> Answer:
        """Return the data in a success envelope."""
        code = self.settings.success_code if code is None else code
        return Answer(chunks=(envelope("success", data, message, code),))

    def number(self) -> int:
        """Return the id in the path.

        Raises:
            RefusedCall: 400, it is not a number.
        """
        text = self.params["id"]
        if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_ID):
            raise RefusedCall(400, "Invalid id format")
        return int(text)

    def owner(self, space: IdSpace, ident: int) -> Engagement:
        """Return the engagement that an id belongs to.

        Raises:
            RefusedCall: 404, nobody has this id; 403, the user may not see it.
        """
        owner = self.world.owner(space, ident)
        if owner is None:
            raise RefusedCall(404, "Engagement not found")
        for engagement in self.engagements:
            if engagement.number == owner.number:
                return engagement
        raise RefusedCall(403, "Engagement not accessible")

    def by_paas(self) -> Engagement:
        """Return the engagement whose PaaS id is in the path; refuses as ``number`` and ``owner`` do."""
        return self.owner(IdSpace.PAAS, self.number())

    def by_ipc(self) -> Engagement:
        """Return the engagement whose IPC id is in the path; refuses as ``number`` and ``owner`` do."""
        return self.owner(IdSpace.IPC, self.number())

    def fields(self) -> dict[str, Any]:
        """Return the JSON object of the body.

        Raises:
            RefusedCall: 400, it is none.
        """
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            raise RefusedCall(400, "Request body must be a JSON object") from None

    def field_id(self, fields: dict[str, Any], name: str) -> int:
        """Return an id of the body.

        Raises:
            RefusedCall: 400, it is missing or no number.
        """
        value = fields.get(name)
        if type(value) is not int:
            raise RefusedCall(400, f"{name} must be a number")
        return value

    def field_ids(self, fields: dict[str, Any], name: str) -> list[int]:
        """Return a list of ids of the body, each once, in order.

        Raises:
            RefusedCall: 400, it is missing or holds anything but numbers.
        """
        value = fields.get(name)
        if not isinstance(value, list) or any(type(item) is not int for item in value):
            raise RefusedCall(400, f"{name} must be a list of numbers")
        return list(dict.fromkeys(value))


def own_endpoints(engagement: Engagement, wanted: list[int]) -> list[Endpoint]:
    """Return those of the wanted data centres that the engagement has, in the order wanted."""
    by_id = {endpoint.id: endpoint for endpoint in engagement.endpoints}
    return [by_id[ident] for ident in wanted if ident in by_id]
