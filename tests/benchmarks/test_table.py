"""Medians, spreads and ratios, and the table that shows them."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks.__main__ import PAGE
from benchmarks.cases.case import Case, Group
from benchmarks.machine import Setting
from benchmarks.results import BEGIN, END, Results, read, write_block
from benchmarks.runner import Failure
from benchmarks.samples import (
    Metric,
    Sample,
    Summary,
    compute_ratio,
    is_ahead,
    summarize,
    summarize_side,
)
from benchmarks.table import Figures, format_cell, tabulate, write_markdown

RATE = Metric("rate", "requests, per CPU s")
TIME = Metric("s", "push, s", 2, higher_is_better=False)
HIDDEN = Metric("p99", "p99", in_table=False)


def make_samples(case: str, side: str, key: str, *values: float) -> list[Sample]:
    return [Sample(case, side, number, {key: value}) for number, value in enumerate(values)]


def make_group(name: str, *cases: Case[None], variants: bool = False) -> Group[None]:
    return Group(name, cases, lambda: nullcontext([]), lambda _: None, is_of_variants=variants)


def make_case(name: str, *metrics: Metric) -> Case[None]:
    return Case(name, metrics, lambda _: {})


SAMPLES = [
    *make_samples("get", "Moorage", "rate", 3000, 1000, 1500),
    *make_samples("get", "zot", "rate", 1000, 1000),
    *make_samples("push", "Moorage", "s", 0.5),
    *make_samples("workers", "2 workers", "rate", 10),
]
GROUPS = [
    make_group("main", make_case("get", RATE, HIDDEN), make_case("push", TIME)),
    make_group("workers", make_case("workers", RATE), variants=True),
]


def test_the_median_is_not_moved_by_one_sample() -> None:
    assert summarize([3000.0, 1000.0, 1500.0]) == Summary(1500.0, 1000.0, 3000.0, 3)
    assert summarize([1.0, 2.0]).median == 1.5


def test_the_ratio_is_moorage_divided_by_the_peer() -> None:
    ours, theirs = summarize([3.0]), summarize([2.0])
    assert compute_ratio(ours, theirs) == 1.5
    assert compute_ratio(ours, summarize([0.0])) is None


@pytest.mark.parametrize(
    ("metric", "ratio", "ahead"),
    [(RATE, 1.5, True), (RATE, 0.9, False), (TIME, 0.9, True), (TIME, 1.5, False)],
)
def test_a_metric_knows_which_ratio_is_better(metric: Metric, ratio: float, ahead: bool) -> None:
    assert is_ahead(metric, ratio) is ahead
    assert is_ahead(metric, 1.0)


def test_a_summary_only_has_the_samples_of_its_case_and_side() -> None:
    found = summarize_side(SAMPLES, "get", "zot", RATE)
    assert found == Summary(1000.0, 1000.0, 1000.0, 2)
    assert summarize_side(SAMPLES, "get", "olareg", RATE) is None


def test_registries_and_variants_have_separate_tables() -> None:
    shared, variants = tabulate(GROUPS, SAMPLES)
    assert shared.columns == ("Moorage", "zot")
    assert [row.metric for row in shared.rows] == [RATE, TIME]
    assert variants.columns == ("2 workers",)


def test_a_cell_has_the_median_the_ratio_and_the_spread() -> None:
    get, push = tabulate(GROUPS, SAMPLES)[0].rows
    assert format_cell(get, 0) == "1,500 ±100%"
    assert format_cell(get, 1) == "1,000 1.50x ±0%"
    assert format_cell(push, 0) == "0.50"
    assert format_cell(push, 1) == "-"


def make_results() -> Results:
    setting = Setting("today", "abc", "CPU", 2, 24.0, "6.1", "3.11", 0.1, {"Moorage": "0.1.0"})
    failures = [Failure("referrers", "zot", "GET returns 404", is_expected=True)]
    return Results(setting, {"rounds": 3}, SAMPLES, failures, ["tags-last"])


def test_results_survive_the_file(tmp_path: Path) -> None:
    results = make_results()
    results.write(tmp_path / "results.json")
    assert read(tmp_path / "results.json") == results


def test_the_block_of_a_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    tables = tabulate(GROUPS, SAMPLES)
    for _ in range(2):
        write_block(page, make_results(), tables)
        text = page.read_text()
        assert text.startswith(f"before\n\n{BEGIN}\n")
        assert text.endswith(f"{END}\n\nafter\n")
        assert "old" not in text
        assert text.count("| requests, per CPU s | 1,500 ±100% | 1,000 1.50x") == 1
        assert "- referrers, zot: not supported: GET returns 404" in text
        assert "- tags-last: skipped because of the time limit" in text


def test_the_documentation_has_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_bytes(PAGE.read_bytes())
    write_block(page, make_results(), [])
    assert "at commit abc" in page.read_text()


def test_a_page_without_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n")
    with pytest.raises(AssertionError, match="no marker"):
        write_block(page, make_results(), [])


def test_each_row_of_a_markdown_table_has_all_columns() -> None:
    figures: Figures = tabulate(GROUPS, SAMPLES)[0]
    rows = [line for line in write_markdown(figures).splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {4}
