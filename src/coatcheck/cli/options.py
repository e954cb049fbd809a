"""Options that several commands have."""

import math
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number


def _finite(_type: object, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError("Must be a number not below 0.")


Users = Annotated[int, Parameter(help="How many accounts there are.", validator=Number(gte=1, lte=100_000))]
Seed = Annotated[int, Parameter(help="From which the simulated world follows.")]
LatencyScale = Annotated[
    float,
    Parameter(help="Factor of the upstream's stated latencies; 0 answers at once.", validator=_finite),
]
