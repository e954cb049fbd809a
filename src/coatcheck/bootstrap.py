"""Puts the parts together: the only module that names concrete ones."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast, overload

import msgspec

from coatcheck.engine.cache import SessionCache
from coatcheck.engine.stats import CacheStats, UserStats
from coatcheck.errors import KeysUnusable, NoCredentials, SettingsError, StoreFailed, StoreInUse
from coatcheck.ipc.api import IpcCloud, log_in
from coatcheck.ipc.executor import APIExecutorService
from coatcheck.ipc.held import policy_with_ttl
from coatcheck.ipc.resources import catalog
from coatcheck.settings import Settings, load
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.stores.sqlite.place import check_place, size
from coatcheck.upstream.breaker import BreakerState  # noqa: TC001 - a Struct reads its annotations
from coatcheck.upstream.client import UpstreamClient
from coatcheck.upstream.log_ins import Account, LogIns
from coatcheck.upstream.tokens import StaticToken, TokenProvider

if TYPE_CHECKING:
    from pathlib import Path

    from coatcheck.clock import Clock
    from coatcheck.engine.events import Event
    from coatcheck.engine.limits import Limits
    from coatcheck.engine.store import Store

logger = logging.getLogger("coatcheck.bootstrap")

Credentials = Callable[[str], Account | TokenProvider | None]
"""Says with what a user is logged in; None for a user that nothing is known of, who is nobody else instead."""


class UpstreamStats(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of the client that all users share.

    Attributes:
        breaker: whether calls are let through just now, and why.
        calls: calls that left, repeated ones not counted.
        repeated: calls that left once more after a failure.
        paused_users: users for whom the upstream asked to wait, and the time has not passed.
    """

    breaker: BreakerState
    calls: int
    repeated: int
    paused_users: int


class IpcStats(CacheStats, frozen=True, kw_only=True):
    """The figures of a cache of IPC Cloud.

    Attributes:
        upstream: those of its client.
    """

    upstream: UpstreamStats


class IpcCache(SessionCache[IpcCloud]):
    """A `SessionCache` of IPC Cloud that owns its client and log-ins: closing it closes them. Made by `ipc_cache`."""

    def __init__(
        self,
        client: UpstreamClient,
        log_ins: LogIns,
        credentials: Credentials,
        *,
        store: Store | None = None,
        limits: Limits | None,
        clock: Clock | None,
        on_event: Callable[[Event], object] | None,
        enabled: bool,
    ) -> None:
        self._client = client
        self._log_ins = log_ins
        self._credentials = credentials
        super().__init__(
            catalog,
            connect=self._connect,
            store=store,
            authority=self._authority,
            limits=limits,
            clock=clock,
            on_event=on_event,
            enabled=enabled,
        )

    @overload
    def stats(self) -> IpcStats: ...
    @overload
    def stats(self, user: str) -> UserStats: ...

    def stats(self, user: str | None = None) -> IpcStats | UserStats:
        """Return what was counted: of everybody, with the upstream's figures, or of one user."""
        if user is not None:
            return super().stats(user)
        figures = super().stats()
        upstream = UpstreamStats(
            breaker=self._client.breaker.state(),
            calls=self._client.retries.calls,
            repeated=self._client.retries.repeated,
            paused_users=len(self._client.cooldowns),
        )
        return IpcStats(
            **{name: getattr(figures, name) for name in figures.__struct_fields__}, upstream=upstream
        )

    async def aclose(self) -> None:
        """End all sessions, log-ins and connections. May be repeated."""
        try:
            await super().aclose()
        finally:
            await self._log_ins.aclose()
            await self._client.aclose()

    def _authority(self, user: str) -> str | None:
        """Say from where, and as whom, a user's data is loaded: kept data of another account is not theirs."""
        found = self._credentials(user)
        if found is None:
            return None
        account = found.email if isinstance(found, Account) else type(found).__qualname__
        return f"{account} at {self._client.base_url}"

    def _connect(self, user: str) -> IpcCloud:
        found = self._credentials(user)
        if found is None:
            raise NoCredentials(
                "no account is configured for this user: add one to COATCHECK_ACCOUNTS, or to accounts in the TOML file"
            )
        tokens = self._log_ins.provider(found) if isinstance(found, Account) else found
        return IpcCloud(self._client, tokens, cooldown=self._client.cooldowns.of(user))


def ipc_cache(
    settings: Settings,
    *,
    credentials: Credentials | None = None,
    store: Store | None = None,
    clock: Clock | None = None,
    enabled: bool = True,
    limits: Limits | None = None,
    on_event: Callable[[Event], object] | None = None,
) -> IpcCache:
    """Return a cache of the catalog of IPC Cloud in front of the upstream that *settings* name.

    Nothing is opened before the first use. ``async with`` closes it with its client and its log-ins, as ``aclose()``
    does.

    Args:
        settings: where the upstream is, its limits, and whose accounts are known.
        credentials: asked, instead of the settings, what each user is logged in with.
        store: keeps sessions beneath memory, across restarts, such as `session_store` returns; the cache closes it.
        clock: the time.
        enabled: False makes every get load and keeps nothing but the users' tokens.
        limits: instead of those of the settings.
        on_event: as of `SessionCache`.

    Raises:
        SettingsError: there is no upstream.
    """
    client = UpstreamClient(
        check_upstream(settings),
        clock=clock,
        timeout=settings.timeout.total_seconds(),
        max_body=settings.max_body,
    )
    cache = IpcCache(
        client,
        LogIns(partial(log_in, client), clock=clock),
        configured_credentials(settings) if credentials is None else credentials,
        store=store,
        limits=settings.limits.limits() if limits is None else limits,
        clock=clock,
        on_event=on_event,
        enabled=enabled,
    )
    if settings.ttl is not None:
        cache.set_policies(
            {
                resource: policy_with_ttl(resource.policy, settings.ttl)
                for resource in catalog
                if not resource.derived
            }
        )
    return cache


def check_upstream(settings: Settings) -> str:
    """Return where the upstream is.

    Raises:
        SettingsError: no setting tells it.
    """
    if settings.upstream_url is None:
        raise SettingsError(
            "setting COATCHECK_UPSTREAM_URL: is missing; set it, or upstream_url in the TOML file, to the upstream's"
            " http(s)://host[:port][/prefix]"
        )
    return settings.upstream_url


def configured_credentials(settings: Settings) -> Credentials:
    """Return what *settings* say about each user: the token, the account of their own, the one that everyone shares."""

    def credentials(user: str) -> Account | TokenProvider | None:
        if settings.token is not None and user == settings.default_email:
            return StaticToken(settings.token.get_secret_value())
        own = settings.accounts.get(user)
        if own is not None:
            return Account(user if own.email is None else own.email, own.password.get_secret_value())
        shared = settings.everyone_sees_data_of
        if shared is not None:
            return Account(shared.email, shared.password.get_secret_value())
        return None

    return credentials


def session_store(settings: Settings, *, clock: Clock | None = None) -> SQLiteStore | None:
    """Open the store that *settings* name; None if they say ``memory``.

    What the settings name must be usable. The default store, if it cannot be opened, as when another program has it open,
    is gone without, which is told in one line of the log; so it is without keys, unless the settings name them.

    Raises:
        StoreInUse: another program has it open.
        StoreFailed: it cannot be opened or made.
        KeysUnusable: its keys are missing, can be read by others, or cannot be made.
    """
    path = settings.store_file()
    if path is None:
        return None
    try:
        # Before there are keys for it.
        check_place(path.resolve())
        keys = settings.given_keys() or _keys_in_file(settings, path)
        return SQLiteStore(path, keys=keys, clock=clock, max_bytes=settings.max_store_bytes)
    except StoreInUse as error:
        # The store itself knows of no settings.
        failure: StoreInUse | StoreFailed | KeysUnusable = StoreInUse(
            f"{error}; COATCHECK_STORE, or store in the TOML file, names another file, or `memory` for none"
        )
    except (StoreFailed, KeysUnusable) as error:
        failure = error
    keys_named = settings.keys is not None and isinstance(failure, KeysUnusable)
    if settings.store is not None or keys_named:
        raise failure
    logger.warning("sessions are kept in memory alone and do not survive a restart: %s", failure)
    return None


def _keys_in_file(settings: Settings, store: Path) -> KeyRing:
    """Return the keys in the file that is theirs, which is made if it is not there.

    Not where the settings name one for a store that there is: a slip in the name would end what is stored.
    """
    file = settings.keys_file()
    if settings.keys is not None and size(store) > 0 and not file.exists():
        raise KeysUnusable(
            f"there is no file of keys at {file}, and the store at {store} has been sealed with other keys;"
            " `coatcheck keys new` makes one, and what is stored is removed then"
        )
    return KeyRing.at(file)


def build_executor(
    settings: Settings | None = None, *, credentials: Credentials | None = None, clock: Clock | None = None
) -> APIExecutorService:
    """Return the drop-in service over a cache and a store of its own, which its ``close()`` closes.

    Args:
        settings: None for those of the environment and the file.
        credentials: as of `ipc_cache`.
        clock: the time.

    Raises:
        SettingsError: a setting is wrong, or there is no upstream.
        StoreInUse, StoreFailed, KeysUnusable: a file that the settings name, for the store or its keys, cannot be used.
    """
    settings = load() if settings is None else settings
    check_upstream(settings)
    store = session_store(settings, clock=clock)
    return APIExecutorService(
        ipc_cache(settings, credentials=credentials, store=store, clock=clock),
        default_email=settings.default_email,
        strict=settings.strict_users,
        clock=clock,
    )


class _OnFirstUse:
    """Stands for the object that *build* returns, which is made when the first attribute is read or set.

    If that fails, it raises, and the next use tries again.
    """

    __slots__ = ("_build", "_built", "_lock")

    def __init__(self, build: Callable[[], object]) -> None:
        object.__setattr__(self, "_build", build)
        object.__setattr__(self, "_built", None)
        object.__setattr__(self, "_lock", threading.Lock())

    def __getattr__(self, name: str) -> Any:
        return getattr(_built(self), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(_built(self), name, value)

    def __dir__(self) -> list[str]:
        return dir(APIExecutorService)

    def __repr__(self) -> str:
        built = object.__getattribute__(self, "_built")
        return "<api_executor_service, not used yet>" if built is None else repr(built)


def _built(lazy: _OnFirstUse) -> object:
    # Several threads may be the first.
    with object.__getattribute__(lazy, "_lock"):
        built: object = object.__getattribute__(lazy, "_built")
        if built is None:
            built = object.__getattribute__(lazy, "_build")()
            object.__setattr__(lazy, "_built", built)
        return built


api_executor_service = cast("APIExecutorService", _OnFirstUse(build_executor))
"""The drop-in service of this process, made from its settings when it is first used."""
