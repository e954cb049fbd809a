"""How existing callers name what they want: ids given or resolved, and fields as plain JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from coatcheck.engine.codec import Body
from coatcheck.errors import InvalidKey
from coatcheck.ipc.resources import endpoints, ipc_engagement_id, paas_engagement_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.session import Session


async def list_of(
    session: Session, resource: Resource[Any], force: bool, arguments: Mapping[str, Any]
) -> Any:
    """Return a resource as the upstream described it, the caller's own."""
    look = await session.lookup(resource, force_refresh=force, **arguments)
    # From the body, not from the value: it has the fields that the types leave out.
    return msgspec.json.decode(look.body)


async def paas_id_of(session: Session, given: int | None) -> int:
    """Return the PaaS engagement id that was given, else the user's."""
    return await session.get(paas_engagement_id) if given is None else checked_id(given)


async def ipc_id_of(session: Session, given: int | None) -> int:
    """Return the IPC engagement id that was given, else the user's."""
    return await session.get(ipc_engagement_id) if given is None else checked_id(given)


async def endpoint_ids_of(session: Session, given: Sequence[int] | None, paas_id: int | None) -> list[int]:
    """Return the ids of the data centres that were given, else of all of the engagement's."""
    if given is not None:
        return [checked_id(each) for each in given]
    found = await session.get(endpoints, **given_ids(paas_engagement_id=paas_id))
    return [endpoint.endpoint_id for endpoint in found]


def given_ids(**arguments: int | None) -> dict[str, Any]:
    """Return those ids that were given, as arguments of a get."""
    return {name: checked_id(value) for name, value in arguments.items() if value is not None}


def checked_id(value: object) -> int:
    """Return an id as a number; callers without a type checker pass digits as well."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidKey("an id is a whole number")
    return value


def as_body(value: Any) -> Any:
    """Return a plain JSON value so that the fields which its type leaves out are kept; anything else as it is."""
    return Body(msgspec.json.encode(value)) if isinstance(value, dict | list | tuple) else value
