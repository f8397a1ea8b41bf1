"""The table of a run, for the terminal and for documentation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from benchmarks.cases.case import Group
from benchmarks.samples import Metric, Sample, Summary, compute_ratio, is_ahead, summarize_side

EMPTY = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """The summaries of one metric, one for each column; None where there is no figure."""

    case: str
    metric: Metric
    summaries: tuple[Summary | None, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """A table: `columns` are registries or variants of Moorage. The first is compared."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def tabulate(groups: Sequence[Group[Any]], samples: Sequence[Sample]) -> list[Figures]:
    """Return one table of the registries, and one for each group of variants of Moorage."""
    shared = [group for group in groups if not group.is_of_variants]
    tables = [_tabulate("Moorage and other registries", shared, samples)]
    tables += [
        _tabulate(f"Variants of Moorage: {group.name}", [group], samples)
        for group in groups
        if group.is_of_variants
    ]
    return [each for each in tables if each.columns]


def _tabulate(title: str, groups: Sequence[Group[Any]], samples: Sequence[Sample]) -> Figures:
    cases = [case for group in groups for case in group.cases]
    names = {case.name for case in cases}
    columns = tuple(dict.fromkeys(s.side for s in samples if s.case in names))
    rows = []
    for case in cases:
        for metric in case.metrics:
            found = tuple(summarize_side(samples, case.name, side, metric) for side in columns)
            if metric.in_table and any(found):
                rows.append(Row(case.name, metric, found))
    return Figures(title, columns, tuple(rows))


def format_number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def format_spread(summary: Summary) -> str:
    """Return the greatest deviation from the median in percent; nothing for a single sample."""
    if summary.count == 1 or not summary.median:
        return ""
    deviation = max(summary.most - summary.median, summary.median - summary.least)
    return f"±{deviation / summary.median:.0%}"


def format_ratio(row: Row, number: int) -> str:
    """Return the ratio of the first column to another one; nothing where there is none."""
    ours, theirs = row.summaries[0], row.summaries[number]
    if number == 0 or ours is None or theirs is None:
        return ""
    ratio = compute_ratio(ours, theirs)
    return "" if ratio is None else f"{ratio:.2f}x"


def format_cell(row: Row, number: int) -> str:
    summary = row.summaries[number]
    if summary is None:
        return EMPTY
    median = format_number(summary.median, row.metric.digits)
    parts = [median, format_ratio(row, number), format_spread(summary)]
    return " ".join(part for part in parts if part)


def _color(row: Row, number: int) -> str:
    ours, theirs = row.summaries[0], row.summaries[number]
    ratio = compute_ratio(ours, theirs) if ours and theirs and number else None
    if ratio is None:
        return ""
    return "green" if is_ahead(row.metric, ratio) else "red"


def render(figures: Figures) -> Table:
    """Return the table for the terminal. Green means that Moorage is ahead."""
    table = Table(title=figures.title)
    table.add_column("")
    for name in figures.columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in figures.rows:
        cells = []
        for number in range(len(figures.columns)):
            text, color = format_cell(row, number), _color(row, number)
            cells.append(f"[{color}]{text}[/]" if color else text)
        table.add_row(row.metric.title, *cells)
    return table


def write_markdown(figures: Figures) -> str:
    """Return the table as Markdown."""
    lines = [
        f"### {figures.title}",
        "",
        f"| | {' | '.join(figures.columns)} |",
        f"|---|{'---:|' * len(figures.columns)}",
    ]
    for row in figures.rows:
        cells = [format_cell(row, number) for number in range(len(figures.columns))]
        lines.append(f"| {row.metric.title} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])
