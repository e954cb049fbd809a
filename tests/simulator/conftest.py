"""A running simulator without latency, and a client that speaks to it as a user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest

from coatcheck.simulator import Settings, Simulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LOGIN = "/portalservice/api/v1/getAuthToken"
ENGAGEMENTS = "/paasservice/paas/engagements"
ONE = "user-0001@tenant-0001.example"
TWO = "user-0002@tenant-0002.example"
"""A user with two engagements."""


@dataclass
class Got:
    """One answer, read to its end."""

    status: int
    headers: Any
    raw: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.raw)

    @property
    def data(self) -> Any:
        assert self.status == 200
        assert self.json["status"] == "success"
        return self.json["data"]


class Wall:
    """Unix time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_750_000_000.0

    def __call__(self) -> float:
        return self.now


class Caller:
    """Sends requests to one simulator, as no user or as the one given."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.session = session

    async def login(self, email: str) -> str:
        truth = self.simulator.truth(email)
        got = await self.post(LOGIN, {"email": email, "password": truth["password"]})
        assert got.json["statusCode"] == 200
        token: str = got.json["accessToken"]
        return token

    async def get(self, path: str, token: str | None = None, **options: Any) -> Got:
        return await self._send("GET", path, token, **options)

    async def post(self, path: str, body: object, token: str | None = None, **options: Any) -> Got:
        return await self._send("POST", path, token, data=msgspec.json.encode(body), **options)

    async def _send(self, method: str, path: str, token: str | None, **options: Any) -> Got:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with self.session.request(
            method, self.simulator.url + path, headers=headers, allow_redirects=False, **options
        ) as response:
            return Got(response.status, response.headers, await response.read())


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
async def simulator(wall: Wall) -> AsyncIterator[Simulator]:
    async with Simulator(Settings(seed=7, users=12, latency_scale=0), wall=wall) as simulator:
        yield simulator


@pytest.fixture
async def caller(simulator: Simulator) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession() as session:
        yield Caller(simulator, session)
