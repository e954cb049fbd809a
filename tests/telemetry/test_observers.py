from __future__ import annotations

import gc
import weakref

import pytest

from coatcheck.engine.events import Event, StaleServed
from coatcheck.telemetry import all_of

EVENT = StaleServed("account")


def test_all_are_told_in_order() -> None:
    told: list[tuple[str, Event]] = []
    all_of(lambda event: told.append(("a", event)), lambda event: told.append(("b", event)))(EVENT)

    assert [("a", EVENT), ("b", EVENT)] == told


def test_those_after_one_that_raises_are_told_too_and_the_first_exception_is_raised() -> None:
    told: list[Event] = []

    def first(event: Event) -> None:
        raise ValueError("first")

    def second(event: Event) -> None:
        raise KeyError("second")

    with pytest.raises(ValueError, match="first"):
        all_of(first, second, told.append)(EVENT)

    assert [EVENT] == told


def test_an_exception_keeps_nothing_alive() -> None:
    """Also where the garbage collector does not run."""

    class Mine(Exception):
        pass

    def raises(event: Event) -> None:
        raise Mine

    observe = all_of(raises)
    gc.disable()
    try:
        try:
            observe(EVENT)
        except Mine as error:
            gone = weakref.ref(error)
        assert gone() is None
    finally:
        gc.enable()
