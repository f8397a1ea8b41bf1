"""The machine, the versions and the commit of a run."""

import datetime as dt
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.registries.moorage import ROOT
from benchmarks.registries.registry import Registry


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and with what a run was made. `load` is the load average before the run."""

    date: str
    commit: str
    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    load: float
    versions: dict[str, str]


VERSION = re.compile(r"(?<![\d:.])v?(\d+\.\d+\.\d+[\w.+-]*)")


def _read_first(path: str, pattern: str) -> str:
    found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    return found[1].strip() if found else "unknown"


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Return what a command prints, or an empty string if it cannot run."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout + done.stderr if done.returncode == 0 else ""


def find_version(registry: Registry) -> str:
    """Return the version that the registry prints, or `unknown`."""
    if not registry.version:
        return "unknown"
    text = _run(list(registry.version), registry.environment)
    # zot prints its version as the commit it was built from, next to other versions.
    found = re.search(r'"commit":"v?([^"]+)"', text) or VERSION.search(text)
    return found[1] if found else "unknown"


def describe_commit() -> str:
    """Return the short hash of the checkout, with `+` if files have changed."""
    commit = _run(["git", "rev-parse", "--short", "HEAD"]).strip() or "unknown"
    return commit + ("+" if _run(["git", "status", "--porcelain"]).strip() else "")


def describe(registries: list[Registry]) -> Setting:
    return Setting(
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=describe_commit(),
        cpu=_read_first("/proc/cpuinfo", r"^model name\s*: (.*)$"),
        cores=os.cpu_count() or 0,
        memory_gib=round(int(_read_first("/proc/meminfo", r"^MemTotal:\s+(\d+)")) / (1 << 20), 1),
        kernel=platform.release(),
        python=platform.python_version(),
        load=os.getloadavg()[0],
        versions={each.name: find_version(each) for each in registries},
    )
