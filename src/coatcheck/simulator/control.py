"""The simulator's own paths, under ``/_sim``; they are neither counted nor delayed nor broken."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

if TYPE_CHECKING:
    from coatcheck.simulator.documents import Document
    from coatcheck.simulator.upstream import Upstream

_USERS_AT_ONCE = 20


class _Changes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to change about the latencies."""

    scale: float | None = None
    table: dict[str, float] | None = None


class Control:
    """Shows and changes a running simulator over HTTP.

    A request that cannot be followed changes nothing and is answered by 400 and ``{"error": one line}``.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def routes(self) -> list[web.RouteDef]:
        """Return what to put into the router."""
        return [
            web.get("/_sim/calls", self.calls),
            web.post("/_sim/reset", self.reset),
            web.get("/_sim/faults", self.faults),
            web.post("/_sim/faults", self.set_faults),
            web.get("/_sim/latency", self.latency),
            web.post("/_sim/latency", self.set_latency),
            web.get("/_sim/users", self.users),
        ]

    async def calls(self, request: web.Request) -> web.Response:
        """The counts since the last reset; of one user with ``?user=``."""
        return _json(self._upstream.calls.view(request.query.get("user")))

    async def reset(self, _: web.Request) -> web.Response:
        """Count from nothing; faults and latencies stay as they are."""
        self._upstream.calls.reset()
        return _json(self._upstream.calls.view())

    async def faults(self, _: web.Request) -> web.Response:
        """The faults in force and how often each happened."""
        return _json(self._upstream.faults.view())

    async def set_faults(self, request: web.Request) -> web.Response:
        """Replace all faults by a list of them; ``[]`` ends them all."""
        try:
            self._upstream.set_faults(msgspec.json.decode(await request.read()))
        except (ValueError, RecursionError) as error:
            return _bad(error)
        return _json(self._upstream.faults.view())

    async def latency(self, _: web.Request) -> web.Response:
        """The factor and the milliseconds by name."""
        return _json(self._upstream.latency.view())

    async def set_latency(self, request: web.Request) -> web.Response:
        """Change the factor, some of the milliseconds, or both."""
        try:
            changes = msgspec.json.decode(await request.read(), type=_Changes)
            self._upstream.latency.change(changes.scale, changes.table)
        except (ValueError, RecursionError) as error:
            return _bad(error)
        return _json(self._upstream.latency.view())

    async def users(self, request: web.Request) -> web.Response:
        """The accounts and what each may see; a part of them with ``?limit=`` and ``?offset=``."""
        try:
            limit, offset = _whole(request, "limit"), _whole(request, "offset")
        except ValueError as error:
            return _bad(error)
        first = 0 if offset is None else offset
        last = self._upstream.settings.users if limit is None else first + limit
        found: list[Document] = []
        for start in range(first, min(last, self._upstream.settings.users), _USERS_AT_ONCE):
            found += self._upstream.users(min(_USERS_AT_ONCE, last - start), start)
            # Thousands take seconds; other calls are answered meanwhile.
            await asyncio.sleep(0)
        return _json(found)


def _whole(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{name} must be a whole number, not below 0")
    return int(text)


def _json(content: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), content_type="application/json")


def _bad(error: Exception) -> web.Response:
    return web.Response(
        status=400, body=msgspec.json.encode({"error": str(error)}), content_type="application/json"
    )
