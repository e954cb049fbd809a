"""The drop-in service's sessions: whose they are, what they show, how they are changed and ended."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coatcheck import current_user
from coatcheck.errors import InvalidKey, LoadError, PolicyError, UnknownResource
from ipc.rig import ANN, BOB, TWO, Gate, Rig, rigged, slow, with_settings

FIELDS = {
    "cached_at",
    "engagement_data",
    "paas_engagement_id",
    "ipc_engagement_id",
    "endpoints",
    "business_units",
    "environments_list",
    "zones_list",
}
NOBODY: list[Any] = [None, "", "\0", "\ud800", "x" * 513, 7, b"ann"]


async def fill(rig: Rig, *users: str) -> None:
    """Have everything that is kept fetched for some users."""
    for user in users:
        await rig.service.get_endpoints(user_id=user)
        for fetch in (
            rig.service.get_business_units_list,
            rig.service.get_environments_list,
            rig.service.get_zones_list,
        ):
            assert (await fetch(user_id=user))["success"]
    rig.calls()


def session_of(owned: dict[str, Any]) -> dict[str, Any]:
    """Return what is held of an engagement when everything is."""
    return {
        "engagement_data": owned["engagement"],
        "paas_engagement_id": owned["paas_engagement_id"],
        "ipc_engagement_id": owned["ipc_engagement_id"],
        "endpoints": owned["endpoints"],
        "business_units": {
            "engagement": {"id": owned["ipc_engagement_id"], "name": owned["tag"]},
            "department": owned["departments"],
        },
        "environments_list": owned["environments"],
        "zones_list": owned["zones"],
    }


class TestWho:
    async def test_the_email_as_given(self, rig: Rig) -> None:
        current_user.set(BOB)
        assert rig.service._get_user_id_from_email(ANN) == ANN
        assert rig.service._get_user_id_from_email(email=" Ann ") == " Ann "

    async def test_else_the_current_user_else_the_default(self) -> None:
        async with rigged(default_email=TWO) as rig:
            assert rig.service._get_user_id_from_email() == TWO
            current_user.set(BOB)
            assert rig.service._get_user_id_from_email() == BOB
            assert rig.service._get_user_id_from_email(None) == BOB
            assert await rig.service.get_engagement_id() == rig.truth(BOB)["paas_engagement_id"]

    async def test_else_default(self, rig: Rig) -> None:
        assert rig.service._get_user_id_from_email() == "default"
        assert await rig.service.get_engagement_id() is None
        assert rig.simulator.calls()["total"] == 0

    async def test_strict_refuses_who_names_nobody(self) -> None:
        async with rigged(default_email=TWO, strict=True) as rig:
            with pytest.raises(InvalidKey, match="current_user"):
                await rig.service.get_engagement_id()
            with pytest.raises(InvalidKey):
                await rig.service.list_vms()
            assert rig.simulator.calls()["total"] == 0
            assert await rig.service.get_engagement_id(user_id=ANN) == rig.truth(ANN)["paas_engagement_id"]
            current_user.set(BOB)
            assert await rig.service.get_engagement_id() == rig.truth(BOB)["paas_engagement_id"]

    @pytest.mark.parametrize("user", NOBODY[1:])
    async def test_who_cannot_be_a_user_is_refused(self, rig: Rig, user: Any) -> None:
        """Neither folded into the default user nor into anybody else."""
        with pytest.raises(InvalidKey):
            await rig.service.get_engagement_id(user_id=user)
        with pytest.raises(InvalidKey):
            rig.service._get_user_id_from_email(user)

    async def test_concurrent_requests_have_a_current_user_each(self, rig: Rig) -> None:
        async def request(user: str) -> Any:
            current_user.set(user)
            return (await rig.service.get_environments_list())["environments"]

        users = [ANN, BOB, TWO] * 5
        answers = await asyncio.gather(*(request(user) for user in users))
        assert answers == [rig.truth(user)["environments"] for user in users]


class TestGetUserSession:
    async def test_what_is_held_and_since_when(self, rig: Rig) -> None:
        """`cached_at` is the oldest."""
        assert await rig.service._get_user_session(ANN) == {}
        began = datetime.fromtimestamp(rig.clock.wall(), UTC)
        await rig.service.get_engagement_id(user_id=ANN)
        await rig.clock.advance(60)
        await fill(rig, ANN)
        held = await rig.service._get_user_session(ANN)
        assert held.pop("cached_at") == began
        assert held == session_of(rig.truth(ANN))
        assert held.keys() | {"cached_at"} == FIELDS

    async def test_forced_it_is_empty(self, rig: Rig) -> None:
        await fill(rig, ANN)
        assert await rig.service._get_user_session(ANN, True) == {}
        assert await rig.service._get_user_session(user_id=ANN, force_refresh=True) == {}
        assert (await rig.service._get_user_session(ANN)).keys() == FIELDS

    async def test_only_what_is_held(self, rig: Rig) -> None:
        await rig.service.get_ipc_engagement_id(user_id=ANN)
        assert (await rig.service._get_user_session(ANN)).keys() == {
            "cached_at",
            "engagement_data",
            "paas_engagement_id",
            "ipc_engagement_id",
        }

    async def test_it_costs_nothing_and_makes_nothing(self, rig: Rig) -> None:
        await rig.service._get_user_session("stranger@example.com")
        assert rig.cache.users() == ()
        assert rig.calls() == ""


class TestUpdateUserSession:
    async def test_every_field_without_a_call(self, rig: Rig) -> None:
        """Given from the engagement down, all of them are held as given, with what our types leave out."""
        fields = session_of(rig.truth(BOB))
        fields["zones_list"][0]["colour"] = "green"
        await rig.service._update_user_session("stranger@example.com", **fields)
        held = await rig.service._get_user_session("stranger@example.com")
        held.pop("cached_at")
        assert held == fields
        answer = await rig.service.get_zones_list(user_id="stranger@example.com")
        assert answer["zones"] == fields["zones_list"]
        assert await rig.service.get_endpoints(user_id="stranger@example.com") == fields["endpoints"]
        assert rig.simulator.calls()["total"] == 0

    async def test_each_has_its_own_age(self, rig: Rig) -> None:
        await fill(rig, ANN)
        began = (await rig.service._get_user_session(ANN))["cached_at"]
        await rig.clock.advance(23 * 3600)
        await rig.service._update_user_session(ANN, endpoints=[])
        assert (await rig.service._get_user_session(ANN))["cached_at"] == began
        await rig.cache.settled()

    async def test_an_engagement_moves_all_that_follows(self, rig: Rig) -> None:
        await fill(rig, TWO)
        second = rig.truth(TWO, 1)
        await rig.service._update_user_session(TWO, paas_engagement_id=second["paas_engagement_id"])
        assert rig.calls() == ""
        held = await rig.service._get_user_session(TWO)
        assert held.keys() == {"cached_at", "engagement_data", "paas_engagement_id"}
        assert held["engagement_data"] == {"id": second["paas_engagement_id"]}
        assert await rig.service.get_engagement_id(user_id=TWO) == second["paas_engagement_id"]
        assert await rig.service.get_ipc_engagement_id(user_id=TWO) == second["ipc_engagement_id"]
        assert await rig.service.get_endpoints(user_id=TWO) == second["endpoints"]
        assert (await rig.service.get_zones_list(user_id=TWO))["zones"] == second["zones"]
        assert rig.calls() == "CPZ"

    async def test_back_again_costs_nothing(self, rig: Rig) -> None:
        await fill(rig, TWO)
        first, second = rig.truth(TWO), rig.truth(TWO, 1)
        for owned in (second, first):
            await rig.service._update_user_session(TWO, paas_engagement_id=owned["paas_engagement_id"])
        assert (await rig.service.get_zones_list(user_id=TWO))["zones"] == first["zones"]
        assert rig.calls() == ""

    async def test_the_same_engagement_keeps_its_name(self, rig: Rig) -> None:
        await fill(rig, ANN)
        paas_id = rig.truth(ANN)["paas_engagement_id"]
        await rig.service._update_user_session(ANN, paas_engagement_id=str(paas_id))
        assert (await rig.service._get_user_session(ANN))["engagement_data"] == rig.truth(ANN)["engagement"]
        assert rig.calls() == ""

    @pytest.mark.parametrize("place", [0, 1])
    async def test_an_older_load_under_way_does_not_move_back(self, place: int) -> None:
        """Whether the engagement set is another one or the one that was held."""
        gate = Gate()
        async with rigged(settings=with_settings(latency_scale=1), sleep=gate) as rig:
            rig.simulator.set_latency(table=slow())
            await fill(rig, TWO)
            rig.simulator.set_latency(table=slow(engagements=1.0))
            rig.simulator.set_faults([{"kind": "changed_engagement", "user": TWO}])
            elsewhere = rig.truth(TWO)["paas_engagement_id"]
            forced = asyncio.create_task(rig.service.get_engagement_id(True, TWO))
            await gate.arrived()
            rig.simulator.set_faults([])
            wanted = rig.truth(TWO, place)["paas_engagement_id"]
            await rig.service._update_user_session(TWO, paas_engagement_id=wanted)
            gate.open()
            assert await forced == elsewhere
            assert await rig.service.get_engagement_id(user_id=TWO) == wanted

    async def test_both_at_once(self, rig: Rig) -> None:
        """The data is kept if it is of that engagement, and the id counts if it is not."""
        first, second = rig.truth(TWO), rig.truth(TWO, 1)
        await rig.service._update_user_session(
            TWO, paas_engagement_id=second["paas_engagement_id"], engagement_data=second["engagement"]
        )
        assert (await rig.service._get_user_session(TWO))["engagement_data"] == second["engagement"]
        await rig.service._update_user_session(
            TWO, paas_engagement_id=first["paas_engagement_id"], engagement_data=second["engagement"]
        )
        assert await rig.service.get_engagement_id(user_id=TWO) == first["paas_engagement_id"]
        assert rig.calls() == ""

    async def test_what_is_under_an_unknown_id_is_asked_for_first(self, rig: Rig) -> None:
        """A list belongs to an engagement; which one that is, is found out as for a get."""
        await rig.service._update_user_session(ANN, zones_list=[])
        assert rig.calls() == "EC"
        assert (await rig.service.get_zones_list(user_id=ANN))["zones"] == []
        assert rig.calls() == ""

    async def test_an_unknown_field_is_refused_before_anything_is_stored(self, rig: Rig) -> None:
        with pytest.raises(UnknownResource, match="colour"):
            await rig.service._update_user_session(ANN, engagement_data={"id": 1}, colour="green")
        assert await rig.service._get_user_session(ANN) == {}

    @pytest.mark.parametrize(
        "fields",
        [
            {"zones_list": {"not": "a list"}},
            {"endpoints": None},
            {"endpoints": [{"endpointId": "21", "endpointDisplayName": "Pune"}]},
            {"business_units": [1]},
            {"ipc_engagement_id": "x"},
            {"paas_engagement_id": "x"},
            {"paas_engagement_id": None},
            {"engagement_data": {"name": "without an id"}},
        ],
        ids=str,
    )
    async def test_a_wrong_value_is_refused(self, rig: Rig, fields: dict[str, Any]) -> None:
        await fill(rig, ANN)
        before = await rig.service._get_user_session(ANN)
        with pytest.raises((LoadError, InvalidKey)):
            await rig.service._update_user_session(ANN, **fields)
        assert await rig.service._get_user_session(ANN) == before

    async def test_of_one_user_only(self, rig: Rig) -> None:
        await fill(rig, ANN, BOB)
        await rig.service._update_user_session(ANN, zones_list=[])
        await rig.service._update_user_session(ANN, paas_engagement_id=1)
        assert (await rig.service.get_zones_list(user_id=BOB))["zones"] == rig.truth(BOB)["zones"]
        assert rig.calls() == ""


class TestClear:
    async def test_one_user(self, rig: Rig) -> None:
        await fill(rig, ANN, BOB)
        await rig.service._clear_user_session(ANN)
        assert set(rig.service.user_sessions) == {BOB}
        await rig.cache.settled()
        assert rig.tokens_kept() == {BOB}
        await rig.service._clear_user_session(user_id=BOB)
        assert not rig.service.user_sessions
        await rig.cache.settled()
        assert not rig.tokens_kept()

    async def test_everyone(self, rig: Rig) -> None:
        await fill(rig, ANN, BOB)
        await rig.service._clear_user_session()
        assert not rig.service.user_sessions
        await rig.cache.settled()
        assert not rig.tokens_kept()

    @pytest.mark.parametrize("user", NOBODY)
    async def test_nobody_is_never_everyone(self, rig: Rig, user: Any) -> None:
        current_user.set(ANN)
        await fill(rig, ANN, BOB)
        with pytest.raises(InvalidKey):
            await rig.service._clear_user_session(user)
        with pytest.raises(InvalidKey):
            await rig.service._clear_user_session(user_id=user)
        assert set(rig.service.user_sessions) == {ANN, BOB}

    async def test_a_user_that_nothing_is_held_for(self, rig: Rig) -> None:
        await rig.service._clear_user_session("stranger@example.com")
        await rig.service._clear_user_session()


class TestDuration:
    async def test_it_holds_for_all_from_then_on(self, rig: Rig) -> None:
        await fill(rig, ANN)
        rig.service.session_cache_duration = timedelta(minutes=10)
        assert rig.service.session_cache_duration == timedelta(minutes=10)
        assert rig.service.engagement_cache_duration == timedelta(minutes=10)
        await rig.clock.advance(601)
        assert await rig.service._get_user_session(ANN) == {}
        await fill(rig, ANN)
        await rig.clock.advance(599)
        assert (await rig.service._get_user_session(ANN)).keys() == FIELDS

    async def test_longer_revives_nothing(self, rig: Rig) -> None:
        await fill(rig, ANN)
        rig.service.session_cache_duration = timedelta(minutes=10)
        await rig.clock.advance(601)
        rig.service.session_cache_duration = timedelta(hours=48)
        assert await rig.service._get_user_session(ANN) == {}
        await rig.service.get_zones_list(user_id=ANN)
        assert rig.calls() == "ECZ"
        await rig.clock.advance(40 * 3600)
        assert "zones_list" in await rig.service._get_user_session(ANN)

    @pytest.mark.parametrize("wrong", [timedelta(0), timedelta(seconds=-1), 3600, None, "1h"])
    def test_anything_else_than_a_duration_is_refused(self, rig: Rig, wrong: Any) -> None:
        with pytest.raises(PolicyError):
            rig.service.session_cache_duration = wrong
        assert rig.service.session_cache_duration == timedelta(hours=24)


class TestUserSessions:
    async def test_a_view_of_what_is_held(self, rig: Rig) -> None:
        view: Any = rig.service.user_sessions
        assert (len(view), list(view), dict(view), bool(view)) == (0, [], {}, False)
        await fill(rig, ANN)
        await rig.service.get_engagement_id(user_id=BOB)
        assert set(view) == {ANN, BOB}
        assert len(view) == 2
        assert view[ANN].keys() == FIELDS
        assert view[BOB].keys() == {"cached_at", "engagement_data", "paas_engagement_id"}
        assert view[ANN] == await rig.service._get_user_session(ANN)
        assert ANN in view
        assert view.get("stranger@example.com") is None
        assert None not in view
        assert 7 not in view
        with pytest.raises(KeyError) as caught:
            view["stranger@example.com"]
        assert "stranger" not in str(caught.value)

    async def test_it_is_read_only_and_shows_nobody_when_printed(self, rig: Rig) -> None:
        await fill(rig, ANN)
        view: Any = rig.service.user_sessions
        with pytest.raises(TypeError):
            view[ANN] = {}
        with pytest.raises(TypeError):
            del view[ANN]
        view[ANN]["zones_list"].clear()
        assert view[ANN]["zones_list"] == rig.truth(ANN)["zones"]
        assert "tenant" not in repr(view) + repr(rig.service)

    async def test_who_has_asked_in_vain_is_not_in_it(self, rig: Rig) -> None:
        await rig.service.get_engagement_id(user_id="stranger@example.com")
        assert list(rig.service.user_sessions) == []
        assert "stranger@example.com" not in rig.service.user_sessions

    async def test_what_has_expired_is_not_in_it(self, rig: Rig) -> None:
        await fill(rig, ANN)
        await rig.clock.advance(24 * 3600)
        assert ANN not in rig.service.user_sessions
        assert list(rig.service.user_sessions) == []


class TestOldGlobalCache:
    async def test_the_default_users_engagement(self) -> None:
        async with rigged(default_email=TWO) as rig:
            assert rig.service.cached_engagement is None
            assert rig.service.engagement_cache_time is None
            assert rig.service.engagement_cache_duration == timedelta(hours=24)
            began = datetime.fromtimestamp(rig.clock.wall(), UTC)
            await rig.service.get_engagement_id()
            await rig.clock.advance(5)
            assert rig.service.cached_engagement == rig.truth(TWO)["engagement"]
            assert rig.service.engagement_cache_time == began
            found = rig.service.cached_engagement
            assert found is not None
            found.clear()
            assert rig.service.cached_engagement == rig.truth(TWO)["engagement"]
            await rig.clock.advance(24 * 3600)
            assert rig.service.cached_engagement is None

    async def test_never_another_users(self) -> None:
        """Whoever asked last, and whoever is asking now."""
        async with rigged(default_email=TWO) as rig:
            await rig.service.get_engagement_id(user_id=ANN)
            current_user.set(BOB)
            await rig.service.get_engagement_id()
            assert rig.service.cached_engagement is None
            assert rig.service.engagement_cache_time is None
            await rig.service.get_engagement_id(user_id=TWO)
            assert rig.service.cached_engagement == rig.truth(TWO)["engagement"]
