"""The checker finds what it is to find."""

from __future__ import annotations

import pytest

from telemetry.promlint import complaints

GOOD = """\
# HELP a_total A.
# TYPE a_total counter
a_total{outcome="x"} 1
a_total{outcome="y"} 0
# HELP wait_seconds B.
# TYPE wait_seconds histogram
wait_seconds_bucket{le="0.5"} 1
wait_seconds_bucket{le="+Inf"} 3
wait_seconds_count 3
wait_seconds_sum 4.5
# HELP c C.
# TYPE c gauge
c -1
"""


def test_what_is_good_is_good() -> None:
    assert [] == complaints(GOOD)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("a_total", "a"),
        ("# HELP c C.\n", ""),
        ("# TYPE c gauge\n", ""),
        ("# HELP c C.\n# TYPE c gauge\nc -1", "# HELP c_total C.\n# TYPE c_total gauge\nc_total -1"),
        ("# HELP c C.\n# TYPE c gauge\nc -1", "# HELP c_count C.\n# TYPE c_count gauge\nc_count -1"),
        ("# HELP c C.\n# TYPE c gauge\nc -1", "# HELP c_gauge C.\n# TYPE c_gauge gauge\nc_gauge -1"),
        ("# HELP c C.\n# TYPE c gauge\nc -1", "# HELP cC C.\n# TYPE cC gauge\ncC -1"),
        ("# HELP c C.\n# TYPE c gauge\nc -1", "# HELP c_ms C.\n# TYPE c_ms gauge\nc_ms -1"),
        ("wait_seconds", "wait_milliseconds"),
        ('outcome="y"', 'outcome="x"'),
        ('outcome="y"', 'outCome="y"'),
        ('le="0.5"} 1', 'le="0.5"} 4'),
        ('le="+Inf"} 3', 'le="+Inf"} 2'),
        ('le="+Inf"', 'le="1"'),
        ("wait_seconds_sum 4.5\n", ""),
        ("# TYPE c gauge", "# TYPE c gauge\n# TYPE c gauge"),
        ("} 1\na_total", "} -1\na_total"),
    ],
)
def test_what_is_bad_is_bad(good: str, bad: str) -> None:
    assert good in GOOD
    assert [] != complaints(GOOD.replace(good, bad))
