"""Time from the start of the process to the first response."""

from benchmarks.cases.case import Case, Values
from benchmarks.registries.server import Server
from benchmarks.samples import Metric


def prepare(server: Server) -> Server:
    """Create the data directory with a first start, which is not measured."""
    server.start()
    server.stop()
    return server


def measure(server: Server) -> Values:
    took = server.start()
    cpu = server.read_cpu_s()
    server.stop()
    return {"s": took, "cpu_s": cpu}


CASE = Case(
    "start",
    (
        Metric("s", "cold start to the first 200, s", 2, higher_is_better=False),
        Metric("cpu_s", "cold start, CPU s", 2, higher_is_better=False),
    ),
    measure,
)
