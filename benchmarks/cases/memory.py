"""Memory of a server that has just started, and after the other cases."""

from dataclasses import dataclass

from benchmarks.cases.case import Case, Values
from benchmarks.registries.server import Server
from benchmarks.samples import Metric


@dataclass(frozen=True, slots=True)
class Memory:
    """A server, and its resident memory before the first request of a client."""

    server: Server
    idle_mib: float


def measure(memory: Memory) -> Values:
    server = memory.server
    return {"idle_mib": memory.idle_mib, "after_mib": server.read_memory_mib()}


CASE = Case(
    "memory",
    (
        Metric("idle_mib", "resident idle, MiB", 0, higher_is_better=False),
        Metric("after_mib", "resident after the run, MiB", 0, higher_is_better=False),
    ),
    measure,
    1,
)
