"""What is held of a user's session, as existing callers know it: a dictionary of fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from coatcheck.ipc.resources import catalog

if TYPE_CHECKING:
    from coatcheck.clock import Clock
    from coatcheck.engine.cache import SessionCache
    from coatcheck.engine.entry import Lookup
    from coatcheck.engine.policy import Policy
    from coatcheck.engine.session import Session
    from coatcheck.ipc.api import IpcCloud


class HeldSessions(Mapping[str, Mapping[str, Any]]):
    """A read-only view of all sessions in which something is held and fresh. Each look at it makes new copies."""

    def __init__(self, cache: SessionCache[IpcCloud], clock: Clock) -> None:
        self._cache = cache
        self._clock = clock

    def __repr__(self) -> str:
        return f"<{len(self)} sessions>"

    def __getitem__(self, user: str) -> Mapping[str, Any]:
        fields = held_fields(self._cache.session(user), self._clock) if user in self._cache.users() else {}
        if not fields:
            raise KeyError("nothing is held for this user")
        return fields

    def __iter__(self) -> Iterator[str]:
        return (user for user in self._cache.users() if self._holds(user))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _holds(self, user: str) -> bool:
        session = self._cache.session(user)
        return any(session.peek(resource) is not None for resource in catalog)


def held_fields(session: Session, clock: Clock) -> dict[str, Any]:
    """Return copies of the fields that are held and fresh, and ``cached_at``, the time of the oldest (UTC).

    ``{}`` when there are none.
    """
    looks = {resource.name: session.peek(resource) for resource in catalog}
    held = {name: look for name, look in looks.items() if look is not None}
    if not held:
        return {}
    fields: dict[str, Any] = {name: msgspec.json.decode(look.body) for name, look in held.items()}
    return {"cached_at": min(loaded_at(look, clock) for look in held.values()), **fields}


def loaded_at(look: Lookup[Any], clock: Clock) -> datetime:
    """Return when the load of a value began (UTC)."""
    return datetime.fromtimestamp(clock.wall() - look.age, UTC)


def policy_with_ttl(policy: Policy, ttl: timedelta) -> Policy:
    """Return *policy* with another ttl; without refresh ahead if so short a ttl leaves no time for it.

    Raises:
        PolicyError: the ttl is not longer than zero.
    """
    changed = msgspec.structs.replace(policy, ttl=ttl)
    late = msgspec.structs.replace(changed, refresh_ahead=None)
    return late if changed.advice() != late.advice() else changed
