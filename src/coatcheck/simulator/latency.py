"""How long the upstream takes, by the name of the call."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OTHERS_MS = 250.0

STATED_MS: dict[str, float] = {
    "auth": 200.0,
    "engagements": 300.0,
    "user_engagements": 300.0,
    "conversion": 250.0,
    "endpoints": 400.0,
    "departments": 200.0,
    "department_details": 200.0,
    "environments": 250.0,
    "environment_list": 250.0,
    "zones": 250.0,
    "zone_list": 250.0,
    "vmlist": 400.0,
    "clusters": 600.0,
    "cluster_list": 600.0,
    "managed": 300.0,
    "firewall": 300.0,
}


class Latency:
    """Milliseconds for every call, times a factor; both may be changed while the server runs."""

    def __init__(self, names: Iterable[str], scale: float) -> None:
        self._table = {name: STATED_MS.get(name, OTHERS_MS) for name in names}
        self._scale = scale

    def seconds(self, name: str) -> float:
        """Return how long the call *name* takes now."""
        return self._table.get(name, OTHERS_MS) * self._scale / 1000

    def change(self, scale: float | None = None, table: Mapping[str, float] | None = None) -> None:
        """Set the factor, the milliseconds of some calls, or both; or nothing, when one of them cannot be.

        Raises:
            ValueError: a figure below 0 or not finite, or a call that does not exist.
        """
        changes = dict(table) if table is not None else {}
        figures = list(changes.values()) if scale is None else [scale, *changes.values()]
        if not all(0 <= figure < float("inf") for figure in figures):
            raise ValueError("a latency must be a number not below 0")
        unknown = sorted(changes.keys() - self._table.keys())
        if unknown:
            raise ValueError(
                f"no such call: {', '.join(unknown)}; there are {', '.join(sorted(self._table))}"
            )
        self._table.update(changes)
        if scale is not None:
            self._scale = scale

    def view(self) -> dict[str, object]:
        """Return ``{scale, table}``, the milliseconds before scaling."""
        return {"scale": self._scale, "table": dict(self._table)}
