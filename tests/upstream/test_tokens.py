from __future__ import annotations

import pytest

from coatcheck.errors import AuthExpired, Forbidden, NoCredentials, UpstreamFailed
from coatcheck.upstream.tokens import CallerToken, StaticToken, TokenProvider, authorised
from upstream.secrets import CANARY, assert_silent


class Counted:
    """Gives a new token for every one refused."""

    def __init__(self) -> None:
        self.made = 1

    async def token(self) -> str:
        return f"{CANARY}-{self.made}"

    async def renew(self, rejected: str) -> str:
        assert rejected == await self.token()
        self.made += 1
        return await self.token()

    def forget(self) -> None:
        self.made = 0


class TestAuthorised:
    async def test_a_good_token_is_used_once(self) -> None:
        tokens = Counted()

        async def call(token: str) -> str:
            return token

        assert await authorised(tokens, call) == f"{CANARY}-1"

    async def test_a_refused_token_is_renewed_once(self) -> None:
        used = []

        async def call(token: str) -> int:
            used.append(token)
            if len(used) == 1:
                raise AuthExpired("401")
            return 7

        assert await authorised(Counted(), call) == 7
        assert used == [f"{CANARY}-1", f"{CANARY}-2"]

    async def test_a_second_refusal_is_final(self) -> None:
        """No loop: two calls, one renewal."""
        tokens = Counted()
        calls = 0

        async def call(token: str) -> int:
            nonlocal calls
            calls += 1
            raise AuthExpired("401")

        with pytest.raises(AuthExpired) as caught:
            await authorised(tokens, call)
        assert (calls, tokens.made) == (2, 2)
        assert caught.value.__context__ is None

    @pytest.mark.parametrize("error", [Forbidden("403"), UpstreamFailed("500", status=500)])
    async def test_other_errors_renew_nothing(self, error: Exception) -> None:
        tokens = Counted()

        async def call(token: str) -> int:
            raise error

        with pytest.raises(type(error)):
            await authorised(tokens, call)
        assert tokens.made == 1


class TestStaticToken:
    async def test_it_gives_its_token_and_no_other(self) -> None:
        tokens: TokenProvider = StaticToken(CANARY)
        assert await tokens.token() == CANARY
        with pytest.raises(AuthExpired) as caught:
            await tokens.renew(CANARY)
        assert_silent(caught.value)
        assert CANARY not in repr(tokens)

    async def test_it_forgets(self) -> None:
        tokens = StaticToken("t")
        tokens.forget()
        with pytest.raises(NoCredentials):
            await tokens.token()

    @pytest.mark.parametrize("token", ["", f"{CANARY} x", f"{CANARY}\n", "ü"])
    def test_what_no_header_can_carry_is_refused(self, token: str) -> None:
        with pytest.raises(ValueError, match="header") as caught:
            StaticToken(token)
        assert_silent(caught.value)


class TestCallerToken:
    async def test_it_asks_every_time(self) -> None:
        current: list[str | None] = [CANARY]
        tokens: TokenProvider = CallerToken(lambda: current[0])
        assert await tokens.token() == CANARY
        with pytest.raises(AuthExpired) as caught:
            await tokens.renew(CANARY)
        assert_silent(caught.value)
        current[0] = "another"
        assert await tokens.renew(CANARY) == "another"

    @pytest.mark.parametrize("token", [None, "", f"{CANARY} x"])
    async def test_without_a_token_it_is_nobody(self, token: str | None) -> None:
        with pytest.raises(NoCredentials) as caught:
            await CallerToken(lambda: token).token()
        assert_silent(caught.value)

    async def test_it_forgets(self) -> None:
        tokens = CallerToken(lambda: "t")
        tokens.forget()
        with pytest.raises(NoCredentials):
            await tokens.token()
