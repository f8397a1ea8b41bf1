"""Samples of a benchmark, and what is computed from them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A measured quantity. `title` is its row in the table, and includes the unit.

    Metrics that are not `in_table` are only in the JSON file.
    """

    key: str
    title: str
    digits: int = 0
    higher_is_better: bool = True
    in_table: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of one run of a case, by the key of their metric."""

    case: str
    side: str
    round: int
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Summary:
    """The median and the extremes of the samples of one metric."""

    median: float
    least: float
    most: float
    count: int


def summarize(values: Sequence[float]) -> Summary:
    return Summary(statistics.median(values), min(values), max(values), len(values))


def compute_ratio(ours: Summary, theirs: Summary) -> float | None:
    """Return the median of Moorage divided by the median of the other side."""
    return ours.median / theirs.median if theirs.median else None


def is_ahead(metric: Metric, ratio: float) -> bool:
    """Return whether a ratio means that Moorage is at least as good as the other side."""
    return ratio >= 1 if metric.higher_is_better else ratio <= 1


def summarize_side(
    samples: Sequence[Sample], case: str, side: str, metric: Metric
) -> Summary | None:
    """Return the summary of a metric, or None if no run of the case has a value of it."""
    values = [
        sample.values[metric.key]
        for sample in samples
        if sample.case == case and sample.side == side and metric.key in sample.values
    ]
    return summarize(values) if values else None
