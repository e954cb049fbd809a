"""An HTTP server that says exactly what a test tells it to, down to the byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def token(self) -> str | None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme == "Bearer" else None


Answer = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


def head(status: int = 200, *, headers: dict[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    return "\r\n".join([*lines, "", ""]).encode()


def reply(
    body: bytes = b"{}", status: int = 200, *, content_type: str = "application/json", **headers: str
) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    whole = (
        head(status, headers={"Content-Type": content_type, "Content-Length": str(len(body)), **named}) + body
    )

    async def answer(asked: Asked, out: asyncio.StreamWriter) -> None:
        out.write(whole)

    return answer


def success(data: object, **more: object) -> bytes:
    return json.dumps(
        {"status": "success", "data": data, "message": None, "responseCode": 0, **more}
    ).encode()


@dataclass
class LocalUpstream:
    """Answers by path, without the query; what was asked is in ``asked``."""

    base_url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    connections: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        # An address that has a host name: some leaks between users do not show on bare IP addresses.
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.base_url = f"http://localhost:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def on(self, path: str, answer: Answer) -> None:
        self.answers[path] = answer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._converse(reader, writer, self.connections)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> None:
        while not writer.is_closing():
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            method, target, _ = first.split(" ")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            asked = Asked(method, target, headers, body, connection)
            self.asked.append(asked)
            await self.answers[target.partition("?")[0]](asked, writer)
            await writer.drain()
