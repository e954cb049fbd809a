"""Worlds: what follows from a seed, and that nothing of one user looks like another's."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from coatcheck.simulator import Settings, Simulator
from coatcheck.simulator.ids import Ids, IdSpace
from coatcheck.simulator.world import CHANGES, World

if TYPE_CHECKING:
    from coatcheck.simulator.estate import Engagement


def ids_of(owner: Engagement) -> dict[IdSpace, set[int]]:
    return {
        IdSpace.PAAS: {owner.paas_id},
        IdSpace.IPC: {owner.ipc_id},
        IdSpace.ENDPOINT: {item.id for item in owner.endpoints},
        IdSpace.DEPARTMENT: {item.id for item in owner.departments},
        IdSpace.ENVIRONMENT: {item.id for item in owner.environments},
        IdSpace.ZONE: {item.id for item in owner.zones},
        IdSpace.CLUSTER: {item.id for item in owner.clusters},
    }


def test_a_seed_makes_the_same_world_every_time() -> None:
    """Two simulators of one seed agree in everything, passwords included."""
    first, second = (Simulator(Settings(seed=3, users=8)).users() for _ in range(2))

    assert first == second


def test_another_seed_makes_another_world() -> None:
    """Ids and passwords follow from the seed."""
    first, second = (Simulator(Settings(seed=seed, users=1)).users()[0] for seed in (3, 4))

    assert first["password"] != second["password"]
    assert first["engagements"][0]["paas_engagement_id"] != second["engagements"][0]["paas_engagement_id"]


def test_no_two_kinds_and_no_two_engagements_share_an_id() -> None:
    """Every id of a world occurs once."""
    world = World(seed=5, users=25)
    sets = [
        ids
        for account in world.accounts()
        for change in (None, *range(1, CHANGES + 1))
        for owner in world.engagements(account, change)[: None if change is None else 1]
        for ids in ids_of(owner).values()
    ]

    assert sum(map(len, sets)) == len(set(itertools.chain.from_iterable(sets)))


def test_an_id_leads_back_to_its_engagement_and_to_no_other_kind() -> None:
    """Whose an id is follows from the id, and only in its own range."""
    world = World(seed=5, users=12)
    owners = [owner for account in world.accounts() for owner in world.engagements(account)]

    for owner in owners:
        for space, ids in ids_of(owner).items():
            for other in IdSpace:
                found = {
                    None if hit is None else hit.number
                    for hit in (world.owner(other, ident) for ident in ids)
                }
                assert found == ({owner.number} if other is space else {None})


def test_ids_that_were_never_given_out_belong_to_nobody() -> None:
    """Neither a neighbour's free place, nor a user beyond the last, nor a number out of range."""
    world = World(seed=5, users=3)
    first, last = world.accounts(0, 1), world.accounts(2, 1)
    single = world.engagements(next(first))[0]
    final = world.engagements(next(last))[0]

    assert world.owner(IdSpace.PAAS, single.paas_id + 1) is None
    assert world.owner(IdSpace.PAAS, final.paas_id + 8) is None
    assert world.owner(IdSpace.PAAS, 0) is None
    assert world.owner(IdSpace.PAAS, 100_000_000) is None


def test_one_user_in_five_has_several_engagements() -> None:
    """Two or three, already within the first ten users."""
    counts = [account.held for account in World(seed=1, users=100).accounts()]

    assert counts.count(2) == 10
    assert counts.count(3) == 10
    assert counts.count(1) == 80


def test_every_list_item_bears_its_owners_tag_and_no_other() -> None:
    """A foreign value is recognised from the value alone."""
    users = Simulator(Settings(seed=9, users=12)).users()

    for user in users:
        for engagement in user["engagements"]:
            lists = ("endpoints", "departments", "environments", "zones", "vm_names", "cluster_names")
            for item in itertools.chain.from_iterable(engagement[name] for name in lists):
                text = msgspec.json.encode(item).decode()
                assert engagement["tag"] in text
                assert not any(other["tag"] in text for other in users if other is not user)


def test_tags_stay_apart_when_there_are_more_than_four_digits_of_users() -> None:
    """No tag is the beginning of another one."""
    world = World(seed=1, users=10_001)

    assert world.account("user-00001@tenant-00001.example") is not None
    assert world.account("user-0001@tenant-0001.example") is None
    assert {len(account.tag) for account in world.accounts(9_998)} == {len("tenant-00001")}


def test_sizes_are_those_of_the_contract() -> None:
    """Five data centres, ten departments, eight environments, 63 clusters in uneven parts."""
    owner = World(seed=1, users=1).engagements(next(World(seed=1, users=1).accounts()))[0]
    per_endpoint = [sum(item.endpoint is home for item in owner.clusters) for home in owner.endpoints]

    assert (len(owner.endpoints), len(owner.departments), len(owner.environments)) == (5, 10, 8)
    assert sorted(per_endpoint) == [4, 8, 13, 17, 21]
    assert 8 <= len(owner.zones) <= 24


@pytest.mark.parametrize(
    "email",
    [
        "",
        "someone@else.example",
        "user-0000@tenant-0000.example",
        "user-0013@tenant-0013.example",
        "user-0001@tenant-0002.example",
        "USER-0001@tenant-0001.example",
        "user-0001@tenant-0001.example ",
        "user-000\u0661@tenant-0001.example",
    ],
)
def test_an_email_that_is_not_exactly_an_accounts_is_nobodys(email: str) -> None:
    """There is no folding of case, blanks or digits."""
    assert World(seed=1, users=12).account(email) is None


@pytest.mark.parametrize("users", [0, -1, 100_001])
def test_a_world_has_at_least_one_user_and_no_more_than_its_ids_allow(users: int) -> None:
    """Settings refuse other numbers."""
    with pytest.raises(ValueError, match="users must be"):
        Settings(users=users)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"latency_scale": -1.0}, "latency_scale"),
        ({"latency_scale": float("nan")}, "latency_scale"),
        ({"latency_scale": float("inf")}, "latency_scale"),
        ({"token_lifetime": -1}, "token_lifetime"),
        ({"failure_word": "success"}, "failure_word"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], why: str) -> None:
    """The message names the setting."""
    with pytest.raises(ValueError, match=why):
        Settings(**settings)


def test_an_engagement_has_room_for_only_so_many_of_a_kind() -> None:
    """One more would be the first of its neighbour."""
    with pytest.raises(ValueError, match="room for 8 of ENDPOINT"):
        Ids(seed=1).make(IdSpace.ENDPOINT, 0, 8)


def test_the_largest_world_keeps_every_id_in_its_range() -> None:
    """The last user of the largest world has ids like any other."""
    world = World(seed=2, users=100_000)
    owner = world.engagements(next(world.accounts(99_999)))[0]

    for space, ids in ids_of(owner).items():
        assert {ident // 100_000_000 for ident in ids} == {space.value[0]}


def test_accounts_are_listed_in_part() -> None:
    """Limit and offset cut a piece out of one order."""
    world = World(seed=2, users=12)

    assert [account.number for account in world.accounts(3, 4)] == [4, 5, 6, 7]
    assert [account.number for account in world.accounts(10, 40)] == [11, 12]
    assert list(world.accounts(50, 1)) == []
