"""The simulator as a real HTTP server."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Any, Self

from aiohttp import hdrs, web

from coatcheck.simulator.control import Control
from coatcheck.simulator.delivery import deliver
from coatcheck.simulator.routes import ROUTES, UNKNOWN, Route, paths
from coatcheck.simulator.settings import Settings
from coatcheck.simulator.upstream import Incoming, Upstream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

    from coatcheck.simulator.world import World

_BACKLOG = 1024
# How long a handler may go on when the server closes, before it is cancelled.
_LAST_SECONDS = 0.01


class Simulator:
    """The upstream API on a port of its own, with a world made from a seed.

    Counts, faults, latencies and tokens live as long as the object; closing and starting it again is an
    upstream that was away for a while. To be used from one event loop.

    Args:
        settings: the world and its choices.
        wall: Unix time, by which tokens expire.
        monotonic: time that never goes back, for the calls by second.
        sleep: what latencies and pauses pass in.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.settings = Settings() if settings is None else settings
        self._upstream = Upstream(self.settings, wall=wall, monotonic=monotonic)
        self._sleep = sleep
        self._runner: web.AppRunner | None = None
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end.

        Raises:
            RuntimeError: the server was never started.
        """
        if self._url is None:
            raise RuntimeError("the simulator was not started")
        return self._url

    @property
    def world(self) -> World:
        """Who owns what."""
        return self._upstream.world

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, on a free port if *port* is 0, and return the URL.

        Raises:
            RuntimeError: it is listening already.
            OSError: the address cannot be used.
        """
        if self._runner is not None:
            raise RuntimeError("the simulator is running")
        listener = await _listen(host, port)
        # Cancelling handlers whose client has gone ends what hangs or drips for nobody.
        runner = web.AppRunner(
            self._app(), access_log=None, handler_cancellation=True, shutdown_timeout=_LAST_SECONDS
        )
        await runner.setup()
        await web.SockSite(runner, listener, backlog=_BACKLOG).start()
        self._runner = runner
        shown = f"[{host}]" if ":" in host else host
        self._url = f"http://{shown}:{listener.getsockname()[1]}"
        return self._url

    async def close(self) -> None:
        """Stop listening and end every connection. Closing twice does nothing."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def calls(self, user: str | None = None) -> dict[str, Any]:
        """Return what ``GET /_sim/calls`` does; of one user when one is given."""
        return self._upstream.calls.view(user)

    def reset(self) -> None:
        """Count from nothing; faults and latencies stay as they are."""
        self._upstream.calls.reset()

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults in force, each with ``hits``."""
        return self._upstream.faults.view()

    def set_faults(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """Replace all faults; an empty list ends them.

        Raises:
            BadFault: one of them cannot be used; nothing has changed.
        """
        self._upstream.set_faults(faults)

    def set_latency(self, scale: float | None = None, table: Mapping[str, float] | None = None) -> None:
        """Change the factor, the milliseconds of some calls, or both.

        Raises:
            ValueError: a figure or a name that cannot be used; nothing has changed.
        """
        self._upstream.latency.change(scale, table)

    def users(self, limit: int | None = None, offset: int = 0) -> list[dict[str, Any]]:
        """Return the accounts with what each may see under the faults in force."""
        return self._upstream.users(limit, offset)

    def truth(self, email: str) -> dict[str, Any]:
        """Return one account as ``users`` does.

        Raises:
            LookupError: there is no such account.
        """
        return self._upstream.truth(email)

    def _app(self) -> web.Application:
        app = web.Application()
        app.add_routes(Control(self._upstream).routes())
        for route in ROUTES:
            for path in paths(route):
                app.router.add_route(route.method, path, self._handler(route))
        app.router.add_route(UNKNOWN.method, UNKNOWN.path, self._handler(UNKNOWN))
        return app

    def _handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            incoming = Incoming(
                route=route,
                path=request.path,
                params=request.match_info,
                query=request.query,
                authorization=request.headers.get(hdrs.AUTHORIZATION, ""),
                cookie=hdrs.COOKIE in request.headers,
                body=await request.read(),
            )
            reply = self._upstream.receive(incoming)
            try:
                if reply.wait > 0:
                    await self._sleep(reply.wait)
                return await deliver(request, reply.answer, self._sleep)
            finally:
                self._upstream.calls.end(reply.running)

        return handle


async def _listen(host: str, port: int) -> socket.socket:
    """Return one bound socket, so that a name with several addresses still means a single port."""
    addresses = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, address = min(addresses, key=lambda found: found[0] is not socket.AF_INET)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
