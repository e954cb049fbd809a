"""What `promtool check metrics` complains of, checked without it; stricter where a histogram does not add up."""

from __future__ import annotations

import math
import re
from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
TYPES = {"counter", "gauge", "histogram", "summary", "untyped"}
RESERVED = ("_count", "_sum", "_bucket")
# Names of units that are no base units, and short forms of units.
WRONG_UNITS = {
    *("milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "weeks"),
    *("kilobytes", "megabytes", "gigabytes", "kibibytes", "mebibytes", "gibibytes", "bits", "percent"),
    *("s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"),
}


def complaints(text: str) -> list[str]:
    """Return what is wrong with an exposition in the text format."""
    found: list[str] = []
    typed = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    found += [f"{name}: typed more than once" for name in {*typed} if typed.count(name) > 1]
    series: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for family in text_string_to_metric_families(text):
        # The parser takes the suffix of a counter away.
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found += [f"{name}: {complaint}" for complaint in _name(name, family.type)]
        if name not in typed:
            found.append(f"{name}: no type, or a counter whose name does not end in _total")
        if not family.documentation:
            found.append(f"{name}: no help")
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            if key in series:
                found.append(f"{key}: more than once")
            series.add(key)
            found += [f"{name}: label {label}" for label in sample.labels if NAME.fullmatch(label) is None]
            if family.type == "counter" and not sample.value >= 0:
                found.append(f"{key}: a counter below zero")
        if family.type == "histogram":
            found += [f"{name}: {complaint}" for complaint in _histogram(name, family.samples)]
    return found


def _name(name: str, kind: str) -> list[str]:
    found = []
    if NAME.fullmatch(name) is None:
        found.append("not in snake case")
    if kind not in TYPES - {"untyped"}:
        found.append(f"of type {kind}")
    if kind != "counter" and name.endswith("_total"):
        found.append("no counter, and ends in _total")
    if kind not in {"histogram", "summary"} and name.endswith(RESERVED):
        found.append("ends as the parts of a histogram do")
    words = set(name.split("_"))
    found += [f"has its type in its name: {word}" for word in words & TYPES]
    found += [f"has {word} in its name, which is no base unit" for word in words & WRONG_UNITS]
    return found


def _histogram(name: str, samples: list) -> list[str]:  # type: ignore[type-arg]
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = defaultdict(list)
    counts: dict[tuple[tuple[str, str], ...], float] = {}
    sums = set()
    for sample in samples:
        labels = tuple(sorted((key, value) for key, value in sample.labels.items() if key != "le"))
        if sample.name == f"{name}_bucket":
            buckets[labels].append((float(sample.labels["le"]), sample.value))
        elif sample.name == f"{name}_count":
            counts[labels] = sample.value
        else:
            sums.add(labels)
    found = []
    for labels, each in buckets.items():
        if each != sorted(each) or [bound for bound, _ in each] != sorted({bound for bound, _ in each}):
            found.append(f"{labels}: buckets do not grow")
        if [number for _, number in each] != sorted(number for _, number in each):
            found.append(f"{labels}: buckets are not cumulative")
        if each[-1] != (math.inf, counts.get(labels)):
            found.append(f"{labels}: the last bucket is not the count")
    if not buckets.keys() == counts.keys() == sums:
        found.append("buckets, counts and sums do not fit")
    return found
