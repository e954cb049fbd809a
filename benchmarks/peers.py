"""Other caches, each behind one small client, used as its own documentation shows."""

from __future__ import annotations

import importlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    # Fetches a user's resource, both by name.
    Load = Callable[[str, str], Awaitable[Any]]

TTL = 3_600


class Client(Protocol):
    """A cache in front of a loader, shared by all users."""

    get: Callable[[str, str], Awaitable[Any]]


class AioCache:
    """aiocache's decorator over memory."""

    name: ClassVar = "aiocache"
    module: ClassVar = "aiocache"

    def __init__(self, load: Load, size: int) -> None:
        cached = importlib.import_module(self.module).cached

        def key_of(_function: object, user: str, resource: str) -> tuple[str, str]:
            return user, resource

        self.get: Any = cached(ttl=TTL, key_builder=key_of)(load)


class AsyncLru:
    """async-lru's decorator."""

    name: ClassVar = "async-lru"
    module: ClassVar = "async_lru"

    def __init__(self, load: Load, size: int) -> None:
        self.get: Any = importlib.import_module(self.module).alru_cache(maxsize=size, ttl=TTL)(load)


class CacheBox:
    """cachebox's decorator over its cache with a TTL; in Rust."""

    name: ClassVar = "cachebox"
    module: ClassVar = "cachebox"

    def __init__(self, load: Load, size: int) -> None:
        cachebox = importlib.import_module(self.module)
        self.cache = cachebox.TTLCache(size, TTL)
        self.get: Any = cachebox.cached(self.cache, key_maker=_key_of_call, postprocess=None)(load)


class CacheTools:
    """cachetools' dictionary with a TTL, asked before loading."""

    name: ClassVar = "cachetools"
    module: ClassVar = "cachetools"

    def __init__(self, load: Load, size: int) -> None:
        self._cache = importlib.import_module(self.module).TTLCache(size, TTL)
        self._load = load

    async def get(self, user: str, resource: str) -> Any:
        """Look it up, else load it."""
        try:
            return self._cache[user, resource]
        except KeyError:
            value = self._cache[user, resource] = await self._load(user, resource)
            return value


class Cashews:
    """cashews' decorator over memory."""

    name: ClassVar = "cashews"
    module: ClassVar = "cashews"

    def __init__(self, load: Load, size: int) -> None:
        cache = importlib.import_module(self.module).Cache()
        cache.setup(f"mem://?size={size}")
        self.get: Any = cache(ttl=timedelta(seconds=TTL), key="{user}:{resource}")(_named(load))


class CashewsEarly:
    """cashews' decorator that reloads before the TTL ends."""

    name: ClassVar = "cashews early"
    module: ClassVar = "cashews"

    def __init__(self, load: Load, size: int, *, ttl: float, early: float) -> None:
        cache = importlib.import_module(self.module).Cache()
        cache.setup(f"mem://?size={size}")
        decorate = cache.early(
            ttl=timedelta(seconds=ttl), early_ttl=timedelta(seconds=early), key="{user}:{resource}"
        )
        self.get: Any = decorate(_named(load))


class Dogpile:
    """dogpile.cache's region over memory, asked before loading: its loaders do not wait for a loop."""

    name: ClassVar = "dogpile.cache"
    module: ClassVar = "dogpile.cache"

    def __init__(self, load: Load, size: int) -> None:
        dogpile = importlib.import_module(self.module)
        self._region = dogpile.make_region().configure("dogpile.cache.memory", expiration_time=TTL)
        self._missing = importlib.import_module("dogpile.cache.api").NO_VALUE
        self._load = load

    async def get(self, user: str, resource: str) -> Any:
        """Look it up, else load it."""
        key = f"{user}:{resource}"
        value = self._region.get(key)
        if value is self._missing:
            value = await self._load(user, resource)
            self._region.set(key, value)
        return value


class KeyValue:
    """py-key-value's memory store, asked before loading."""

    name: ClassVar = "py-key-value"
    module: ClassVar = "key_value.aio.stores.memory"

    def __init__(self, load: Load, size: int) -> None:
        self._store = importlib.import_module(self.module).MemoryStore(max_entries_per_collection=size)
        self._load = load

    async def get(self, user: str, resource: str) -> Any:
        """Look it up, else load it."""
        key = f"{user}:{resource}"
        held = await self._store.get(key)
        if held is not None:
            return held["value"]
        value = await self._load(user, resource)
        await self._store.put(key, {"value": value}, ttl=TTL)
        return value


class Theine:
    """theine's decorator; its policy is in Rust."""

    name: ClassVar = "theine"
    module: ClassVar = "theine"

    def __init__(self, load: Load, size: int) -> None:
        memoize = importlib.import_module(self.module).Memoize
        self.get: Any = memoize(size, timedelta(seconds=TTL))(_named(load))
        self.get.key(lambda user, resource: (user, resource))


PEERS: tuple[Any, ...] = (
    CacheBox,
    AsyncLru,
    CacheTools,
    Theine,
    Dogpile,
    AioCache,
    KeyValue,
    Cashews,
)


def installed() -> tuple[list[Any], list[str]]:
    """Return the clients whose library is installed, and the names of the others."""
    found, missing = [], []
    for peer in PEERS:
        try:
            importlib.import_module(peer.module)
        except ImportError:
            missing.append(peer.name)
        else:
            found.append(peer)
    return found, missing


def _named(load: Load) -> Load:
    """Return a loader whose parameters have the names that a key is made of."""

    async def fetch(user: str, resource: str) -> Any:
        return await load(user, resource)

    return fetch


def _key_of_call(user: str, resource: str) -> tuple[str, str]:
    return user, resource
