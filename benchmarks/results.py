"""The JSON file of a run, and the generated block of docs/operate/performance.md."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import Setting
from benchmarks.runner import Failure
from benchmarks.samples import Sample
from benchmarks.table import Figures, write_markdown

BEGIN = "<!-- BEGIN make bench -->"
END = "<!-- END make bench -->"


@dataclass(frozen=True, slots=True)
class Results:
    """The samples of a run, and how they were measured."""

    setting: Setting
    options: dict[str, Any]
    samples: list[Sample]
    failures: list[Failure]
    skipped: list[str]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def read(path: Path) -> Results:
    document = json.loads(path.read_text())
    return Results(
        Setting(**document["setting"]),
        document["options"],
        [Sample(**each) for each in document["samples"]],
        [Failure(**each) for each in document["failures"]],
        document["skipped"],
    )


def describe_setting(results: Results) -> str:
    """Return a paragraph about the machine and the versions."""
    setting = results.setting
    versions = ", ".join(f"{name} {version}" for name, version in setting.versions.items())
    return (
        f"Measured on {setting.date} at commit {setting.commit}, with {results.options['rounds']} "
        f"rounds, on {setting.cores} cores of {setting.cpu} with {setting.memory_gib:.0f} GiB, "
        f"Linux {setting.kernel}, Python {setting.python}; load before the run {setting.load:.2f}. "
        f"Versions: {versions}."
    )


def list_failures(results: Results) -> list[str]:
    """Return a line for each missing figure."""
    lines = [
        f"{each.case}, {each.side}: {'not supported' if each.is_expected else 'failed'}: "
        f"{each.reason}"
        for each in results.failures
    ]
    return lines + [f"{name}: skipped because of the time limit" for name in results.skipped]


def write_block(page: Path, results: Results, tables: list[Figures]) -> None:
    """Replace the generated block of a page."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{page} has no marker of the beginning"
    assert end, f"{page} has no marker of the end"
    parts = [describe_setting(results), "", *map(write_markdown, tables)]
    if missing := list_failures(results):
        parts += ["Missing figures:", "", *(f"- {line}" for line in missing), ""]
    page.write_text(f"{before}{begin}\n\n" + "\n".join(parts) + f"\n{end}{after}")
