"""How existing callers name what they want: ids given or resolved, and fields as plain JSON values; and how stale it was."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from coatcheck.engine.codec import Body
from coatcheck.errors import InvalidKey
from coatcheck.ipc.resources import endpoints, ipc_engagement_id, paas_engagement_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.entry import Lookup
    from coatcheck.engine.session import Session
    from coatcheck.ipc.api import IpcCloud

T = TypeVar("T")

LARGEST_ID: Final = 2**63 - 1
"""As in the models."""


_latest_was_stale: ContextVar[bool] = ContextVar("coatcheck.ipc.latest_was_stale", default=False)


def latest_was_stale() -> bool:
    """Tell whether the latest answer in this context was stale."""
    return _latest_was_stale.get()


class Asking:
    """One call of an existing caller: what it needs of the user's session, and whether any of that was stale."""

    def __init__(self, session: Session) -> None:
        """Begin the call. Until it is answered the latest answer in this context is not stale."""
        self._session = session
        self._stale = False
        _latest_was_stale.set(False)

    async def get(self, resource: Resource[T], /, **options: Any) -> T:
        """Do what `Session.get` does."""
        return (await self._look(resource, **options)).value

    async def list_of(self, resource: Resource[Any], force: bool, arguments: Mapping[str, Any]) -> Any:
        """Return a resource as the upstream described it, the caller's own."""
        look = await self._look(resource, force_refresh=force, **arguments)
        # From the body, not from the value: it has the fields that the types leave out.
        return msgspec.json.decode(look.body)

    async def live(self, work: Callable[[IpcCloud], Awaitable[T]]) -> T:
        """Do what `Session.call` does."""
        return await self._session.call(work)

    def answer(self, given: T) -> T:
        """Return what the caller is given, having noted whether it, or an id on its way, is stale."""
        _latest_was_stale.set(self._stale)
        if self._stale and isinstance(given, dict):
            given["stale"] = True
        return given

    async def paas_id(self, given: int | None) -> int:
        """Return the PaaS engagement id that was given, else the user's."""
        return await self.get(paas_engagement_id) if given is None else checked_id(given)

    async def ipc_id(self, given: int | None) -> int:
        """Return the IPC engagement id that was given, else the user's."""
        return await self.get(ipc_engagement_id) if given is None else checked_id(given)

    async def endpoint_ids(self, given: Sequence[int] | None, paas_id: int) -> list[int]:
        """Return the ids of the data centres that were given, else of all of the engagement's."""
        if given is not None:
            return _checked_ids(given)
        return [found.endpoint_id for found in await self.get(endpoints, paas_engagement_id=paas_id)]

    async def ipc_and_endpoint_ids(
        self, ipc_id: int | None, endpoint_ids: Sequence[int] | None
    ) -> tuple[int, list[int]]:
        """Return both as they were given; what was not given is of one engagement, the user's."""
        wanted = None if endpoint_ids is None else _checked_ids(endpoint_ids)
        known = None if ipc_id is None else checked_id(ipc_id)
        if known is not None and wanted is not None:
            return known, wanted
        # Asked for once: the user may move to another engagement between two questions.
        paas_id = await self.get(paas_engagement_id)
        if known is None:
            known = await self.get(ipc_engagement_id, paas_engagement_id=paas_id)
        return known, await self.endpoint_ids(wanted, paas_id)

    async def _look(self, resource: Resource[T], /, **options: Any) -> Lookup[T]:
        look = await self._session.lookup(resource, **options)
        self._stale = self._stale or look.stale
        return look


def given_ids(**arguments: int | None) -> dict[str, Any]:
    """Return those ids that were given, as arguments of a get."""
    return {name: checked_id(value) for name, value in arguments.items() if value is not None}


def checked_id(value: object) -> int:
    """Return an id as a number; callers without a type checker pass digits as well."""
    if isinstance(value, str) and len(value) < len(str(LARGEST_ID)) and value.isascii() and value.isdigit():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_ID:
        raise InvalidKey("an id is a whole number, not negative, of at most 63 bits")
    # A member of an enum would be another key than its number.
    return int(value)


def _checked_ids(given: Sequence[int]) -> list[int]:
    if isinstance(given, str):
        raise InvalidKey("ids of data centres are a list of numbers, not a text")
    return [checked_id(each) for each in given]


def as_body(value: Any) -> Any:
    """Return a plain JSON value so that the fields which its type leaves out are kept; anything else as it is."""
    return Body(msgspec.json.encode(value)) if isinstance(value, dict | list | tuple) else value
