"""The calls of IPC Cloud, made in one user's name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from coatcheck.errors import (
    AuthExpired,
    BadUpstreamBody,
    Gone,
    NotFound,
    Unavailable,
    UpstreamFailed,
    UpstreamRejected,
)
from coatcheck.ipc.clusters import ClusterListing, ClusterReader
from coatcheck.ipc.envelope import Payload, open_envelope, payload, unwrap
from coatcheck.ipc.models import (
    BusinessUnits,
    Endpoint,
    Engagement,
    Environment,
    IpcEngagement,
    ManagedService,
    VmList,
    Zone,
)
from coatcheck.upstream.client import EVENT_STREAM, MIB, UpstreamClient
from coatcheck.upstream.strict_json import strict_json, typed
from coatcheck.upstream.tokens import TokenProvider, authorised, sendable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coatcheck.upstream.cooldown import Cooldown
    from coatcheck.upstream.log_ins import Account

T = TypeVar("T")

LOG_IN_TIMEOUT: Final = 10.0
"""Seconds that a log-in may take."""

LIVE_TIMEOUT: Final = 30.0
"""Seconds that a live list may take, to its last byte."""

LIVE_MAX_BODY: Final = 8 * MIB
"""Bytes of a live list: they have no pages, and are not kept."""

SERVICE_TYPES: Final = (
    "IKSKafka",
    "IKSGitlab",
    "IKSContainerRegistry",
    "IKSJenkins",
    "IKSPostgres",
    "IKSDocumentDB",
)
"""The kinds of managed services that are known; others may be asked for."""

_SERVICE_TYPE = re.compile(r"[A-Za-z0-9_-]+")
_NO_TOKEN = "Failed to generate token"  # noqa: S105 - what the upstream says instead of a token


class _LogInAnswer(msgspec.Struct, frozen=True, rename="camel"):
    status_code: object = None
    access_token: object = None
    access_token_too: object = msgspec.field(name="access_token", default=None)
    token: object = None
    auth_token: object = None


class _Nested(msgspec.Struct, frozen=True):
    data: msgspec.Raw = msgspec.Raw(b"null")
    status: object = "success"


async def log_in(client: UpstreamClient, account: Account) -> str:
    """Return a new token for *account*. Bind the client with `functools.partial` to make a `LogIn` of it.

    The upstream reports wrong credentials as HTTP 200 with another code in the body and a sentence in the token's
    place; both are looked at.

    Raises:
        AuthExpired: the log-in was refused.
        Forbidden: 403.
        UpstreamRejected: any other refusal of the call itself, also one that says it is not there.
        Unavailable: no answer, a failed one, or `BadUpstreamBody` for one without a token.
    """
    try:
        response = await client.request(
            "POST",
            "/portalservice/api/v1/getAuthToken",
            json={"email": account.email, "password": account.password},
            timeout=LOG_IN_TIMEOUT,
        )
    except (NotFound, Gone) as error:
        # To the loads that wait for the token this must not look as if their data were gone.
        status = 404 if isinstance(error, NotFound) else 410
        raise UpstreamRejected(f"the upstream answered {status} to a log-in", status=status) from None
    return _token_of(response.body)


def _token_of(body: bytes) -> str:
    strict_json(body)
    answer = typed(body, _LogInAnswer, "the answer to a log-in")
    given = (answer.access_token, answer.access_token_too, answer.token, answer.auth_token)
    token = next((each for each in given if each is not None), None)
    if answer.status_code not in (None, 200) or (isinstance(token, str) and token.startswith(_NO_TOKEN)):
        raise AuthExpired("the log-in was refused: check the e-mail and the password of this user's account")
    if not isinstance(token, str) or not sendable(token):
        raise BadUpstreamBody("the answer to a log-in has no token")
    return token


class IpcCloud:
    """IPC Cloud as one user sees it. Methods may be called concurrently; cancelling one ends its request.

    Each call is made with the user's token; a 401 leads to one renewal and one retry. All calls only read, so a
    connection that breaks or a 5xx may lead to a second try as well. When the upstream asks this user to pause, no
    call and no log-in leaves until then. All raise:

        Refused: `AuthExpired` if that did not help, `Forbidden`, `NotFound`, `Gone`; by HTTP status or envelope.
        NoCredentials: there is nothing to get a token with.
        Unavailable: timeout, connection, failure, 429, or a body that is not what it should be; at once, and
            without a request, `RateLimited` during a pause and `BreakerOpen` after too many failures.
        UpstreamRejected: any other status.

    Ids of engagements are of two kinds that must not be mixed up: PaaS and IPC.
    """

    def __init__(
        self, client: UpstreamClient, tokens: TokenProvider, *, cooldown: Cooldown | None = None
    ) -> None:
        """Use *client*, which all users share, with *tokens*, which are this user's.

        Args:
            client: the way to the upstream.
            tokens: dropped by `aclose`.
            cooldown: of this user among the client's, so that a pause outlasts this object. Without one, this object
                has one to itself.
        """
        self._client = client
        self._tokens = tokens
        self._cooldown = client.cooldowns.of(object()) if cooldown is None else cooldown

    async def engagements(self) -> Payload[tuple[Engagement, ...]]:
        """Return the user's engagements; there may be none."""
        return await self._get("/paasservice/paas/engagements", tuple[Engagement, ...])

    async def engagement(self) -> Payload[Engagement]:
        """Return the first of the user's engagements, the one they work in.

        Raises:
            NotFound: there is none.
        """
        listed = await self._get("/paasservice/paas/engagements", tuple[msgspec.Raw, ...])
        if not listed.value:
            raise NotFound("the user has no engagement")
        return payload(listed.value[0], Engagement)

    async def ipc_engagement(self, paas_engagement_id: int) -> Payload[IpcEngagement]:
        """Return the engagement in IPC that a PaaS id stands for."""
        return await self._get(
            f"/paasservice/paas/getIpcEngFromPaasEng/{_id(paas_engagement_id)}", IpcEngagement
        )

    async def endpoints(self, paas_engagement_id: int) -> Payload[tuple[Endpoint, ...]]:
        """Return the data centres of a PaaS engagement."""
        path = f"/portalservice/configservice/getEndpointsByEngagement/{_id(paas_engagement_id)}"
        return await self._get(path, tuple[Endpoint, ...])

    async def business_units(self, ipc_engagement_id: int) -> Payload[BusinessUnits]:
        """Return the departments of an IPC engagement."""
        return await self._get(
            f"/portalservice/securityservice/departments/{_id(ipc_engagement_id)}", BusinessUnits
        )

    async def environments(self, ipc_engagement_id: int) -> Payload[tuple[Environment, ...]]:
        """Return the environments of an IPC engagement."""
        path = f"/portalservice/securityservice/environmentsperengagement/{_id(ipc_engagement_id)}"
        return await self._get(path, tuple[Environment, ...])

    async def zones(self, ipc_engagement_id: int) -> Payload[tuple[Zone, ...]]:
        """Return the zones of an IPC engagement."""
        return await self._get(f"/portalservice/api/v1/{_id(ipc_engagement_id)}/zonelist", tuple[Zone, ...])

    async def vms(self, ipc_engagement_id: int) -> Payload[VmList]:
        """Return the virtual machines of an IPC engagement, live."""
        return await self._call(
            "GET",
            f"/portalservice/instances/vmlist/{_id(ipc_engagement_id)}",
            VmList,
            timeout=LIVE_TIMEOUT,
            max_body=LIVE_MAX_BODY,
        )

    async def clusters(self, paas_engagement_id: int, endpoint_ids: Sequence[int]) -> ClusterListing:
        """Return the clusters in the data centres of a PaaS engagement, live, as far as the stream brought them.

        A stream that breaks after its first event gives what it brought; look at ``complete`` and ``errors``.
        One that breaks before raises.
        """
        path = f"/paasservice/paas/{_id(paas_engagement_id)}/clusterlist/stream"
        asked = [_id(each) for each in endpoint_ids]

        async def call(token: str) -> ClusterListing:
            reader = ClusterReader(asked)
            try:
                response = await self._client.stream(
                    "POST",
                    path,
                    token=token,
                    json={"endpoints": asked},
                    timeout=LIVE_TIMEOUT,
                    max_body=LIVE_MAX_BODY,
                    safe=True,
                    cooldown=self._cooldown,
                    feed=reader.feed,
                )
            except Unavailable:
                if not reader.heard_anything:
                    raise
                return reader.listing()
            if response.content_type != EVENT_STREAM:
                with self._cooldown.noting():
                    open_envelope(response.body)
                raise BadUpstreamBody("the cluster list came as no event stream")
            reader.finish()
            if not reader.heard_anything:
                raise BadUpstreamBody("the cluster list ended before its first event")
            return reader.listing()

        return await authorised(self._tokens, call, cooldown=self._cooldown)

    async def managed_services(
        self, ipc_engagement_id: int, endpoint_ids: Sequence[int], service_type: str
    ) -> Payload[tuple[ManagedService, ...]]:
        """Return the managed services of one type in the data centres of an IPC engagement, live.

        Raises:
            ValueError: the service type has other characters than letters, digits, ``-`` and ``_``.
        """
        if _SERVICE_TYPE.fullmatch(service_type) is None:
            raise ValueError("a service type consists of letters, digits, - and _")
        nested = await self._call(
            "POST",
            f"/paasservice/api/v1/paas/listManagedServices/{service_type}",
            _Nested,
            json={
                "engagementId": _id(ipc_engagement_id),
                "endpoints": [_id(each) for each in endpoint_ids],
                "serviceType": service_type,
            },
            timeout=LIVE_TIMEOUT,
            max_body=LIVE_MAX_BODY,
        )
        if nested.value.status != "success":
            raise UpstreamFailed("the inner envelope reports a failure", status=200)
        return payload(nested.value.data, tuple[ManagedService, ...])

    async def aclose(self) -> None:
        """Drop the user's token and credentials; later calls raise `NoCredentials`. The client stays open."""
        self._tokens.forget()

    async def _get(self, path: str, type_: type[T]) -> Payload[T]:
        return await self._call("GET", path, type_)

    async def _call(
        self,
        method: str,
        path: str,
        type_: type[T],
        *,
        json: object = None,
        timeout: float | None = None,
        max_body: int | None = None,
    ) -> Payload[T]:
        async def call(token: str) -> Payload[T]:
            response = await self._client.request(
                method,
                path,
                token=token,
                json=json,
                timeout=timeout,
                max_body=max_body,
                safe=True,
                cooldown=self._cooldown,
            )
            # Within the renewal, since a 401 may come in an envelope as well; so may a 429.
            with self._cooldown.noting():
                return unwrap(response.body, type_)

        return await authorised(self._tokens, call, cooldown=self._cooldown)


def _id(value: object) -> int:
    # A path is made of it, and callers without a type checker pass what they have.
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("an id is an int")
    return value
