"""The demo's figures as tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from coatcheck.cli.comparison import PathCalls, Report
    from coatcheck.cli.outage import OutageReport
    from coatcheck.cli.restart import RestartReport


def show(report: Report) -> None:
    """Print the figures on standard output."""
    console = Console(highlight=False)
    console.print(
        f"The chat session of {report.users:,} users, {report.passes} passes each, against the simulated upstream"
        f" (seed {report.seed}, latencies {report.latency_scale:g} of those stated)\n",
        soft_wrap=True,
    )
    console.print(_calls(report))
    console.print(_times(report))
    for name, figure in (
        ("time saved a request", _ms(report.saved_ms_per_request)),
        ("memory a user", f"{report.bytes_per_user / 1000:.1f} kB"),
        ("hit rate", _percent(report.hit_rate * 100)),
        ("answers checked", f"{report.answers_checked:,}"),
        ("wrong answers", f"{report.wrong_answers:,}"),
        ("foreign answers seen", f"{report.foreign_answers:,}"),
    ):
        console.print(f" {name:24}{figure:>12}")


def show_outage(report: OutageReport) -> None:
    """Print what users saw in each phase on standard output."""
    console = Console(highlight=False)
    console.print(
        f"{report.users:,} users ask for their kept lists all the time, against the simulated upstream (seed {report.seed},"
        f" latencies {report.latency_scale:g} of those stated)\n\n"
        f"Scaled: {report.speed:g} s pass for the cache in one. By its clock things are fresh for"
        f" {_span(report.ttl_seconds)} instead of a day, and a caller waits {_span(report.soft_timeout_seconds)} before"
        f" something stale is given.\nAs always: that may be as old as {_span(report.grace_seconds)} more, and a load that"
        f" failed is tried again after {_span(report.throttle_seconds)}.\n",
        soft_wrap=True,
    )
    table = Table("phase", title_justify="left")
    for heading in ("seconds", "gets", "fresh", "stale", "failed", "foreign", "calls"):
        table.add_column(heading, justify="right", min_width=6)
    for phase in report.phases:
        counts = (phase.gets, phase.fresh, phase.stale, phase.failed, phase.foreign, phase.upstream_calls)
        table.add_row(phase.name, f"{phase.seconds:.1f}", *(f"{count:,}" for count in counts))
    console.print(table)
    console.print(" calls: that arrived at the upstream, log-ins and failed ones included\n")
    for name, figure in (
        ("wrong answers", report.wrong_answers),
        ("foreign answers seen", report.foreign_answers),
    ):
        console.print(f" {name:24}{figure:>12,}")


def show_restart(report: RestartReport) -> None:
    """Print the calls after the restart on standard output."""
    console = Console(highlight=False)
    console.print(
        f"The chat session of {report.users:,} users against the simulated upstream (seed {report.seed}, latencies"
        f" {report.latency_scale:g} of those stated): {report.passes_before} passes each, a restart,"
        f" {report.passes_after} passes each\n",
        soft_wrap=True,
    )
    table = _table("upstream calls after it", "fewer", "without store", "with store")
    for path, calls in report.calls_after.by_path.items():
        table.add_row("log-ins" if path == "auth" else path, *_row(calls))
    table.add_section()
    table.add_row("all", *_row(report.calls_after), style="bold")
    console.print(table)
    for name, figure in (
        ("calls before it", f"{report.calls_before:,}"),
        ("entries brought back", f"{report.entries_restored:,}"),
        ("size of the store", f"{report.store_bytes / 1e6:.1f} MB"),
        ("answers checked", f"{report.answers_checked:,}"),
        ("wrong answers", f"{report.wrong_answers:,}"),
        ("foreign answers seen", f"{report.foreign_answers:,}"),
    ):
        console.print(f" {name:24}{figure:>12}")


def _span(seconds: float) -> str:
    for name, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:g} {name}"
    return f"{seconds:g} s"


def _calls(report: Report) -> Table:
    table = _table("upstream calls", "fewer")
    for path, calls in report.upstream_calls.by_path.items():
        table.add_row("log-ins" if path == "auth" else path, *_row(calls))
    table.add_section()
    table.add_row("all", *_row(report.upstream_calls), style="bold")
    return table


def _times(report: Report) -> Table:
    table = _table("response time", "less")
    without, with_ = report.response_ms.without, report.response_ms.with_
    for name, before, after in (
        ("p50", without.p50, with_.p50),
        ("p95", without.p95, with_.p95),
        ("p99", without.p99, with_.p99),
    ):
        table.add_row(name, _ms(before), _ms(after), _less(before, after))
    return table


def _table(what: str, difference: str, before: str = "without cache", after: str = "with cache") -> Table:
    table = Table(what, title_justify="left")
    table.columns[0].min_width = 22
    for heading in (before, after, difference):
        table.add_column(heading, justify="right", min_width=13)
    return table


def _row(calls: PathCalls) -> tuple[str, str, str]:
    return f"{calls.without:,}", f"{calls.with_:,}", _percent(calls.saved_percent)


def _less(before: float, after: float) -> str:
    return _percent(100 * (1 - after / before)) if before > 0 else ""


def _percent(percent: float) -> str:
    # Rounded down: 100 % would say that nothing is left.
    return f"{math.floor(round(percent * 10, 6)) / 10:.1f} %"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:,.1f} ms" if milliseconds >= 1 else f"{milliseconds:.3f} ms"
