"""The upstream without its sockets: a call comes in, an answer and a waiting time come out."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from coatcheck.simulator.answer import Answer, RefusedCall, refusal
from coatcheck.simulator.ask import Ask
from coatcheck.simulator.breakage import Delay
from coatcheck.simulator.calls import NOBODY, Call, Calls, Shape
from coatcheck.simulator.faults import Faults
from coatcheck.simulator.lapses import ExpiredToken, LoginFailure, ShortToken
from coatcheck.simulator.latency import Latency
from coatcheck.simulator.routes import NAMES
from coatcheck.simulator.tokens import Claims, Tokens
from coatcheck.simulator.truth import account_truth
from coatcheck.simulator.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coatcheck.simulator.documents import Document
    from coatcheck.simulator.routes import Route
    from coatcheck.simulator.rule import Rule
    from coatcheck.simulator.settings import Settings
    from coatcheck.simulator.world import Account

_NO_TOKEN = "Failed to generate token after retries"  # noqa: S105 - a sentence


class Credentials(msgspec.Struct, frozen=True):
    """The body of a log-in."""

    email: str
    password: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A request as it arrived.

    Attributes:
        route: which call of the contract it is.
        path: as it was asked for.
        params: the variable parts of the path.
        query: the query string.
        authorization: that header, or an empty text.
        cookie: whether it carried any cookie.
        body: as it was sent.
    """

    route: Route
    path: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    authorization: str
    cookie: bool
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send, after so many seconds; ``running`` is to be handed to ``calls.end`` when that is over."""

    answer: Answer
    wait: float
    running: object


class Upstream:
    """The whole behaviour of the simulated API.

    Everything is decided when a call comes in: what it will be answered, by which faults and after which time.
    """

    def __init__(
        self, settings: Settings, *, wall: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self.settings = settings
        self.world = World(settings.seed, settings.users)
        self.calls = Calls(monotonic)
        self.latency = Latency(NAMES, settings.latency_scale)
        self.faults = Faults(NAMES, random.Random(settings.seed))
        self._tokens = Tokens(settings.seed)
        self._wall = wall

    def set_faults(self, faults: object) -> None:
        """Put these faults in the place of all that are in force, or raise ``BadFault`` and change nothing."""
        self.faults.replace(faults, self._tokens.issued)

    def users(self, limit: int | None = None, offset: int = 0) -> list[Document]:
        """Return the accounts with what each may see under the faults in force."""
        return [self._truth(account) for account in self.world.accounts(offset, limit)]

    def truth(self, email: str) -> Document:
        """Return one account as ``users`` does.

        Raises:
            LookupError: there is no such account.
        """
        account = self.world.account(email)
        if account is None:
            raise LookupError("no such account")
        return self._truth(account)

    def receive(self, incoming: Incoming) -> Reply:
        """Count a call and decide what comes of it."""
        claims = self._claims(incoming.authorization)
        call = self._call(incoming, claims)
        running = self.calls.begin(call, cookie=incoming.cookie)
        rules = self.faults.draw(call)
        answer = self._honest(incoming, claims, rules)
        for rule in rules:
            answer = rule.spoil(answer)
        extra = sum(rule.ms for rule in rules if isinstance(rule, Delay)) / 1000
        latency = self.latency.seconds(call.name)
        if not answer.paced:
            return Reply(answer, latency + extra, running)
        pieces = tuple(answer.chunks)
        paced = replace(answer, chunks=pieces, pause=latency / max(1, len(pieces)))
        return Reply(paced, extra, running)

    def _claims(self, authorization: str) -> Claims | None:
        scheme, _, token = authorization.partition(" ")
        return self._tokens.read(token) if scheme.lower() == "bearer" else None

    def _call(self, incoming: Incoming, claims: Claims | None) -> Call:
        route = incoming.route
        if route.shape is Shape.LOGIN:
            credentials = _credentials(incoming.body)
            email, token = (NOBODY if credentials is None else credentials.email), 0
        else:
            email, token = (NOBODY, 0) if claims is None else (claims.email, claims.jti)
        return Call(route.name, incoming.path, email, route.shape, token)

    def _honest(self, incoming: Incoming, claims: Claims | None, rules: tuple[Rule, ...]) -> Answer:
        try:
            if incoming.route.shape is Shape.LOGIN:
                return self._log_in(incoming.body, rules)
            account = self._admitted(claims, rules)
            return incoming.route.answer(self._ask(incoming, account, rules))
        except RefusedCall as refused:
            return refusal(refused.status, self.settings.failure_word, refused.message)

    def _log_in(self, body: bytes, rules: tuple[Rule, ...]) -> Answer:
        credentials = _credentials(body)
        if credentials is None:
            raise RefusedCall(400, "email and password are required")
        account = self.world.account(credentials.email)
        fails = any(isinstance(rule, LoginFailure) for rule in rules)
        if fails or account is None or account.password != credentials.password:
            return Answer(chunks=(msgspec.json.encode({"statusCode": 500, "accessToken": _NO_TOKEN}),))
        lifetimes = [rule.seconds for rule in rules if isinstance(rule, ShortToken)]
        token = self._tokens.issue(
            account, int(self._wall()), min(lifetimes, default=self.settings.token_lifetime)
        )
        return Answer(chunks=(msgspec.json.encode({"statusCode": 200, "accessToken": token}),))

    def _admitted(self, claims: Claims | None, rules: tuple[Rule, ...]) -> Account:
        account = None if claims is None else self.world.account(claims.email)
        if claims is None or account is None:
            raise RefusedCall(401, "Unauthorized")
        if claims.exp <= self._wall() or any(isinstance(rule, ExpiredToken) for rule in rules):
            raise RefusedCall(401, "Token expired")
        return account

    def _ask(self, incoming: Incoming, account: Account, rules: tuple[Rule, ...]) -> Ask:
        return Ask(
            world=self.world,
            settings=self.settings,
            engagements=self.world.engagements(account, self.faults.change(account.email)),
            params=incoming.params,
            query=incoming.query,
            body=incoming.body,
            rules=rules,
        )

    def _truth(self, account: Account) -> Document:
        return account_truth(account, self.world.engagements(account, self.faults.change(account.email)))


def _credentials(body: bytes) -> Credentials | None:
    try:
        return msgspec.json.decode(body, type=Credentials)
    except (msgspec.DecodeError, RecursionError):
        return None
