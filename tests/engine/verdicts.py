"""Whether a get was allowed to return what it did: decided from the record alone, by rules written down here once more."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec

from coatcheck.engine.entry import Lookup, Outcome
from coatcheck.errors import BadUpstreamBody, CacheClosed, LoaderBroke, LoadTimeout, SessionCleared, WrongType
from engine.hand_clock import START
from engine.record import Get, Load, Record, number_of
from engine.recorded_catalog import (
    BASE,
    CANCELLED,
    DEPENDS,
    FORBIDDEN,
    GARBAGE,
    HIDEABLE,
    LET_GO,
    OK,
    PUT,
    REFUSALS,
    SHORTEST_DEADLINE,
    WRONG,
    Account,
)


class Judge:
    """Remembers what was returned before, which no later get may fall behind.

    Args:
        record: what happened.
        stored: there is a store: a get may have to wait for it, and finds then what came meanwhile.
    """

    def __init__(self, record: Record, *, stored: bool = False) -> None:
        self.record = record
        self.stored = stored
        self.errors: list[BaseException] = []
        # The best that has been returned: for each key, when and the load's number.
        self.seen: dict[tuple[Any, ...], list[tuple[int, int]]] = {}

    def forget(self, users: set[str], *, since: int) -> None:
        """Let a later node fall behind what these were shown, and behind what anybody was *since*: it may be lost."""
        self.seen = {
            key: [each for each in shown if each[0] < since]
            for key, shown in self.seen.items()
            if key[0] not in users
        }

    def judge(self, get: Get) -> None:
        if get.error is not None:
            self._judge_error(get, get.error)
            return
        assert get.invoked is not None
        if get.resource == "number":
            assert any(
                self._allowed(get, load)
                for load in self.record.loads.values()
                if load.user == get.user and load.resource == "account" and number_of(load) == get.value
            ), "no load of the account that may be shown made this number"
            return
        if get.resource == "card":
            owner, page, notes = get.value
            assert owner == get.user
            for serial, resource in ((page, "page"), (notes, "notes")):
                self._judge_load(get, self.record.loads[serial], resource)
            return
        if get.resource == "account" and get.look is None:
            assert get.value.owner == get.user
            assert any(
                self._allowed(get, load)
                for load in self.record.loads.values()
                if load.user == get.user
                and load.resource == "account"
                and number_of(load) == get.value.number
            ), "no load that may be shown made this account"
            return
        self._judge_one(get)

    def _judge_one(self, get: Get) -> None:
        body = None if get.look is None else get.look.body
        if get.resource == "account":
            assert body is not None
            shown = json.loads(body)
            serial = shown.get("load")
            load = self.record.loads[serial] if serial is not None else self._put_account(get, body)
            assert get.value == Account(shown["owner"], shown["number"])
        else:
            serial = get.value.get("load") if get.resource == "notes" else get.value.load
            assert serial is not None, "what another caller did to its value shows"
            load = self.record.loads[serial]
            if get.resource == "notes":
                assert get.value == json.loads(load.body)
                # The caller may do with it what it likes.
                get.value["lines"][1].append("mine")
                get.value.clear()
            else:
                assert get.value == msgspec.json.decode(load.body, type=type(get.value)), (
                    "other bytes than loaded"
                )
        if body is not None:
            assert body == load.body, "other bytes than loaded"
        self._judge_load(get, load, get.resource)
        self._judge_arguments(get, load)
        if get.resource == "page" and not get.passed:
            assert any(
                self._allowed(get, parent)
                for parent in self.record.loads.values()
                if parent.resource == "account" and number_of(parent) == load.arguments["number"]
            ), "no account that may be shown leads to this page"
        if get.look is not None:
            self._judge_look(get, get.look, load)

    def _put_account(self, get: Get, body: bytes) -> Load:
        """Return the latest put of these bytes: an account that was put tells nothing else of where it comes from."""
        return max(
            (
                load
                for load in self.record.loads.values()
                if (load.kind, load.resource, load.user, load.body) == (PUT, "account", get.user, body)
                and load.called < (get.returned or 0)
            ),
            key=lambda load: load.called,
        )

    def _judge_arguments(self, get: Get, load: Load) -> None:
        for name, value in get.passed.items():
            assert load.arguments[name] == value, f"asked with {name}={value!r}, got {load}"
        if get.resource == "page" and "region" not in get.passed:
            assert load.arguments["region"] == "eu"
        if get.deep and get.resource == "page" and not get.passed:
            assert any(
                parent.called > (get.invoked or 0) and (parent.ended or 0) < load.called
                for parent in self.record.loads.values()
                if parent.user == get.user
                and parent.resource == "account"
                and number_of(parent) == load.arguments["number"]
            ), "a deep force did not load anew what the page depends on"

    def _judge_look(self, get: Get, look: Lookup[Any], load: Load) -> None:
        held = load.ended is not None and load.ended < get.rested
        if look.outcome is Outcome.HIT:
            by = get.returned if self.stored else get.invoked
            assert (load.ended or 0) < (by or 0), f"a hit on {load}, which had not ended"
            assert self.record.fresh(load, get.returned or 0, get.returned_at), (
                f"a hit on {load}, which is past its ttl"
            )
            assert look.fresh_for > 0
        if look.outcome is Outcome.STALE_HIT and not DEPENDS[get.resource]:
            if held:
                aged = get.returned_at + self._most_aged(get, load)
                assert not self.record.fresh(load, get.returned or 0, aged), (
                    f"{load} is fresh and was said to be stale"
                )
            self._judge_stale(get, load)
        if load.kind != PUT:
            aged = look.age - (get.returned_at - load.called_at)
            assert 0 <= aged <= self._most_aged(get, load), f"{load} was said to be {look.age} s old"

    def _most_aged(self, get: Get, load: Load) -> float:
        """Return how much older than it is an entry may seem that has come back from a store that took its time."""
        return 0.0 if load.ended is None or load.ended > get.rested else self.record.read_for

    def _judge_stale(self, get: Get, load: Load) -> None:
        """See to it that an error that may not be hidden was not."""
        attempts = [
            each
            for each in self.record.loads.values()
            if each.key == load.key and each.called > load.called and each.node == get.node
        ]
        if not attempts:
            return
        last = max(attempts, key=lambda each: each.called)
        if last.ended is None or last.ended > (get.returned or 0) or last.kind in {OK, LET_GO, PUT}:
            return
        if any(last.ended < failed for failed in self.record.connect_failures):
            return
        if self.stored and any(last.ended < each.called for each in self.record.connections):
            return  # in a session that was brought in since, the next attempt may still be logging in
        patient = any(chosen.soft_timeout is not None for _, _, chosen in self.record.policies[load.resource])
        if patient and last.ended > get.rested:
            return  # the caller's patience may have ended before the load did
        changed = self.record.policies[load.resource][-1].at > (last.ended_at or 0.0)
        timed_out = (
            get.returned_at - (last.ended_at or 0.0) >= SHORTEST_DEADLINE
        )  # a load that never got its slot
        assert last.kind in HIDEABLE or changed or timed_out, f"{last} was hidden by {load}"

    def _judge_load(self, get: Get, load: Load, resource: str) -> None:
        complaint = self._objection(get, load, resource)
        assert complaint is None, f"{complaint}: {load}"
        self._note_seen(get, load)

    def _allowed(self, get: Get, load: Load) -> bool:
        return self._objection(get, load, "account") is None

    def _objection(self, get: Get, load: Load, resource: str) -> str | None:
        """Return what speaks against showing *load* to *get*, if anything does."""
        if load.user != get.user or load.resource != resource:
            return "another's value"
        if load.authority != get.authority:
            return "loaded with other rights"
        if load.kind not in {OK, PUT} or load.ended is None or load.ended > (get.returned or 0):
            return "the value of a load that brought none"
        return (
            self._below_floor(get, load)
            or self._not_as_asked(get, load)
            or self._refused_since(get, load)
            or (self._too_old(get, load) if load.ended < get.rested else None)
            or self._behind(get, load)
            or self._revoked(get, load)
        )

    def _below_floor(self, get: Get, load: Load) -> str | None:
        invoked = get.invoked or 0
        if load.called < self.record.cleared_before(get.user, invoked):
            return "begun before a clear"
        if load.called < self.record.lost < invoked:
            return "of an age that nobody knows"
        if any(
            user == load.user and load.called < told and over < invoked
            for user, told, over in self.record.ends
        ):
            return "of a session that had ended in the store"
        floor = max(
            (
                # Of what waits for a store nobody can tell at which moment between the two it was done.
                done if load.kind == PUT and not self.stored else begun
                for user, name, arguments, begun, done in self.record.floors
                if done < invoked
                and (user, name) == (load.user, load.resource)
                and (arguments is None or arguments == load.key[2])
            ),
            default=0,
        )
        return "begun before an invalidation or a put" if load.called < floor else None

    def _not_as_asked(self, get: Get, load: Load) -> str | None:
        # What is asked of a derived resource is asked of what it is derived from.
        own = load.resource == get.resource or get.resource in {"number", "card"}
        if ((get.force and own) or get.deep) and load.called < (get.invoked or 0):
            return "begun before a force"
        if own and get.max_age is not None and load.called_at < get.invoked_at - get.max_age:
            return "older than was asked for"
        return None

    def _refused_since(self, get: Get, load: Load) -> str | None:
        refused = any(
            refusal.key == load.key
            and (refusal.ended or 0) < get.rested
            and refusal.called > load.called
            and refusal.called_at > load.called_at
            for refusal in self.record.refusals
        )
        return "older than a refusal" if refused else None

    def _behind(self, get: Get, load: Load) -> str | None:
        seen = self.seen.get(load.key, ())
        best = max((called for returned, called in seen if returned < (get.invoked or 0)), default=0)
        return "older than what was shown before" if load.called < best else None

    def _too_old(self, get: Get, load: Load) -> str | None:
        marked = get.look is None or get.look.outcome is Outcome.STALE_HIT
        if not self.record.alive(load, get.invoked or 0, get.invoked_at):
            return "dead"
        if not marked and not self.record.fresh(load, get.invoked or 0, get.invoked_at):
            return "stale and not marked"
        if load.resource == get.resource and not self.record.alive(load, get.returned or 0, get.returned_at):
            return "dead when it was shown"
        return None

    def _revoked(self, get: Get, load: Load) -> str | None:
        for refused in self.record.refusals:
            if (
                refused.kind == FORBIDDEN
                and refused.user == load.user
                and refused.resource in DEPENDS[load.resource]
                and refused.ended is not None
                and refused.ended < get.rested
                and load.called < refused.ended
                and not self._was_overtaken(refused)
            ):
                return f"depends on what {refused} took away"
        return None

    def _was_overtaken(self, load: Load) -> bool:
        ended = load.ended or 0
        return (
            any(
                each.key == load.key and load.called < each.called < ended
                for each in self.record.loads.values()
            )
            or self.record.cleared_since(load.user, load.called, ended)
            or any(user == load.user and load.called < told for user, told, _ in self.record.ends)
            or any(
                (user, name) == (load.user, load.resource) and load.called < done and begun < ended
                for user, name, _, begun, done in self.record.floors
            )
            or any(
                other.user == load.user
                and other.kind == FORBIDDEN
                and other.resource in DEPENDS[load.resource]
                and load.called < (other.ended or 0) < ended
                for other in self.record.refusals
            )
        )

    def _note_seen(self, get: Get, load: Load) -> None:
        overtaken = any(
            each.key == load.key and load.called < each.called < (load.ended or 0)
            for each in self.record.loads.values()
        )
        if overtaken:
            return  # it answered its own callers and was not kept; should the newer one fail, what was held stays
        kept = self.seen.setdefault(load.key, [])
        if not kept or kept[-1][1] < load.called:
            kept.append((get.returned or 0, load.called))

    def _judge_error(self, get: Get, error: BaseException) -> None:
        invoked = get.invoked or 0
        if isinstance(error, asyncio.CancelledError):
            assert get.cancelled, "cancelled, but not by its caller"
            return
        assert not any(error is other for other in self.errors), "two callers were given one exception"
        self.errors.append(error)
        chain = {get.resource, *DEPENDS[get.resource]}
        since = self.record.cleared_before(get.user, invoked)
        if isinstance(error, SessionCleared):
            cleared = any(user == get.user and done > invoked for user, _, done in self.record.clears)
            ended = any(user == get.user and over > invoked for user, _, over in self.record.ends)
            ended = ended or any(user == get.user for user, _ in self.record.ending)
            clearing = any(user == get.user for user, _ in self.record.clearing)
            assert cleared or clearing or ended, "the session was not cleared meanwhile"
        elif isinstance(error, CacheClosed):
            assert get.node in self.record.closed, "the cache was not closed meanwhile"
        elif isinstance(error, LoadTimeout):
            # What it joined may have waited for a log-in or a slot and have reached its deadline just now.
            assert get.returned_at - START >= SHORTEST_DEADLINE, "no deadline has passed"
        elif isinstance(error, WrongType | BadUpstreamBody | LoaderBroke):
            kinds = {WrongType: {WRONG}, BadUpstreamBody: {GARBAGE}, LoaderBroke: {CANCELLED, BASE}}[
                type(error)
            ]
            assert any(
                load.user == get.user
                and load.resource in chain
                and load.kind in kinds
                and (load.ended or 0) > get.rested
                and load.called > since
                for load in self.record.loads.values()
            ), f"no load of theirs ended so: {error!r}"
        elif str(error).startswith("connect "):
            assert self.record.connections[int(str(error).split()[1])].user == get.user, (
                "another's failure to log in"
            )
        else:
            assert str(error).startswith("load "), f"an error of unknown origin: {error!r}"
            self._judge_failure(get, self.record.loads[int(str(error).split()[1])], chain, since)

    def _judge_failure(self, get: Get, load: Load, chain: set[str], since: int) -> None:
        invoked = get.invoked or 0
        assert load.user == get.user, f"another's failure: {load}"
        assert load.resource in chain, f"the failure of something else: {load}"
        assert load.called > since, f"a failure from before a clear: {load}"
        assert load.ended is not None
        assert load.node == get.node, f"a failure that another node met: {load}"
        if get.force and load.resource == get.resource:
            assert load.called > invoked, f"forced, and given a failure from before: {load}"
        if load.ended < get.rested:
            longest = max(
                chosen.negative_ttl.total_seconds() for _, _, chosen in self.record.policies[load.resource]
            )
            assert load.kind in REFUSALS, f"a failure from before the call: {load}"
            assert get.returned_at < (load.ended_at or 0.0) + longest or get.returned_at > get.invoked_at, (
                f"a refusal that should have been forgotten: {load}"
            )
