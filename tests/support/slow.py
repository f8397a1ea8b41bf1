"""Slow tests, which `make check` leaves out.

To measure again, on a quiet machine with two cores:

    make test ARGS='-n 2 --junitxml=report.xml'
    .venv/bin/python -m tests.support.slow report.xml
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "tests" / "slow.txt"
LIMIT = 0.5
"""Seconds from which a test is slow: the mean of its cases on SQLite, memory and the disk."""

CHECKED = r"tests/((auth|client|config|metadata|oci|services|storage)/|test_)"
"""Beginning of the path of each test that `make check` considers."""

OTHER_SERVERS = r"\[.*(postgres|s3).*\]"


def read_list() -> set[str]:
    """Return the slow tests, as node IDs without parameters."""
    return set(LIST.read_text().splitlines())


def name_of(node_id: str) -> str:
    """Return the node ID of a test without its parameters."""
    return node_id.partition("[")[0]


def list_slow(report: Path) -> list[str]:
    """Return the slow tests of a JUnit report of the whole suite."""
    times = defaultdict(list)
    for node_id, seconds in _read_times(report):
        if re.match(CHECKED, node_id) and not re.search(OTHER_SERVERS, node_id):
            times[name_of(node_id)].append(seconds)
    return sorted(name for name, measured in times.items() if mean(measured) >= LIMIT)


def _read_times(report: Path) -> Iterator[tuple[str, float]]:
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314
        parts = case.attrib["classname"].split(".")
        length = next(n for n, part in enumerate(parts, 1) if part.startswith("test_"))
        path = "/".join(parts[:length]) + ".py"
        yield "::".join([path, *parts[length:], case.attrib["name"]]), float(case.attrib["time"])


if __name__ == "__main__":
    LIST.write_text("".join(f"{name}\n" for name in list_slow(Path(sys.argv[1]))))
