"""``coatcheck demo``: what the cache saves, measured here and now."""

import sys
from collections.abc import Callable
from typing import Annotated, Final, TypeVar

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from coatcheck.cli.mistake import Mistake
from coatcheck.cli.options import LatencyScale, Seed, Users

PASSES: Final = 10
T = TypeVar("T")


async def demo(
    *,
    users: Users = 20,
    passes: Annotated[
        int | None,
        Parameter(
            help=f"How often each user does the whole chat session; {PASSES} unless given.",
            validator=Number(gte=1, lte=10_000),
        ),
    ] = None,
    seed: Seed = 1,
    latency_scale: LatencyScale = 0.1,
    outage: Annotated[
        bool,
        Parameter(
            help="Instead, go through an outage, a slow spell, a storm of 429 and a recovery.",
            negative="",
            show_default=False,
        ),
    ] = False,
    restart: Annotated[
        bool,
        Parameter(
            help="Instead, restart in the middle, without the store and with it.",
            negative="",
            show_default=False,
        ),
    ] = False,
    json: Annotated[
        bool, Parameter(help="Print one JSON object and nothing else.", negative="", show_default=False)
    ] = False,
) -> int:
    """Replay the chat session of many users against a simulated upstream, without the cache and with it.

    Or go through an outage: users ask for what is kept of theirs while the upstream fails, is slow and recovers, and
    it is told what they saw: answers fresh and stale, failures, upstream calls.

    Or restart when half of the passes are done, and count the calls after that, without a store and with one.

    Every answer is checked against what the simulator says of that user. The exit code is 1 if one was wrong.
    """
    # They take longer to import than all else that a command line does.
    from coatcheck.cli.comparison import compare  # noqa: PLC0415
    from coatcheck.cli.outage import go_through  # noqa: PLC0415
    from coatcheck.cli.report import show, show_outage, show_restart  # noqa: PLC0415
    from coatcheck.cli.restart import begin_anew  # noqa: PLC0415
    from coatcheck.simulator import Settings  # noqa: PLC0415

    simulated = Settings(seed=seed, users=users, latency_scale=latency_scale)
    if outage and restart:
        raise Mistake("--outage and --restart are two demos: give one of them")
    if restart and passes == 1:
        raise Mistake("--restart comes when half of the passes are done: --passes must be 2 or more")
    if outage:
        if passes is not None:
            raise Mistake("--passes does not go with --outage, in which everybody asks until it is over")
        seen = await go_through(simulated)
        _tell(seen, show_outage, json=json)
        return 1 if seen.foreign_answers or seen.wrong_answers else 0
    if restart:
        survived = await begin_anew(simulated, passes=PASSES if passes is None else passes)
        _tell(survived, show_restart, json=json)
        return 1 if survived.foreign_answers or survived.wrong_answers else 0
    report = await compare(simulated, passes=PASSES if passes is None else passes)
    _tell(report, show, json=json)
    return 1 if report.foreign_answers or report.wrong_answers else 0


def _tell(report: T, show: Callable[[T], None], *, json: bool) -> None:
    if json:
        sys.stdout.write(f"{msgspec.json.encode(report).decode()}\n")
    else:
        show(report)
