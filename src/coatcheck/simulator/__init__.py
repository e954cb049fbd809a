"""The upstream API as a real HTTP server, with worlds made from a seed and faults switched on at run time.

It stands alone: nothing in it comes from the rest of coatcheck.

Example::

    async with Simulator(Settings(seed=7, users=100, latency_scale=0)) as simulator:
        account = simulator.users(limit=1)[0]
        simulator.set_faults([{"kind": "status", "status": 503, "path": "endpoints", "fraction": 0.1}])
        ...
        simulator.calls()["by_path"]
"""

try:
    import aiohttp  # noqa: F401 - most of what follows needs it; here it can be said how to get it
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "coatcheck.simulator needs aiohttp: install coatcheck[ipc]", name=missing.name
    ) from None

from coatcheck.simulator.app import Simulator
from coatcheck.simulator.faults import KINDS, BadFault
from coatcheck.simulator.routes import NAMES
from coatcheck.simulator.settings import Settings

__all__ = ["KINDS", "NAMES", "BadFault", "Settings", "Simulator"]
