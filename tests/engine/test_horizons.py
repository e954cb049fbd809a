"""The times that rows share: never too late, never long before, and few."""

from __future__ import annotations

import random

from hypothesis import example, given
from hypothesis import strategies as st

from coatcheck.engine.entry import NEVER
from coatcheck.engine.row import MOST_HORIZONS, Horizons

TIMES = st.floats(min_value=0.0, max_value=1e9)
DAY = 86_400.0


@given(TIMES, TIMES)
@example(1e9, 1e9 - 2**-23)
@example(5e-324, 0.0)
def test_a_row_serves_no_longer_than_it_may_and_nearly_as_long(until: float, now: float) -> None:
    served = Horizons().before(until, now)
    assert served <= until
    if now < until:
        assert now < served
        assert until - served <= (until - now) / 64


def test_what_has_passed_stays_so() -> None:
    assert Horizons().before(NEVER, 5.0) == NEVER
    assert Horizons().before(5.0, 5.0) == 5.0


def test_the_end_is_reached_in_a_few_steps() -> None:
    """A get at each of them costs more than a hit; so there must not be many in the life of an entry."""
    horizons, now, steps = Horizons(), 1234.5, 0
    until = now + DAY - 0.1
    while now < until:
        now = horizons.before(until, now)
        steps += 1
    assert steps <= 10


def test_many_rows_have_one_object() -> None:
    """Whatever they were loaded for, and however their ends were strewn."""
    horizons, draw = Horizons(), random.Random(5)
    found = [horizons.before(100.0 + 0.8 * DAY * draw.uniform(0.9, 1.0), 100.0) for _ in range(10_000)]
    assert len({id(each) for each in found}) <= 128


def test_old_ones_are_let_go() -> None:
    horizons = Horizons()
    for number in range(3 * MOST_HORIZONS):
        horizons.before(number + 1.0, float(number))
    assert len(horizons._shared) <= MOST_HORIZONS
