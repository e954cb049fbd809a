"""What was fetched once is there after a restart.

Run it twice: ``.venv/bin/python examples/restart.py /tmp/shop/sessions``.
"""

import asyncio
import sys
from datetime import timedelta

from coatcheck import Catalog, Policy, SessionCache
from coatcheck.stores import SQLiteStore


class Api:
    """Your API as one user sees it: a client with that user's credentials. Here it only takes its time."""

    def __init__(self, user: str) -> None:
        self.user = user

    async def zones(self) -> tuple[str, ...]:
        """Return the user's zones."""
        await asyncio.sleep(0.3)  # noqa: TID251 - stands for the network
        return (f"{self.user}: a", f"{self.user}: b")


catalog: Catalog[Api] = Catalog("shop")


@catalog.resource(Policy(ttl=timedelta(hours=24)))
async def zones(api: Api) -> tuple[str, ...]:
    """Fetch the zones: once a day for each user, however often the program starts."""
    return await api.zones()


async def main(path: str) -> None:
    """Ask once, and say whether it was there."""
    # Sealed with the keys in the file beside it, which is made when it is not there.
    async with SessionCache(catalog, connect=Api, store=SQLiteStore(path)) as cache:
        look = await cache.session("ann@example.com").lookup(zones)
        print(f"{look.outcome.value}, {look.age:.1f} s old: {look.value}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: restart.py PATH, where the sessions are to be stored")
    asyncio.run(main(sys.argv[1]))
