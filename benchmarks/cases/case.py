"""A case, and a group of cases that share their servers."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from benchmarks.registries.registry import Registry
from benchmarks.registries.server import Server
from benchmarks.samples import Metric

T = TypeVar("T")
Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work the cases do. Sizes of blobs are in MiB."""

    seconds: float = 2.0
    large_mib: int = 256
    pull_mib: int = 64
    miss_mib: int = 1024
    crowd: int = 64
    storm: int = 1000
    tags: int = 100_000
    repositories: int = 10_000
    page: int = 1000
    slow: int = 2000
    idle: int = 5000
    traced_images: int = 40


TINY = Sizes(
    seconds=1.0,
    large_mib=8,
    pull_mib=2,
    miss_mib=8,
    crowd=4,
    storm=50,
    tags=3000,
    repositories=300,
    page=1000,
    slow=20,
    idle=50,
    traced_images=3,
)
"""Sizes that show whether all cases work. The figures are worthless."""


@dataclass(frozen=True, slots=True)
class Case(Generic[T]):
    """A measurement, repeated in turns on all servers of the group.

    `most_rounds` limits the rounds of a case that takes long.
    """

    name: str
    metrics: tuple[Metric, ...]
    measure: Callable[[T], Values]
    most_rounds: int | None = None


@dataclass(frozen=True, slots=True)
class Group(Generic[T]):
    """Cases with the same servers and the same content.

    `open` yields the registries, and keeps services that they need. `prepare` starts a server and
    returns what the cases use. Unless `in_turns`, each server runs alone and its data is removed
    before the next one starts. `is_of_variants` says that the columns are variants of Moorage.
    `parent` is the folder for the data, if it exists, instead of that of the run.
    """

    name: str
    cases: tuple[Case[T], ...]
    open: Callable[[], AbstractContextManager[list[Registry]]]
    prepare: Callable[[Server], T]
    in_turns: bool = True
    is_of_variants: bool = False
    parent: Path | None = None


def measure_cpu(server: Server, work: Callable[[], float]) -> tuple[float, float]:
    """Call `work`, which returns the seconds it took; return these and the server's CPU seconds."""
    before = server.read_cpu_s()
    took = work()
    return took, server.read_cpu_s() - before
