"""A loader whose loads end when a test says so."""

from __future__ import annotations

import asyncio
from typing import Any

from coatcheck.testing.settling import settle


class HeldLoad:
    """One call of a `GatedLoader` that has not returned yet.

    Attributes:
        api: what the loader was called with.
        arguments: its arguments, by name.
    """

    def __init__(self, api: Any, arguments: dict[str, Any]) -> None:
        self.api = api
        self.arguments = arguments
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def waiting(self) -> bool:
        """Whether the loader still waits, neither answered nor cancelled."""
        return not self.result.done()

    async def succeed(self, value: Any) -> None:
        """Let the loader return *value*, and what follows from it happen."""
        if not self.result.done():
            self.result.set_result(value)
        await settle()

    async def fail(self, error: BaseException) -> None:
        """Let the loader raise *error*, and what follows from it happen."""
        if not self.result.done():
            self.result.set_exception(error)
        await settle()


class GatedLoader:
    """Await it inside a loader: it returns what the test gives it.

    ::

        gate = GatedLoader()

        @catalog.resource
        async def numbers(api: Api) -> tuple[int, ...]:
            return await gate(api)

        getting = asyncio.create_task(session.get(numbers))
        load = await gate.hold()
        await load.succeed((1, 2))
    """

    def __init__(self) -> None:
        self.loads: list[HeldLoad] = []
        self._handed_out = 0

    async def __call__(self, api: Any, **arguments: Any) -> Any:
        """Wait for the test's answer."""
        load = HeldLoad(api, arguments)
        self.loads.append(load)
        return await load.result

    @property
    def calls(self) -> int:
        """How often the loader was called."""
        return len(self.loads)

    async def hold(self) -> HeldLoad:
        """Return the next call that was not handed out before, waiting until it has been made.

        Raises:
            AssertionError: nobody calls.
        """
        wanted = self._handed_out
        await settle(lambda: len(self.loads) > wanted)
        self._handed_out += 1
        return self.loads[wanted]
