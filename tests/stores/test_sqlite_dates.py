"""How the SQLite store dates entries when somebody sets the clock, and across restarts."""

from __future__ import annotations

import pytest

from coatcheck.engine.store import Written
from coatcheck.stores.sqlite import database, writer
from coatcheck.testing.store_contract import held
from stores.sqlite_rig import ANN, DAY, HOUR, Rig, eventually, record


async def age(rig: Rig) -> float | None:
    """Open the store anew and return the age of the one entry."""
    async with rig.open() as store:
        records = (await store.open(ANN)).records
        return records[0].age if records else None


@pytest.mark.parametrize("step", [-HOUR, 25 * HOUR, -30.0])
async def test_setting_the_clock_while_it_runs_changes_nothing(rig: Rig, step: float) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(age=10.0), keep_for=DAY)
        rig.clock.step_wall(step)
        await rig.clock.advance(5.0)
        [back] = (await store.open(ANN)).records
        assert 15.0 == pytest.approx(back.age)
        assert Written.APPLIED is await store.put(ANN, session.id, record("after", age=2.0), keep_for=DAY)
        await store.delete(ANN, session.id, "zones", b"")
        assert Written.OVERTAKEN is await store.put(ANN, session.id, record(age=1.0), keep_for=DAY)
        assert {("after", b"")} == set(held(await store.open(ANN)))


async def test_ages_go_on_while_it_is_closed(rig: Rig) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(age=10.5), keep_for=DAY)
    await rig.clock.advance(HOUR)
    assert HOUR + 10.5 == pytest.approx(await age(rig))
    await rig.clock.advance(DAY)
    assert None is await age(rig)


async def test_set_forward_while_it_is_closed_things_have_aged(rig: Rig) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
    rig.clock.step_wall(2 * HOUR)
    assert 2 * HOUR == pytest.approx(await age(rig))
    rig.clock.step_wall(DAY)
    assert None is await age(rig)


async def test_set_back_while_it_is_closed_nothing_is_believed_any_more(rig: Rig) -> None:
    """Nobody knows how long ago anything was. What comes from then on is dated by the new clock."""
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=30 * DAY)
        await store.delete(ANN, session.id, "notes", b"")
        await store.delete(ANN, session.id, "plans", None)
        await store.forget("ipc", "roles")
    rig.clock.step_wall(-HOUR)
    async with rig.open() as store:
        back = await store.open(ANN)
        assert (session.id, ()) == (back.id, back.records)
        # Neither old entries nor old floors, which are all of the future, stand in the way of new ones.
        for resource in ("zones", "notes", "plans", "roles"):
            mine = record(resource, age=1.0)
            assert Written.APPLIED is await store.put(ANN, session.id, mine, keep_for=DAY)
        await store.compact()
        assert 4 == len((await store.open(ANN)).records)
    await rig.clock.advance(10.0)
    async with rig.open() as store:
        assert [11.0] * 4 == pytest.approx([each.age for each in (await store.open(ANN)).records])
    # The old clock again: it is a step forward.
    rig.clock.step_wall(HOUR)
    assert HOUR + 11.0 == pytest.approx(await age(rig))


async def test_small_corrections_do_not_add_up(rig: Rig) -> None:
    """A clock set back a little at every start must not lengthen a life."""
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=300.0)
    for restart in range(1, 20):
        rig.clock.step_wall(-50.0)
        await rig.clock.advance(40.0)
        async with rig.open() as store:
            records = (await store.open(ANN)).records
            assert not records or records[0].age >= 0.0
            await rig.clock.advance(25.0)
            await store.put(ANN, session.id, record("tick"), keep_for=DAY)
        if restart * 25.0 > 300.0:
            assert "zones" not in {each.resource for each in records}


async def test_a_clock_set_back_after_it_ran_fast_expires_what_it_dated(rig: Rig) -> None:
    """What was dated while the clock was wrong is not younger for it."""
    rig.clock.step_wall(25 * HOUR)
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=30 * DAY)
        rig.clock.step_wall(-25 * HOUR)
        await rig.clock.advance(1.0)
        assert 1.0 == pytest.approx((await store.open(ANN)).records[0].age)
    assert None is await age(rig)


async def test_entries_dated_in_the_future_have_expired_and_are_replaced(rig: Rig) -> None:
    """Nobody but an intruder dates them so: their dates are sealed."""
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
        rig.sql("UPDATE entries SET started = started + 61")
        back = await store.open(ANN)
        assert ((), 0) == (back.records, back.rejected)
        assert Written.APPLIED is await store.put(ANN, session.id, record(body=b"new"), keep_for=DAY)
        assert {("zones", b""): b"new"} == held(await store.open(ANN))


async def test_set_back_after_hours_in_which_nothing_was_written_it_is_noticed(rig: Rig) -> None:
    """The date in the file goes on while the store is open, and is noted when it is closed."""
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=30 * DAY)
        rig.clock.jump(5 * HOUR)
    rig.clock.step_wall(-HOUR)
    async with rig.open() as store:
        assert (await store.open(ANN)).records == ()


async def test_the_file_knows_when_it_was_closed(rig: Rig) -> None:
    """Also when the date in it was not old enough yet to be noted anew."""
    async with rig.open() as store:
        await store.open(ANN)
        rig.clock.jump(database.MARK_SECONDS / 2)
    assert noted(rig) == pytest.approx(rig.clock.wall(), abs=0.01)


async def test_the_file_learns_the_date_while_nobody_asks_for_anything(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also between the rounds in which it is swept: a process that is killed must have forgotten no more than said."""
    monkeypatch.setattr(writer, "IDLE_SECONDS", 0.01)
    async with rig.open() as store:
        await store.open(ANN)
        for _ in range(5):
            rig.clock.jump(database.MARK_SECONDS + 1.0)
            eventually(lambda: abs(noted(rig) - rig.clock.wall()) < 0.01)


def noted(rig: Rig) -> float:
    """Return the date that the file knows of."""
    [(date,)] = rig.sql("SELECT high_water FROM meta")
    return float(date)
