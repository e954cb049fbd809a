"""The drop-in service: the one object that existing callers of IPC Cloud use, with the cache behind it.

Names, argument order, defaults and results are a contract with programs that are not changed. Whatever it returns is
the caller's own: changing it changes nothing cached.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from coatcheck.clock import SystemClock
from coatcheck.engine.keys import check_user, current_user
from coatcheck.errors import (
    CoatcheckError,
    InvalidKey,
    LoadError,
    PolicyError,
    SessionCleared,
    UnknownResource,
)
from coatcheck.ipc import live
from coatcheck.ipc.asking import Asking, as_body, checked_id, given_ids, latest_was_stale
from coatcheck.ipc.held import HeldSessions, held_fields, loaded_at, policy_with_ttl
from coatcheck.ipc.models import Engagement
from coatcheck.ipc.resources import (
    business_units,
    catalog,
    endpoints,
    engagement_data,
    environments_list,
    ipc_engagement_id,
    paas_engagement_id,
    zones_list,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from coatcheck.clock import Clock
    from coatcheck.engine.cache import SessionCache
    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.session import Session
    from coatcheck.ipc.api import IpcCloud

logger = logging.getLogger("coatcheck.ipc")

DEFAULT_USER: Final = "default"
"""Whose session is used when nobody is named and no default e-mail is configured."""

_EVERYONE: Any = object()
# What a caller is told as a failure; anything else that is raised is a mistake in the program and reaches it.
_FAILURES = (LoadError, SessionCleared)


class APIExecutorService:
    """What many requests of an IPC Cloud user need, fetched once and kept for that user.

    ``user_id`` None means the current user (`coatcheck.current_user`), else the default e-mail, else ``"default"``.
    Methods may be called concurrently, from any task, thread or loop. An answer that is a dictionary has
    ``"stale": True`` if something in it had expired and could not be had anew in time; see `latest_was_stale`.

    Args:
        cache: a cache of the IPC catalog (`coatcheck.ipc.resources.catalog`).
        default_email: the user when none is named and none is current.
        strict: refuse a call that names no user, with `InvalidKey`, instead of falling back to the default one.
        clock: the time, for dates and durations shown.
        aclose: awaited by `close()` after the cache has closed.
    """

    def __init__(
        self,
        cache: SessionCache[IpcCloud],
        *,
        default_email: str | None = None,
        strict: bool = False,
        clock: Clock | None = None,
        aclose: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._cache = cache
        self._default_email = default_email
        self._strict = strict
        self._clock = SystemClock() if clock is None else clock
        self._aclose = aclose

    def __repr__(self) -> str:
        return f"<APIExecutorService: {self._cache!r}>"

    # -- ids ----------------------------------------------------------------------------------------------------

    async def get_engagement_id(self, force_refresh: bool = False, user_id: str | None = None) -> int | None:
        """Return the user's PaaS engagement id, or None when it can't be had."""
        return await self._value(paas_engagement_id, user_id, force_refresh, {})

    async def get_ipc_engagement_id(
        self, engagement_id: int | None = None, user_id: str | None = None, force_refresh: bool = False
    ) -> int | None:
        """Return the IPC id of the user's engagement, or of the one given, or None when it can't be had."""
        return await self._value(
            ipc_engagement_id, user_id, force_refresh, given_ids(paas_engagement_id=engagement_id)
        )

    # -- lists that are kept ------------------------------------------------------------------------------------

    async def get_endpoints(
        self, engagement_id: int | None = None, user_id: str | None = None, force_refresh: bool = False
    ) -> list[dict[str, Any]] | None:
        """Return the data centres as the upstream describes them, or None when they can't be had."""
        asking = self._asking(user_id)
        try:
            found: list[dict[str, Any]] = await asking.list_of(
                endpoints, force_refresh, given_ids(paas_engagement_id=engagement_id)
            )
        except _FAILURES as error:
            _note("get_endpoints", error)
            return None
        return asking.answer(found)

    async def get_business_units_list(
        self, ipc_engagement_id: int | None = None, user_id: str | None = None, force_refresh: bool = False
    ) -> dict[str, Any]:
        """Return ``{success, data, engagement, departments, ipc_engagement_id}``, or a failure with ``error``."""

        def shape(data: Any) -> dict[str, Any]:
            return {"data": data, "engagement": data.get("engagement"), "departments": data["department"]}

        return await self._listed(business_units, ipc_engagement_id, user_id, force_refresh, shape)

    async def get_environments_list(
        self, ipc_engagement_id: int | None = None, user_id: str | None = None, force_refresh: bool = False
    ) -> dict[str, Any]:
        """Return ``{success, data, environments, ipc_engagement_id}``, or a failure with ``error``."""
        return await self._listed(
            environments_list,
            ipc_engagement_id,
            user_id,
            force_refresh,
            lambda data: {"data": data, "environments": data},
        )

    async def get_zones_list(
        self, ipc_engagement_id: int | None = None, user_id: str | None = None, force_refresh: bool = False
    ) -> dict[str, Any]:
        """Return ``{success, data, zones, ipc_engagement_id}``, or a failure with ``error``."""
        return await self._listed(
            zones_list, ipc_engagement_id, user_id, force_refresh, lambda data: {"data": data, "zones": data}
        )

    async def list_endpoints(
        self, engagement_id: int | None = None, user_id: str | None = None
    ) -> dict[str, Any]:
        """Return ``{success, data: {endpoints: [{id, name, type, region, status}], total, engagement_id}, message}``."""
        asking = self._asking(user_id)
        try:
            paas_id = await asking.paas_id(engagement_id)
            found = await asking.get(endpoints, paas_engagement_id=paas_id)
        except _FAILURES as error:
            return _live_failure("list_endpoints", error)
        return asking.answer(
            {
                "success": True,
                "data": {
                    "endpoints": live.endpoint_rows(found),
                    "total": len(found),
                    "engagement_id": paas_id,
                },
                "message": f"{len(found)} endpoints",
            }
        )

    # -- live lists ---------------------------------------------------------------------------------------------

    async def list_clusters(
        self,
        endpoint_ids: Sequence[int] | None = None,
        engagement_id: int | None = None,
        user_id: str | None = None,
    ) -> dict[str, Any]:
        """Return ``{success, data, endpoint_data, errors}`` of the clusters as they are now.

        What one data centre fails to tell is in ``errors``. A stream that was cut or could not be read is no success;
        ``data`` has what came.
        """
        asking = self._asking(user_id)
        try:
            paas_id = await asking.paas_id(engagement_id)
            wanted = await asking.endpoint_ids(endpoint_ids, paas_id)
            listing = await asking.live(lambda api: api.clusters(paas_id, wanted))
        except _FAILURES as error:
            return {**_failure("list_clusters", error), **live.no_clusters(str(error))}
        return asking.answer(live.cluster_answer(listing))

    async def list_vms(
        self,
        ipc_engagement_id: int | None = None,
        endpoint_filter: str | None = None,
        zone_filter: str | None = None,
        department_filter: str | None = None,
        user_id: str | None = None,
    ) -> dict[str, Any]:
        """Return the virtual machines as they are now, filtered by parts of names whatever their case.

        ``{success, data, total, total_unfiltered, last_synced, ipc_engagement_id, filters_applied, duration_seconds,
        message}``.
        """
        began = self._clock.monotonic()
        asking = self._asking(user_id)
        try:
            ipc_id = await asking.ipc_id(ipc_engagement_id)
            listed = await asking.live(lambda api: api.vms(ipc_id))
        except _FAILURES as error:
            return {**_live_failure("list_vms", error), "total": 0}
        filters = {"endpoint": endpoint_filter, "zone": zone_filter, "department": department_filter}
        return asking.answer(
            {
                **live.vm_answer(listed.raw, filters),
                "ipc_engagement_id": ipc_id,
                "duration_seconds": self._clock.monotonic() - began,
            }
        )

    async def list_managed_services(
        self,
        service_type: str,
        endpoint_ids: Sequence[int] | None = None,
        ipc_engagement_id: int | None = None,
        user_id: str | None = None,
    ) -> dict[str, Any]:
        """Return the managed services of one type as they are now.

        ``{success, data, total, service_type, ipc_engagement_id, endpoints, message}``.
        """
        asking = self._asking(user_id)
        try:
            ipc_id, wanted = await asking.ipc_and_endpoint_ids(ipc_engagement_id, endpoint_ids)
            listed = await asking.live(lambda api: api.managed_services(ipc_id, wanted, service_type))
        except _FAILURES as error:
            return {
                **_live_failure("list_managed_services", error),
                "total": 0,
                "service_type": service_type,
            }
        found = msgspec.json.decode(listed.raw)
        return asking.answer(
            {
                "success": True,
                "data": found,
                "total": len(found),
                "service_type": service_type,
                "ipc_engagement_id": ipc_id,
                "endpoints": wanted,
                "message": f"{len(found)} services of type {service_type}",
            }
        )

    # -- sessions -----------------------------------------------------------------------------------------------

    def _get_user_id_from_email(self, email: str | None = None) -> str:
        """Return *email* as given, else the current user, else the configured default, else ``"default"``.

        Raises:
            InvalidKey: strict, and nobody is named; or who is named cannot be a user.
        """
        if email is not None:
            return check_user(email)
        current = current_user.get()
        if current is not None:
            return check_user(current)
        if self._strict:
            raise InvalidKey("no user is named: pass user_id, or set coatcheck.current_user in a middleware")
        return self._default_user()

    async def _get_user_session(
        self, user_id: str | None = None, force_refresh: bool = False
    ) -> dict[str, Any]:
        """Return a copy of what is held and fresh, with ``cached_at``; ``{}`` when nothing is, or when forced."""
        session = self._session(user_id)
        return {} if force_refresh else held_fields(session, self._clock)

    async def _update_user_session(self, user_id: str | None = None, **fields: Any) -> None:
        """Store the named fields, each as if loaded now; ``paas_engagement_id=X`` makes X the user's engagement.

        Raises:
            UnknownResource: a name is no field of a session. Nothing is stored then.
        """
        session = self._session(user_id)
        unknown = [name for name in fields if name not in {resource.name for resource in catalog}]
        if unknown:
            raise UnknownResource(f"{unknown[0]!r} is no field of a session; there are: {_names()}")
        # In declared order: what a field is filed under may depend on one before it.
        if "engagement_data" in fields:
            await session.put(engagement_data, as_body(fields["engagement_data"]))
        if "paas_engagement_id" in fields:
            await self._move(session, checked_id(fields["paas_engagement_id"]))
        for resource in (ipc_engagement_id, endpoints, business_units, environments_list, zones_list):
            if resource.name in fields:
                await session.put(resource, as_body(fields[resource.name]))

    async def _clear_user_session(self, user_id: str | None = _EVERYONE) -> None:
        """Clear that user, credentials included; called with no argument at all, everyone.

        Raises:
            InvalidKey: the user is None or empty, which never means everyone.
        """
        if user_id is _EVERYONE:
            await self._cache.clear_all()
        else:
            await self._cache.clear(check_user(user_id))

    async def close(self) -> None:
        """End all sessions; later calls raise `CacheClosed`."""
        await self._cache.aclose()
        if self._aclose is not None:
            await self._aclose()

    @property
    def latest_was_stale(self) -> bool:
        """Whether the latest answer in this context came, in whole or in part, from what had expired.

        While the upstream is unavailable or late, what expired less than a day ago is answered still. A dictionary says
        so itself, by ``"stale": True``; for a number or a list ask here, in the task that awaited it: a task that was
        made for the call alone, as ``asyncio.gather`` makes them, keeps this to itself.
        """
        return latest_was_stale()

    @property
    def session_cache_duration(self) -> timedelta:
        """How long each field is fresh. Assigning changes it for what is held, too; nothing expired is fresh again.

        How much longer a field may bridge an outage does not depend on it.
        """
        return self._cache.policy(engagement_data).ttl

    @session_cache_duration.setter
    def session_cache_duration(self, duration: timedelta) -> None:
        if not isinstance(duration, timedelta):
            raise PolicyError("session_cache_duration is a timedelta, such as timedelta(hours=24)")
        self._cache.set_policies(
            {
                resource: policy_with_ttl(self._cache.policy(resource), duration)
                for resource in catalog
                if not resource.derived
            }
        )

    @property
    def user_sessions(self) -> Mapping[str, Mapping[str, Any]]:
        """A read-only view by user: ``cached_at`` and the fields that are held and fresh."""
        return HeldSessions(self._cache, self._clock)

    @property
    def cached_engagement(self) -> dict[str, Any] | None:
        """The default user's engagement, if it is held: never another's."""
        look = self._cache.session(self._default_user()).peek(engagement_data)
        return None if look is None else msgspec.json.decode(look.body)

    @property
    def engagement_cache_time(self) -> datetime | None:
        """When the default user's engagement was loaded (UTC)."""
        look = self._cache.session(self._default_user()).peek(engagement_data)
        return None if look is None else loaded_at(look, self._clock)

    @property
    def engagement_cache_duration(self) -> timedelta:
        """How long it is kept."""
        return self.session_cache_duration

    # -- inside -------------------------------------------------------------------------------------------------

    def _default_user(self) -> str:
        return DEFAULT_USER if self._default_email is None else self._default_email

    def _session(self, user_id: str | None) -> Session:
        return self._cache.session(self._get_user_id_from_email(user_id))

    def _asking(self, user_id: str | None) -> Asking:
        return Asking(self._session(user_id))

    async def _value(
        self, resource: Resource[int], user_id: str | None, force: bool, arguments: dict[str, Any]
    ) -> int | None:
        asking = self._asking(user_id)
        try:
            found = await asking.get(resource, force_refresh=force, **arguments)
        except _FAILURES as error:
            _note(resource.name, error)
            return None
        return asking.answer(found)

    async def _listed(
        self,
        resource: Resource[Any],
        given_id: int | None,
        user_id: str | None,
        force: bool,
        shape: Callable[[Any], dict[str, Any]],
    ) -> dict[str, Any]:
        asking = self._asking(user_id)
        try:
            ipc_id = await asking.ipc_id(given_id)
            data = await asking.list_of(resource, force, {"ipc_engagement_id": ipc_id})
        except _FAILURES as error:
            return _failure(resource.name, error)
        return asking.answer({"success": True, **shape(data), "ipc_engagement_id": ipc_id})

    async def _move(self, session: Session, paas_id: int) -> None:
        held = session.peek(engagement_data)
        if held is not None and held.value.id == paas_id:
            # Stored again, so that an older load under way does not move the user elsewhere.
            await session.put(engagement_data, as_body(msgspec.json.decode(held.body)))
        else:
            await session.put(engagement_data, Engagement(id=paas_id))


def _names() -> str:
    return ", ".join(resource.name for resource in catalog)


def _note(what: str, error: CoatcheckError) -> None:
    logger.warning("%s failed: %s", what, type(error).__name__)


def _failure(what: str, error: CoatcheckError) -> dict[str, Any]:
    _note(what, error)
    return {"success": False, "error": str(error), "data": None}


def _live_failure(what: str, error: CoatcheckError) -> dict[str, Any]:
    return {**_failure(what, error), "message": str(error)}
