"""What a simulated upstream is like, chosen once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_USERS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The choices that the contract leaves open, and the size of the world.

    Attributes:
        seed: from which the whole world follows: ids, names, passwords, and the dice of the faults.
        users: how many accounts there are, 1 to 100,000.
        latency_scale: factor of all stated latencies; 0 answers at once.
        token_lifetime: seconds from a token's ``iat`` to its ``exp``.
        success_code: the envelope's ``responseCode`` on success.
        failure_word: the envelope's ``status`` on failure.
        endpoints_take: which id the endpoint list accepts; the other one is unknown to it.
        none_is_404: whether "no load balancers" is said by HTTP 404 or by a 200 with ``failed``.
    """

    seed: int = 1
    users: int = 20
    latency_scale: float = 1.0
    token_lifetime: int = 600
    success_code: int = 0
    failure_word: str = "failure"
    endpoints_take: Literal["paas", "ipc", "either"] = "paas"
    none_is_404: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.users <= MOST_USERS:
            raise ValueError(f"users must be 1 to {MOST_USERS}, got {self.users}")
        if not 0 <= self.latency_scale < float("inf"):
            raise ValueError(f"latency_scale must be a number not below 0, got {self.latency_scale}")
        if self.token_lifetime < 0:
            raise ValueError(f"token_lifetime must not be below 0, got {self.token_lifetime}")
        if self.failure_word == "success":
            raise ValueError("failure_word must differ from 'success'")
