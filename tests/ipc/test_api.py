from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from upstream.secrets import CANARY, assert_silent
from upstream.server import Answer, Asked, LocalUpstream, head, reply, success

from coatcheck.errors import (
    AuthExpired,
    BadUpstreamBody,
    Forbidden,
    LoadError,
    NoCredentials,
    NotFound,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from coatcheck.ipc import api
from coatcheck.ipc.api import IpcCloud, log_in
from coatcheck.ipc.clusters import ClusterReader
from coatcheck.upstream.log_ins import Account, LogIns
from coatcheck.upstream.tokens import CallerToken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from coatcheck.ipc.envelope import Payload
    from coatcheck.upstream.client import UpstreamClient

    Call = Callable[[IpcCloud], Awaitable[Payload[Any]]]

LOG_IN = "/portalservice/api/v1/getAuthToken"
ENGAGEMENTS = "/paasservice/paas/engagements"
CLUSTERS = "/paasservice/paas/4101/clusterlist/stream"
MANAGED = "/paasservice/api/v1/paas/listManagedServices/IKSKafka"
ACCOUNT = Account(f"{CANARY}@example.com", f"password-{CANARY}")


class TestLogIn:
    @pytest.mark.parametrize("key", ["accessToken", "access_token", "token", "authToken"])
    @pytest.mark.parametrize("code", [{"statusCode": 200}, {}])
    async def test_the_token_has_one_of_four_names(
        self, upstream: LocalUpstream, client: UpstreamClient, key: str, code: dict[str, int]
    ) -> None:
        upstream.on(LOG_IN, reply(json.dumps({**code, key: "a.b.c"}).encode()))
        assert await log_in(client, ACCOUNT) == "a.b.c"
        (asked,) = upstream.asked
        assert (asked.method, asked.token) == ("POST", None)
        assert json.loads(asked.body) == {"email": ACCOUNT.email, "password": ACCOUNT.password}

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            ({"statusCode": 500, "accessToken": "Failed to generate token after retries"}, AuthExpired),
            ({"statusCode": 500, "accessToken": CANARY}, AuthExpired),
            ({"statusCode": 200, "accessToken": "Failed to generate token after retries"}, AuthExpired),
            ({"statusCode": "no", "accessToken": CANARY}, AuthExpired),
            ({"statusCode": [CANARY], "accessToken": CANARY}, AuthExpired),
            ({"statusCode": 200, "accessToken": f"{CANARY} sentence"}, BadUpstreamBody),
            ({"statusCode": 200, "accessToken": ""}, BadUpstreamBody),
            ({"statusCode": 200, "accessToken": None}, BadUpstreamBody),
            ({"statusCode": 200, "accessToken": [CANARY]}, BadUpstreamBody),
            ({"statusCode": 200}, BadUpstreamBody),
            ([CANARY], BadUpstreamBody),
            (CANARY, BadUpstreamBody),
        ],
    )
    async def test_a_refusal_comes_as_http_200(
        self, upstream: LocalUpstream, client: UpstreamClient, body: object, kind: type[LoadError]
    ) -> None:
        upstream.on(LOG_IN, reply(json.dumps(body).encode()))
        with pytest.raises(LoadError) as caught:
            await log_in(client, ACCOUNT)
        assert type(caught.value) is kind
        assert_silent(caught.value)

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (401, AuthExpired),
            (403, Forbidden),
            (404, UpstreamRejected),
            (410, UpstreamRejected),
            (500, UpstreamFailed),
        ],
    )
    async def test_a_log_in_that_is_not_there_does_not_look_like_missing_data(
        self, upstream: LocalUpstream, client: UpstreamClient, status: int, kind: type[LoadError]
    ) -> None:
        upstream.on(LOG_IN, reply(b"CANARY", status))
        with pytest.raises(LoadError) as caught:
            await log_in(client, ACCOUNT)
        assert type(caught.value) is kind
        assert_silent(caught.value)


CALLS = [
    pytest.param(lambda cloud: cloud.engagements(), ENGAGEMENTS, [{"id": 1}], id="engagements"),
    pytest.param(
        lambda cloud: cloud.ipc_engagement(4101),
        "/paasservice/paas/getIpcEngFromPaasEng/4101",
        {"ipc_engid": 73055},
        id="ipc_engagement",
    ),
    pytest.param(
        lambda cloud: cloud.endpoints(4101),
        "/portalservice/configservice/getEndpointsByEngagement/4101",
        [{"endpointId": 21, "endpointDisplayName": "Pune"}],
        id="endpoints",
    ),
    pytest.param(
        lambda cloud: cloud.business_units(73055),
        "/portalservice/securityservice/departments/73055",
        {"department": [{"id": 901, "name": "BU"}]},
        id="business_units",
    ),
    pytest.param(
        lambda cloud: cloud.environments(73055),
        "/portalservice/securityservice/environmentsperengagement/73055",
        [{"id": 5501, "name": "Production"}],
        id="environments",
    ),
    pytest.param(
        lambda cloud: cloud.zones(73055),
        "/portalservice/api/v1/73055/zonelist",
        [{"zoneId": 1, "zoneName": "z"}],
        id="zones",
    ),
    pytest.param(
        lambda cloud: cloud.vms(73055),
        "/portalservice/instances/vmlist/73055",
        {"vmList": [{"virtualMachine": {"vmName": "web-01"}}]},
        id="vms",
    ),
]


class TestCalls:
    @pytest.mark.parametrize(("call", "path", "data"), CALLS)
    async def test_each_asks_its_own_path_and_keeps_what_came(
        self, upstream: LocalUpstream, cloud: IpcCloud, call: Call, path: str, data: object
    ) -> None:
        upstream.on(path, reply(success(data)))
        payload = await call(cloud)
        assert json.loads(payload.raw) == data
        assert payload.value
        assert [(each.method, each.target, each.token) for each in upstream.asked] == [("GET", path, "token")]

    @pytest.mark.parametrize(("call", "path", "data"), CALLS)
    async def test_each_reports_what_the_envelope_reports(
        self, upstream: LocalUpstream, cloud: IpcCloud, call: Call, path: str, data: object
    ) -> None:
        """HTTP 200 or not, an engagement that is not accessible is forbidden; null is no value; nor is a wrong type."""
        forbidden = {"status": "failure", "data": None, "message": CANARY, "responseCode": 403}
        for body, kind in (
            (json.dumps(forbidden).encode(), Forbidden),
            (success(None), BadUpstreamBody),
            (success(CANARY), BadUpstreamBody),
        ):
            upstream.on(path, reply(body))
            with pytest.raises(kind) as caught:
                await call(cloud)
            assert_silent(caught.value)

    async def test_the_first_engagement_is_the_users(self, upstream: LocalUpstream, cloud: IpcCloud) -> None:
        upstream.on(ENGAGEMENTS, reply(success([{"id": 1, "new": True}, {"id": 2}])))
        payload = await cloud.engagement()
        assert (payload.value.id, payload.raw) == (1, b'{"id": 1, "new": true}')

    async def test_a_user_without_engagement_is_told_so(
        self, upstream: LocalUpstream, cloud: IpcCloud
    ) -> None:
        upstream.on(ENGAGEMENTS, reply(success([])))
        assert (await cloud.engagements()).value == ()
        with pytest.raises(NotFound):
            await cloud.engagement()

    async def test_managed_services_are_nested_twice(self, upstream: LocalUpstream, cloud: IpcCloud) -> None:
        upstream.on(
            MANAGED, reply(success({"data": [{"name": "kfk-1", "plugins": []}], "status": "success"}))
        )
        payload = await cloud.managed_services(73055, [21, 22], "IKSKafka")
        assert payload.raw == b'[{"name": "kfk-1", "plugins": []}]'
        assert payload.value[0].title == "kfk-1"
        assert json.loads(upstream.asked[0].body) == {
            "engagementId": 73055,
            "endpoints": [21, 22],
            "serviceType": "IKSKafka",
        }

    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            ({"data": [], "status": "failed"}, UpstreamFailed),
            ({"data": None}, BadUpstreamBody),
            ({}, BadUpstreamBody),
            ([], BadUpstreamBody),
        ],
    )
    async def test_both_envelopes_must_be_good(
        self, upstream: LocalUpstream, cloud: IpcCloud, data: object, kind: type[LoadError]
    ) -> None:
        upstream.on(MANAGED, reply(success(data)))
        with pytest.raises(kind):
            await cloud.managed_services(73055, [], "IKSKafka")

    @pytest.mark.parametrize("service_type", ["", "..", "a/b", "a?b", "é"])
    async def test_a_service_type_is_no_path(self, cloud: IpcCloud, service_type: str) -> None:
        with pytest.raises(ValueError, match="service type"):
            await cloud.managed_services(73055, [], service_type)

    @pytest.mark.parametrize("id_", ["4101", "../x", None, True, 1.0])
    async def test_an_id_is_no_path(self, cloud: IpcCloud, id_: object) -> None:
        with pytest.raises(TypeError):
            await cloud.endpoints(id_)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await cloud.clusters(4101, [id_])  # type: ignore[list-item]

    async def test_a_long_live_list_is_read(self, upstream: LocalUpstream, cloud: IpcCloud) -> None:
        """Lists that are not kept may be longer than what is."""
        machines = {"vmList": [{"virtualMachine": {"vmName": "v" * 200}}] * 10_000}
        upstream.on("/portalservice/instances/vmlist/73055", reply(success(machines)))
        assert len((await cloud.vms(73055)).value.machines) == 10_000


def event_stream(
    *pieces: bytes, end: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None
) -> Answer:
    async def answer(asked: Asked, out: asyncio.StreamWriter) -> None:
        out.write(head(headers={"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}))
        for piece in pieces:
            out.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await out.drain()
        if end is not None:
            await end(out)
        else:
            out.write(b"0\r\n\r\n")

    return answer


async def abort(out: asyncio.StreamWriter) -> None:
    out.transport.abort()


async def hang(out: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


EVENT = (
    b'event: endpoint\ndata: {"endpointId":21,"clusters":[{"clusterId":88,"clusterName":"demo",'
    b'"createdTime":2025-01-02 03:04:05.0}],"error":null}\n\n'
)
COMPLETE = b"event: complete\ndata: done\n\n"


class TestClusters:
    async def test_a_whole_stream(self, upstream: LocalUpstream, cloud: IpcCloud) -> None:
        """Its end is the `complete` event, whether the connection ends or not."""
        upstream.on(CLUSTERS, event_stream(EVENT[:50], EVENT[50:], b":ping\n", COMPLETE, end=hang))
        listing = await cloud.clusters(4101, [21])
        assert (listing.complete, listing.errors, listing.repaired) == (True, (), 1)
        assert [each.cluster_name for each in listing.clusters.value] == ["demo"]
        assert json.loads(upstream.asked[0].body) == {"endpoints": [21]}
        assert upstream.asked[0].token == "token"

    async def test_the_last_blank_line_may_be_left_out(
        self, upstream: LocalUpstream, cloud: IpcCloud
    ) -> None:
        upstream.on(CLUSTERS, event_stream(EVENT, COMPLETE.rstrip()))
        assert (await cloud.clusters(4101, [21])).complete

    @pytest.mark.parametrize("end", [None, abort])
    async def test_a_cut_stream_gives_what_it_brought_and_says_so(
        self,
        upstream: LocalUpstream,
        cloud: IpcCloud,
        end: Callable[[asyncio.StreamWriter], Awaitable[None]] | None,
    ) -> None:
        gate = asyncio.Event()

        async def cut(out: asyncio.StreamWriter) -> None:
            # The connection breaks after what was sent has arrived, not instead.
            await gate.wait()
            await abort(out)

        upstream.on(CLUSTERS, event_stream(EVENT, end=None if end is None else cut))
        feed = ClusterReader.feed

        def heard(reader: ClusterReader, chunk: bytes) -> bool:
            gate.set()
            return feed(reader, chunk)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ClusterReader, "feed", heard)
            listing = await cloud.clusters(4101, [21])
        assert not listing.complete
        assert [each.fault for each in listing.errors] == ["cut"]
        assert len(listing.clusters.value) == 1

    async def test_a_stream_that_hangs_gives_what_it_brought(
        self, client: UpstreamClient, cloud: IpcCloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = EVENT

        async def stream(
            method: str, path: str, *, timeout: float, feed: Callable[[bytes], bool], **how: object
        ) -> None:
            assert timeout == api.LIVE_TIMEOUT
            feed(said)
            raise UpstreamTimeout("no complete answer")

        monkeypatch.setattr(client, "stream", stream)
        assert [each.fault for each in (await cloud.clusters(4101, [21])).errors] == ["cut"]
        said = b":ping\n"
        with pytest.raises(UpstreamTimeout):
            await cloud.clusters(4101, [21])

    async def test_a_stream_that_brought_nothing_raises(
        self, upstream: LocalUpstream, cloud: IpcCloud
    ) -> None:
        upstream.on(CLUSTERS, event_stream(b":ping\n"))
        with pytest.raises(BadUpstreamBody):
            await cloud.clusters(4101, [21])
        upstream.on(CLUSTERS, event_stream(b":ping\n", end=abort))
        with pytest.raises(UpstreamUnreachable):
            await cloud.clusters(4101, [21])

    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (reply(status=403), Forbidden),
            (reply(json.dumps({"status": "failure", "responseCode": 404}).encode()), NotFound),
            (reply(success([])), BadUpstreamBody),
            (reply(b"<html>CANARY</html>", content_type="text/html"), BadUpstreamBody),
        ],
    )
    async def test_an_answer_that_is_no_stream(
        self, upstream: LocalUpstream, cloud: IpcCloud, answer: Answer, kind: type[LoadError]
    ) -> None:
        upstream.on(CLUSTERS, answer)
        with pytest.raises(kind) as caught:
            await cloud.clusters(4101, [21])
        assert_silent(caught.value)


class Gate:
    """An upstream that knows which tokens are good and gives new ones."""

    def __init__(self, upstream: LocalUpstream) -> None:
        self.good: set[str] = set()
        self.log_ins = 0
        self.refuse: Answer = reply(b"CANARY", 401)
        upstream.on(LOG_IN, self.log_in)

    async def log_in(self, asked: Asked, out: asyncio.StreamWriter) -> None:
        self.log_ins += 1
        token = f"{CANARY}-{self.log_ins}"
        self.good = {token}
        await reply(json.dumps({"statusCode": 200, "accessToken": token}).encode())(asked, out)

    def guard(self, answer: Answer) -> Answer:
        async def guarded(asked: Asked, out: asyncio.StreamWriter) -> None:
            await (answer if asked.token in self.good else self.refuse)(asked, out)

        return guarded


class TestTokens:
    @pytest.mark.parametrize(
        "refusal",
        [
            reply(b"CANARY", 401),
            reply(json.dumps({"status": "failure", "data": None, "responseCode": 401}).encode()),
        ],
        ids=["HTTP", "envelope"],
    )
    async def test_an_expired_token_costs_one_log_in_for_all(
        self, upstream: LocalUpstream, client: UpstreamClient, refusal: Answer
    ) -> None:
        """Fifty calls that were refused with one token: one log-in, one retry each."""
        gate = Gate(upstream)
        gate.refuse = refusal
        upstream.on(ENGAGEMENTS, gate.guard(reply(success([{"id": 1}]))))
        log_ins = LogIns(partial(log_in, client))
        cloud = IpcCloud(client, log_ins.provider(ACCOUNT))
        await cloud.engagements()
        gate.good.clear()
        await asyncio.gather(*(cloud.engagements() for _ in range(50)))
        assert gate.log_ins == 2
        asked = [each.token for each in upstream.asked if each.target == ENGAGEMENTS]
        assert len(asked) <= 1 + 50 + 50
        await log_ins.aclose()

    async def test_a_second_401_is_final(self, upstream: LocalUpstream, client: UpstreamClient) -> None:
        gate = Gate(upstream)
        upstream.on(ENGAGEMENTS, gate.refuse)
        upstream.on(CLUSTERS, gate.refuse)
        log_ins = LogIns(partial(log_in, client))
        cloud = IpcCloud(client, log_ins.provider(ACCOUNT))
        with pytest.raises(AuthExpired) as caught:
            await cloud.engagements()
        assert_silent(caught.value)
        assert [each.target for each in upstream.asked] == [LOG_IN, ENGAGEMENTS, LOG_IN, ENGAGEMENTS]
        with pytest.raises(AuthExpired):
            await cloud.clusters(4101, [21])
        await log_ins.aclose()

    async def test_the_stream_is_retried_with_a_new_token(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        gate = Gate(upstream)
        upstream.on(CLUSTERS, gate.guard(event_stream(EVENT, COMPLETE)))
        log_ins = LogIns(partial(log_in, client))
        cloud = IpcCloud(client, log_ins.provider(ACCOUNT))
        await log_ins.token(ACCOUNT)
        gate.good.clear()
        assert (await cloud.clusters(4101, [21])).complete
        assert gate.log_ins == 2
        await log_ins.aclose()

    async def test_each_user_asks_in_their_own_name(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        async def who(asked: Asked, out: asyncio.StreamWriter) -> None:
            assert asked.token is not None
            await reply(success([{"id": int(asked.token)}]))(asked, out)

        upstream.on(ENGAGEMENTS, who)

        async def ask(user: int) -> int:
            cloud = IpcCloud(client, CallerToken(lambda: str(user)))
            return (await cloud.engagement()).value.id

        assert await asyncio.gather(*(ask(user) for user in range(40))) == list(range(40))

    async def test_a_closed_cloud_has_no_credentials(
        self, upstream: LocalUpstream, client: UpstreamClient
    ) -> None:
        gate = Gate(upstream)
        upstream.on(ENGAGEMENTS, gate.guard(reply(success([]))))
        log_ins = LogIns(partial(log_in, client))
        cloud = IpcCloud(client, log_ins.provider(ACCOUNT))
        await cloud.engagements()
        await cloud.aclose()
        await cloud.aclose()
        assert not log_ins._kept
        with pytest.raises(NoCredentials):
            await cloud.engagements()
        assert CANARY not in repr(cloud)
