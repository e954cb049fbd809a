"""An upstream whose every answer is a decision of the test, and which notes who asked for what, and when."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from coatcheck.engine.codec import Body
from coatcheck.errors import Forbidden, NotFound, UpstreamFailed, UpstreamRejected, UpstreamUnreachable
from engine.hand_clock import HandClock
from engine.record import Connection, Load, Record
from engine.recorded_catalog import (
    BASE,
    BROKEN,
    CANCELLED,
    FORBIDDEN,
    GARBAGE,
    LET_GO,
    MISSING,
    OK,
    REFUSALS,
    REJECTED,
    UNAVAILABLE,
    Digest,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.shuffled_loop import SteppedLoop


class Failure(BaseException):
    """Not an ordinary exception."""


class Connected:
    """What connect returned: belongs to one user and to one session of theirs."""

    def __init__(self, upstream: RecordedUpstream, user: str, *, at: int) -> None:
        self.upstream = upstream
        self.user = user
        self.connected = at
        self.closed = 0

    async def load(self, resource: str, **arguments: Any) -> Any:
        return await self.upstream.answer(self, resource, arguments)

    async def aclose(self) -> None:
        self.closed += 1
        self.upstream.expect(self.closed == 1, f"connection of {self.user!r} closed twice")


class RecordedUpstream:
    """Log-ins and loads. Those that break a promise are noted as complaints, which `check()` of a `World` raises."""

    def __init__(self, loop: SteppedLoop, *, gated_connect: bool) -> None:
        self.loop = loop
        self.clock = HandClock(loop)
        self.record = Record()
        self.complaints: list[str] = []
        self.gated_connect = gated_connect
        # With whose rights all is loaded.
        self.authority = ""
        self.apis: list[Connected] = []
        # Users of whom nothing was asked since their clear.
        self.quiet_since: dict[str, int] = {}

    def expect(self, holds: bool, complaint: str) -> None:
        """Note a complaint; the next `check()` raises it, also out of a task."""
        if not holds:
            self.complaints.append(complaint)

    async def connect(self, user: str) -> Connected:
        connection = Connection(len(self.record.connections), user, at=self.record.next())
        self.record.connections.append(connection)
        self.expect(
            user not in self.quiet_since, f"connect for {user!r} though nobody asked since their clear"
        )
        if self.gated_connect:
            connection.gate = self.loop.create_future()
            if not await connection.gate:
                self.record.connect_failures.append(self.record.next())
                raise UpstreamUnreachable(f"connect {connection.serial}")
        connection.api = Connected(self, user, at=connection.called)
        self.apis.append(connection.api)
        return connection.api

    def connecting(self) -> list[Connection]:
        return [each for each in self.record.connections if each.gate is not None and not each.gate.done()]

    def finish_connect(self, connection: Connection, *, ok: bool = True) -> None:
        assert connection.gate is not None
        if not connection.gate.done():
            connection.gate.set_result(ok)

    async def answer(self, api: Connected, resource: str, arguments: dict[str, Any]) -> Any:
        load = Load(
            self.record.next_serial(),
            api.user,
            resource,
            arguments,
            api,
            at=self.record.next(),
            now=self.clock.now,
        )
        load.node, load.authority = self.record.node, self.authority
        self.record.loads[load.serial] = load
        self._check_call(load)
        load.gate = self.loop.create_future()
        while True:
            try:
                kind, number = await asyncio.shield(load.gate)
                break
            except asyncio.CancelledError:
                load.kind = LET_GO
                if not load.stubborn:
                    raise
        try:
            return self._bring(load, kind, number)
        finally:
            load.ended, load.ended_at = self.record.next(), self.clock.now
            if load.kind is None:
                load.kind = kind
                if kind in REFUSALS:
                    self.record.refusals.append(load)

    def finish(self, load: Load, kind: str = OK, number: int = 1) -> None:
        """Let a load end; an ordinary one with a value of the given *number*."""
        assert load.gate is not None
        if not load.gate.done():
            load.gate.set_result((kind, number))

    def finish_those(self, resource: str | None = None, kind: str = OK, number: int = 1) -> None:
        """Let all loads that wait end alike, or those of one resource."""
        for load in self.record.waiting():
            if resource in {None, load.resource}:
                self.finish(load, kind, number)

    def _check_call(self, load: Load) -> None:
        api = load.api
        assert api is not None
        self.expect(api.closed == 0, f"{load} on a closed connection")
        self.expect(load.user not in self.quiet_since, f"{load} though nobody asked since their clear")
        since = max((begun for user, begun, _ in self.record.clears if user == load.user), default=0)
        self.expect(api.connected > since, f"{load} on a connection of a cleared session")
        if load.resource == "digest" and load.arguments["account"].owner != "passed":
            same = load.arguments["account"].number == load.arguments["number"]
            self.expect(same, f"{load} mixes two accounts")
        for name in ("account", "page"):
            value = load.arguments.get(name)
            if value is not None and value.owner != "passed":
                self.expect(value.owner == load.user, f"{load} was given what belongs to {value.owner!r}")

    def _bring(self, load: Load, kind: str, number: int) -> Any:
        if kind == OK:
            return self.content(load, number)
        told = f"load {load.serial}"
        raising: dict[str, Callable[[], BaseException]] = {
            UNAVAILABLE: lambda: UpstreamFailed(told, status=503),
            FORBIDDEN: lambda: Forbidden(told),
            MISSING: lambda: NotFound(told),
            REJECTED: lambda: UpstreamRejected(told, status=400),
            BROKEN: lambda: ValueError(told),
            CANCELLED: lambda: asyncio.CancelledError(told),
            BASE: lambda: Failure(told),
        }
        if kind in raising:
            error = raising[kind]()
            raise error
        return Body(b'{"load": ') if kind == GARBAGE else object()

    def content(self, load: Load, number: int) -> Any:
        """Return what a load brings, and note the bytes."""
        user, serial, given = load.user, load.serial, load.arguments
        plain: dict[str, Any]
        if load.resource == "account":
            plain = {"owner": user, "number": number, "load": serial}
        elif load.resource == "notes":
            plain = {"load": serial, "owner": user, "lines": [number, [number]]}
        elif load.resource == "page":
            plain = {"load": serial, "owner": user, "number": given["number"], "region": given["region"]}
        elif load.resource == "digest":
            plain = {"load": serial, "owner": user, "account_number": given["account"].number, "number": given["number"]}  # fmt: skip
        else:
            plain = {"load": serial, "owner": user, "page_load": given["page"].load}
        load.body = msgspec.json.encode(plain)
        if load.resource == "notes":
            return plain
        if load.resource == "digest":
            return Digest(**plain)
        return Body(load.body)
