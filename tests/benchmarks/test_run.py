"""A short run of the benchmark, with Moorage as its own peer."""

import json
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.cases.case import Case, Group
from benchmarks.clients.setup import UnsupportedError
from benchmarks.clients.wrk import LoadError
from benchmarks.registries.moorage import ROOT
from benchmarks.registries.registry import Place, Registry
from benchmarks.registries.server import Server, StartError
from benchmarks.runner import Run
from benchmarks.samples import Metric
from tests.support.missing import missing

PEER = f"{sys.executable} -m registry.cli.main serve --data {{data}} --listen 127.0.0.1:{{port}}"
CASES = "v2,manifest-head-tag,image-8,push-large,pull-large,memory,tags-last"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_measures_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("wrk") is None:
        missing("wrk")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    written = tmp_path / "results.json"
    options = ["--tiny", "--rounds", "1", "--no-debian", "--peer", f"other={PEER}"]
    assert main([*options, "--cases", CASES, "--json", str(written)]) == 0
    results = json.loads(written.read_text())
    measured = {(each["case"], each["side"]) for each in results["samples"]}
    # The format of the data of a peer with this name is unknown, so it is not filled.
    assert measured == {
        (case, side) for case in CASES.split(",") for side in ("Moorage", "other")
    } - {("tags-last", "other")}
    assert [each["reason"] for each in results["failures"]] == [
        "the format of the data is unknown, so it cannot be filled"
    ]
    assert all(value > 0 for each in results["samples"] for value in each["values"].values())


def make_registry(name: str) -> Registry:
    return Registry(name, lambda _: [])


def run_cases(tmp_path: Path, rounds: int, *cases: Case[str], minutes: float = 1e9) -> Run:
    """Run cases on three sides that need no server."""
    sides = [make_registry(name) for name in "abc"]
    group = Group("group", cases, lambda: nullcontext(sides), lambda server: server.name)
    run = Run(rounds, tmp_path, lambda _: None, minutes)
    run.run([group])
    return run


METRIC = Metric("s", "s")


def test_sides_take_turns_in_alternating_order(tmp_path: Path) -> None:
    case: Case[str] = Case("case", (METRIC,), lambda _: {"s": 1.0})
    run = run_cases(tmp_path, 2, case)
    assert [each.side for each in run.samples] == [*"abc", *"cba"]


def test_a_side_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    def measure(side: str) -> dict[str, float]:
        if side == "a":
            raise UnsupportedError("no such function")
        if side == "b":
            raise LoadError("refused")
        return {"s": 1.0}

    run = run_cases(tmp_path, 2, Case("case", (METRIC,), measure))
    assert [each.side for each in run.samples] == ["c", "c"]
    assert [(each.side, each.is_expected) for each in run.failures] == [("a", True), ("b", False)]


def test_a_case_that_takes_long_has_fewer_rounds(tmp_path: Path) -> None:
    case: Case[str] = Case("case", (METRIC,), lambda _: {"s": 1.0}, 1)
    assert len(run_cases(tmp_path, 3, case).samples) == 3


def test_no_case_starts_after_the_time_limit(tmp_path: Path) -> None:
    case: Case[str] = Case("case", (METRIC,), lambda _: {"s": 1.0})
    run = run_cases(tmp_path, 3, case, minutes=0)
    assert run.samples == []
    assert run.skipped == ["group"]


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    def command(_: Place) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no such option')"]

    server = Server(Registry("broken", command), tmp_path)
    with pytest.raises(StartError, match="broken does not start: no such option"):
        server.start()
    assert not server.is_running
