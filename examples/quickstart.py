"""Declare what is slow, read it per user. Run it: ``.venv/bin/python examples/quickstart.py``."""

import asyncio
from datetime import timedelta

import msgspec

from coatcheck import Catalog, Policy, SessionCache


class Account(msgspec.Struct, frozen=True):
    """What the API tells of a user."""

    id: int
    plan: str


class Api:
    """Your API as one user sees it: a client with that user's credentials. Here it only takes its time."""

    def __init__(self, user: str) -> None:
        self.user = user

    async def account(self) -> Account:
        """Return the user's account."""
        await asyncio.sleep(0.3)  # noqa: TID251 - stands for the network
        return Account(id=len(self.user), plan="gold")

    async def zones(self, account: int) -> tuple[str, ...]:
        """Return the zones of an account."""
        await asyncio.sleep(0.3)  # noqa: TID251 - stands for the network
        return (f"zone-{account}-a", f"zone-{account}-b")


catalog: Catalog[Api] = Catalog("shop")


@catalog.resource(Policy(ttl=timedelta(hours=24), refresh_ahead=0.9))
async def account(api: Api) -> Account:
    """Fetch the account: once a day for each user."""
    return await api.account()


@catalog.derived
def account_id(account: Account) -> int:
    """Take the id from it: costs no call."""
    return account.id


@catalog.resource(Policy(ttl=timedelta(hours=1)))
async def zones(api: Api, account_id: int) -> tuple[str, ...]:
    """Fetch the zones of the account, which the parameter's name asks for."""
    return await api.zones(account_id)


async def main() -> None:
    """Ask twice for each of two users."""
    async with SessionCache(catalog, connect=Api) as cache:
        for user in ("ann@example.com", "bo@example.com", "ann@example.com", "bo@example.com"):
            look = await cache.session(user).lookup(zones)
            print(f"{user}: {look.outcome.value}, {look.value}")
        total = cache.stats().total
        print(f"{total.gets} gets, {total.loads} loads, {total.calls_saved} calls saved")


if __name__ == "__main__":
    asyncio.run(main())
