"""``coatcheck demo``: what the cache saves, measured here and now."""

import sys
from typing import Annotated

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from coatcheck.cli.options import LatencyScale, Seed, Users


async def demo(
    *,
    users: Users = 20,
    passes: Annotated[
        int,
        Parameter(
            help="How often each user does the whole chat session.", validator=Number(gte=1, lte=10_000)
        ),
    ] = 10,
    seed: Seed = 1,
    latency_scale: LatencyScale = 0.1,
    json: Annotated[
        bool, Parameter(help="Print one JSON object and nothing else.", negative="", show_default=False)
    ] = False,
) -> int:
    """Replay the chat session of many users against a simulated upstream, without the cache and with it.

    Every answer is checked against what the simulator says of that user. The exit code is 1 if one was wrong.
    """
    # They take longer to import than all else that a command line does.
    from coatcheck.cli.comparison import compare  # noqa: PLC0415
    from coatcheck.cli.report import show  # noqa: PLC0415
    from coatcheck.simulator import Settings  # noqa: PLC0415

    report = await compare(Settings(seed=seed, users=users, latency_scale=latency_scale), passes=passes)
    if json:
        sys.stdout.write(f"{msgspec.json.encode(report).decode()}\n")
    else:
        show(report)
    return 1 if report.foreign_answers or report.wrong_answers else 0
