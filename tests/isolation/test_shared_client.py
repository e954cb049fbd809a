"""One upstream client for all users: nothing of one user's exchange goes along with the next."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import aiohttp
import pytest
from ipc.rig import ANN, BOB, rigged

from coatcheck.simulator.upstream import Incoming, Reply, Upstream

if TYPE_CHECKING:
    from pathlib import Path

# Cookies and .netrc entries are kept by name; for an address many clients keep none.
HOST = "localhost"


@pytest.fixture
def incoming(monkeypatch: pytest.MonkeyPatch) -> list[Incoming]:
    """Return the requests as they arrive at any simulator."""
    arrived: list[Incoming] = []
    receive = Upstream.receive

    def noted(self: Upstream, request: Incoming) -> Reply:
        arrived.append(request)
        return receive(self, request)

    monkeypatch.setattr(Upstream, "receive", noted)
    return arrived


@pytest.fixture
def tempting_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have the environment name a proxy that is not there, and a password for the host."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {HOST}\nlogin somebody\npassword something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


def owner(request: Incoming) -> str | None:
    """Return whose token a request carries."""
    if not request.authorization:
        return None
    scheme, _, token = request.authorization.partition(" ")
    assert scheme == "Bearer"
    payload = token.split(".")[1]
    email: str = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["email"]
    return email


@pytest.mark.usefixtures("tempting_environment")
async def test_no_cookie_and_no_credentials_of_the_environment(incoming: list[Incoming]) -> None:
    """The upstream sets a cookie in every answer to Ann; Bob's requests carry his token and nothing else."""
    async with rigged(host=HOST) as rig:
        assert rig.simulator.url.startswith(f"http://{HOST}:")
        rig.simulator.set_faults([{"kind": "set_cookie", "name": "portal_session", "value": "anns"}])
        for user in (ANN, BOB, ANN):
            assert (await rig.service.get_zones_list(user_id=user, force_refresh=True))["success"]
            assert (await rig.service.list_clusters(user_id=user))["success"]
            assert (await rig.service.list_vms(user_id=user))["success"]
        assert rig.simulator.faults()[0]["hits"] == len(incoming) > 12
        assert [request.path for request in incoming if request.cookie] == []
        log_ins = [request for request in incoming if request.path.endswith("getAuthToken")]
        assert [request.authorization for request in log_ins] == ["", ""]
        assert {owner(request) for request in incoming if request not in log_ins} == {ANN, BOB}
        assert rig.simulator.calls()["by_user"].keys() == {ANN, BOB}
        assert rig.simulator.calls()["with_cookie"] == 0


async def test_the_control_a_client_with_a_jar_brings_the_cookie(incoming: list[Incoming]) -> None:
    async with rigged(host=HOST) as rig, aiohttp.ClientSession() as jar:
        rig.simulator.set_faults([{"kind": "set_cookie"}])
        for _ in range(2):
            async with jar.get(f"{rig.simulator.url}/paasservice/paas/engagements") as response:
                await response.read()
        assert [request.cookie for request in incoming] == [False, True]
        assert rig.simulator.calls()["with_cookie"] == 1


async def test_a_redirect_takes_no_token_anywhere(incoming: list[Incoming]) -> None:
    """Neither to another host nor to another path of this one."""
    async with rigged(host=HOST) as rig, rigged() as elsewhere:
        for location in (f"{elsewhere.simulator.url}/x", "/portalservice/api/v1/x"):
            rig.simulator.set_faults([{"kind": "redirect", "path": "zones", "location": location}])
            assert not (await rig.service.get_zones_list(user_id=ANN))["success"]
        assert elsewhere.simulator.calls()["total"] == 0
        assert not any(request.path.endswith("/x") for request in incoming)
