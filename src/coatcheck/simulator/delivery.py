"""Sends an answer, as well or as badly as it says."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import web

from coatcheck.simulator.answer import Answer, Ending

Sleep = Callable[[float], Awaitable[None]]
Headers = tuple[tuple[str, str], ...]

_LINGER_NOT_AT_ALL = struct.pack("ii", 1, 0)


async def deliver(request: web.Request, answer: Answer, sleep: Sleep) -> web.StreamResponse:
    """Send *answer*; a client that goes away meanwhile is no error."""
    if answer.ending is Ending.NEVER:
        await asyncio.Event().wait()
    if answer.ending is Ending.RESET:
        _abort(request)
        return web.Response()
    headers = (("Content-Type", answer.content_type), *answer.headers)
    if isinstance(answer.chunks, tuple) and len(answer.chunks) <= 1 and _is_plain(answer):
        return web.Response(status=answer.status, headers=headers, body=answer.body)
    return await _deliver_in_pieces(request, answer, headers, sleep)


def _is_plain(answer: Answer) -> bool:
    return answer.ending is Ending.WHOLE and answer.length is None and answer.pause == 0


async def _deliver_in_pieces(
    request: web.Request, answer: Answer, headers: Headers, sleep: Sleep
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = answer.length
    try:
        await response.prepare(request)
        for chunk in answer.chunks:
            if answer.pause > 0:
                await sleep(answer.pause)
            if chunk:
                await response.write(chunk)
        if answer.ending is Ending.CUT:
            _close(request)
        else:
            await response.write_eof()
    except ConnectionError:
        # The client has gone; there is nobody to tell.
        pass
    return response


def _close(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()


def _abort(request: web.Request) -> None:
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        # Without lingering the peer gets a reset instead of an orderly end.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT_AT_ALL)
    transport.close()
