"""The world: accounts, what each may see, and whose an id is."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from coatcheck.simulator.estate import Engagement
from coatcheck.simulator.ids import Ids, IdSpace

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of the places that every user has, the first are for engagements held from the beginning, the rest for
# those that a `changed_engagement` fault puts in the place of the first.
_PLACES = 8
_OWN_PLACES = 3
CHANGES = _PLACES - _OWN_PLACES

_ENGAGEMENTS_KEPT = 512
_EMAIL = re.compile(r"user-(\d{4,6})@tenant-(\d{4,6})\.example")


@dataclass(frozen=True, slots=True)
class Account:
    """One user of the upstream.

    Attributes:
        number: 1 for the first.
        email: what the user logs in with.
        password: invented, from the seed.
        tag: contained in every name that this user may see, and in no name that another may.
        held: how many engagements the user has: 1, 2 or 3.
    """

    number: int
    email: str
    password: str
    tag: str
    held: int


class World:
    """All accounts and everything they own, as a pure function of the seed.

    It costs nothing to make and keeps only what was asked for last; a hundred thousand users are as cheap as one.
    """

    def __init__(self, seed: int, users: int) -> None:
        self.seed = seed
        self.users = users
        self._ids = Ids(seed)
        self._width = max(4, len(str(users)))
        self._engagement = lru_cache(_ENGAGEMENTS_KEPT)(self._make_engagement)

    def account(self, email: str) -> Account | None:
        """Return the account with exactly this e-mail, or None."""
        match = _EMAIL.fullmatch(email)
        if match is None:
            return None
        number = int(match[1])
        if not 1 <= number <= self.users:
            return None
        account = self._account(number)
        return account if account.email == email else None

    def accounts(self, offset: int = 0, limit: int | None = None) -> Iterator[Account]:
        """Yield the accounts in their order, at most *limit*, passing over the first *offset*."""
        end = self.users if limit is None else min(self.users, offset + limit)
        return (self._account(number) for number in range(offset + 1, end + 1))

    def engagements(self, account: Account, change: int | None = None) -> tuple[Engagement, ...]:
        """Return what *account* may see, in the order of the list.

        Args:
            account: the user.
            change: None, or 1 to ``CHANGES``: which other engagement stands in the place of the first.
        """
        places = list(range(account.held))
        if change is not None:
            places[0] = _OWN_PLACES + change - 1
        return tuple(self._engagement(account, place) for place in places)

    def owner(self, space: IdSpace, ident: int) -> Engagement | None:
        """Return the engagement that an id hangs below, or None for an id that was never given out."""
        number = self._ids.engagement(space, ident)
        if number is None:
            return None
        user, place = divmod(number, _PLACES)
        if not user < self.users:
            return None
        account = self._account(user + 1)
        if account.held <= place < _OWN_PLACES:
            return None
        return self._engagement(account, place)

    def _account(self, number: int) -> Account:
        digits = f"{number:0{self._width}d}"
        email = f"user-{digits}@tenant-{digits}.example"
        secret = hashlib.blake2b(f"{self.seed}/{email}".encode(), digest_size=9).hexdigest()
        return Account(number, email, secret, f"tenant-{digits}", _held(number))

    def _make_engagement(self, account: Account, place: int) -> Engagement:
        own = place < _OWN_PLACES
        suffix = f"e{place + 1}" if own else f"c{place - _OWN_PLACES + 1}"
        number = (account.number - 1) * _PLACES + place
        return Engagement(self._ids, self.seed, number, f"{account.tag}.{suffix}")


def _held(number: int) -> int:
    # One user in five has several, and the second one already does, so that the smallest world shows both.
    return {2: 2, 7: 3}.get(number % 10, 1)
