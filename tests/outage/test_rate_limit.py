"""429 with ``Retry-After``: nothing of that user leaves before its time, and what is held is served (scenario 23)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from coatcheck.errors import RateLimited
from coatcheck.ipc.resources import engagement_data
from coatcheck.upstream.cooldown import DEFAULT_PAUSE
from coatcheck.upstream.statuses import LONGEST_RETRY_AFTER
from outage.world import ANN, BOB, KEPT, PATHS, World

IN_A_MINUTE = "in a minute"


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("60", 60.0),
        ("1.5", 1.5),
        # A date has no fractions of a second.
        (IN_A_MINUTE, 59.0),
        ("299", 299.0),
        ("999999999", LONGEST_RETRY_AFTER),
        ("-5", 0.0),
        ("0", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("soon", DEFAULT_PAUSE),
        (None, DEFAULT_PAUSE),
    ],
)
async def test_no_call_before_its_time(world: World, header: str | None, pause: float) -> None:
    """Neither of what failed nor of anything else, not even a log-in, and not by force."""
    await world.expired(ANN, BOB)
    dated = header == IN_A_MINUTE
    if dated:
        header = format_datetime(datetime.fromtimestamp(world.clock.wall() + 60, UTC), usegmt=True)
    world.fail(
        {
            "kind": "status",
            "status": 429,
            "path": PATHS[engagement_data.name],
            "user": ANN,
            "times": 1,
            "retry_after": header,
        }
    )
    session = world.cache.session(ANN)
    assert (await session.lookup(engagement_data)).stale
    assert world.asked() == {"auth": 1, PATHS[engagement_data.name]: 1}

    for passed in (0.0, pause / 2, pause / 2 - 0.01):
        if pause == 0:
            break
        await world.clock.advance(max(passed, 0.0))
        for resource in KEPT:
            assert (await session.lookup(resource)).stale
        with pytest.raises(RateLimited) as caught:
            await session.get(engagement_data, force_refresh=True)
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after <= LONGEST_RETRY_AFTER
        assert world.asked(ANN) == {}
    assert not (await world.cache.session(BOB).lookup(engagement_data)).stale

    # A tenth longer than asked for at most, so that those who paused together end apart.
    longest = pause + 1 if dated else pause
    await world.clock.advance(0.01 + longest * 1.1 - pause)
    world.asked()
    assert await session.get(engagement_data, force_refresh=True) == world.right(ANN, engagement_data)
    assert world.asked(ANN)[PATHS[engagement_data.name]] == 1
    await world.clock.advance(30)
    for resource in KEPT:
        look = await session.lookup(resource)
        assert (look.value, look.stale) == (world.right(ANN, resource), False)


async def test_ten_minutes_of_429(world: World) -> None:
    """One call of each user in what each answer asks for, and everybody is answered."""
    users = (ANN, BOB)
    await world.expired(*users)
    # Before, so that only what is limited is counted.
    for user in users:
        await world.log_ins.provider(world.cache._credentials(user)).token()  # type: ignore[arg-type]
    world.asked()
    world.fail({"kind": "status", "status": 429, "retry_after": "60"})
    gets = stale = 0
    for turn in range(10 * 60 // 2):
        for user in users:
            gets += 1
            stale += (await world.cache.session(user).lookup(KEPT[turn % len(KEPT)])).stale
        await world.clock.advance(2)
    assert gets == stale == 600
    for user in users:
        # Paths that the token was not good for any more end in a log-in, which is a call as well.
        assert sum(world.simulator.calls(user)["by_path"].values()) <= 10
