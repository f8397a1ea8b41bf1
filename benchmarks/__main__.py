"""`make bench`: measure, print the table, and write the results."""

import resource
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import options as command_line
from benchmarks.cases.case import Group, Sizes
from benchmarks.clients.wrk import LoadError, check_installed
from benchmarks.groups import list_groups
from benchmarks.machine import describe
from benchmarks.options import Options
from benchmarks.registries.moorage import ROOT
from benchmarks.registries.peers import PeerError
from benchmarks.results import Results, describe_setting, list_failures, read, write_block
from benchmarks.runner import Run
from benchmarks.table import render, tabulate

PAGE = ROOT / "docs" / "operate" / "performance.md"
QUIET_LOAD = 0.5
"""Load average above which the machine counts as busy."""
console = Console(width=max(Console().width, 160))
progress = Console(stderr=True, highlight=False)


def raise_descriptor_limit() -> None:
    """Allow as many open files as the system permits, for thousands of connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def measure(options: Options, groups: list[Group[Any]]) -> Results:
    """Run the cases in a temporary folder, which is removed with all data at the end."""
    setting = describe(options.registries)
    if setting.load > QUIET_LOAD:
        progress.print(f"The machine is busy (load {setting.load:.2f}): expect a large spread.")
    begun = time.monotonic()

    def report(line: str) -> None:
        progress.print(f"{time.monotonic() - begun:6.0f} s  {line}", markup=False, soft_wrap=True)

    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as name:
        run = Run(options.rounds, Path(name), report, begun + options.minutes * 60)
        run.run(groups)
        for group in groups:
            if group.parent is not None:
                shutil.rmtree(group.parent / run.folder.name, ignore_errors=True)
    chosen = {"rounds": options.rounds, **asdict(options.sizes)}
    return Results(setting, chosen, run.samples, run.failures, run.skipped)


def show(results: Results, groups: list[Group[Any]], *, writes_docs: bool) -> None:
    tables = tabulate(groups, results.samples)
    for each in tables:
        console.print(render(each))
    console.print(describe_setting(results), markup=False)
    console.print(
        "N.NNx: Moorage divided by that column. N%: the greatest deviation from the median."
    )
    for line in list_failures(results):
        console.print(line, markup=False)
    if writes_docs:
        write_block(PAGE, results, tables)


def main(arguments: list[str]) -> int:
    """Return 1 if a case has failed that the registry should support."""
    options = command_line.parse(arguments)
    if options.render is not None:
        results = read(options.render)
        sizes = {k: v for k, v in results.options.items() if k != "rounds"}
        show(results, list_groups([], Sizes(**sizes)), writes_docs=options.writes_docs)
        return 0
    try:
        groups = command_line.choose(list_groups(options.registries, options.sizes), options.cases)
        check_installed()
    except (PeerError, LoadError) as error:
        progress.print(str(error), markup=False)
        return 2
    if options.is_list:
        for group in groups:
            console.print(f"{group.name}: {', '.join(case.name for case in group.cases)}")
        return 0
    if any(group.name == "syncs" for group in groups) and shutil.which("strace") is None:
        progress.print("strace is not installed: syncs are not counted.")
        groups = [group for group in groups if group.name != "syncs"]
    raise_descriptor_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end as well
    results = measure(options, groups)
    if options.json is not None:
        results.write(options.json)
    show(results, groups, writes_docs=options.writes_docs)
    return 1 if any(not each.is_expected for each in results.failures) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
