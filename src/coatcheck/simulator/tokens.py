"""Bearer tokens: shaped like the upstream's, signed with a key that follows from the seed."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from coatcheck.simulator.world import Account

_HEADER = {"alg": "RS256", "typ": "JWT", "kid": "simulator"}


class Claims(msgspec.Struct, frozen=True):
    """What the server reads from a token of its own.

    Attributes:
        email: whose it is.
        iat: when it was issued, Unix seconds.
        exp: from when on it is refused.
        jti: its running number; tokens issued later have greater ones.
    """

    email: str
    iat: int
    exp: int
    jti: int


class Tokens:
    """Issues tokens and tells its own from all others.

    The signature is an HMAC, although the header says RS256 as the upstream's does: no client can check either.
    """

    def __init__(self, seed: int) -> None:
        self._key = hashlib.blake2b(f"tokens of {seed}".encode()).digest()
        self.issued = 0

    def issue(self, account: Account, now: int, lifetime: int) -> str:
        """Return a new token of *account* that is good for *lifetime* seconds."""
        self.issued += 1
        claims = {
            "exp": now + lifetime,
            "iat": now,
            "jti": self.issued,
            "iss": "https://login.example/realms/simulator",
            "aud": "account",
            "sub": account.tag,
            "typ": "Bearer",
            "azp": "portal",
            "session_state": f"session-{self.issued}",
            "realm_access": {"roles": ["customer"]},
            "scope": "openid email profile",
            "email": account.email,
            "preferred_username": account.email,
            "name": f"User of {account.tag}",
        }
        signed = f"{_part(msgspec.json.encode(_HEADER))}.{_part(msgspec.json.encode(claims))}"
        return f"{signed}.{self._signature(signed)}"

    def read(self, token: str) -> Claims | None:
        """Return the claims of a token issued here, expired or not; None for any other text."""
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(errors="replace"), self._signature(signed).encode()):
            return None
        payload = signed.partition(".")[2]
        return msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=Claims)

    def _signature(self, signed: str) -> str:
        return _part(hmac.digest(self._key, signed.encode(errors="replace"), "sha256"))


def _part(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
