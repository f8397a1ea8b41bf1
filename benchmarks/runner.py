"""Runs cases in turns, and collects samples and failures."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases.case import Case, Group
from benchmarks.clients.exchange import ExchangeError
from benchmarks.clients.setup import UnsupportedError
from benchmarks.clients.wrk import LoadError
from benchmarks.registries.server import Server, StartError
from benchmarks.samples import Sample

Report = Callable[[str], None]
FAILURES = (ExchangeError, LoadError, StartError, OSError, AssertionError)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a side has no figures of a case. `is_expected` if the registry lacks the function."""

    case: str
    side: str
    reason: str
    is_expected: bool


@dataclass(slots=True)
class Run:
    """The samples and failures so far."""

    rounds: int
    folder: Path
    report: Report
    deadline: float = float("inf")
    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Cases and rounds that the time limit has prevented."""

    def run(self, groups: list[Group[Any]]) -> None:
        for group in groups:
            if self._is_late(group.name):
                continue
            try:
                with group.open() as registries:
                    folder = self._find_folder(group)
                    servers = [Server(each, folder / group.name) for each in registries]
                    if group.in_turns:
                        self._run_in_turns(group, servers)
                    else:
                        for server in servers:
                            self._run_in_turns(group, [server])
            except LoadError as error:
                self._fail(group.name, "", str(error))

    def _find_folder(self, group: Group[Any]) -> Path:
        if group.parent is None or not group.parent.is_dir():
            return self.folder
        return group.parent / self.folder.name

    def _is_late(self, name: str) -> bool:
        if time.monotonic() < self.deadline:
            return False
        self.report(f"{name}: skipped, because the time limit is over")
        self.skipped.append(name)
        return True

    def _run_in_turns(self, group: Group[Any], servers: list[Server]) -> None:
        """Prepare all servers, then measure each case on one server after the other."""
        with contextlib.ExitStack() as stack:
            prepared: dict[str, Any] = {}
            for server in servers:
                stack.callback(server.remove)
                begun = time.monotonic()
                with self._catching(group.cases, server.name):
                    prepared[server.name] = group.prepare(server)
                    self.report(f"{group.name}: {server.name} prepared in {_since(begun)}")
            for case in group.cases:
                self._run_case(case, dict(prepared))

    def _run_case(self, case: Case[Any], prepared: dict[str, Any]) -> None:
        for number in range(min(self.rounds, case.most_rounds or self.rounds)):
            if self._is_late(f"{case.name}, round {number + 1}"):
                return
            names = list(prepared)
            for name in names if number % 2 == 0 else reversed(names):
                begun = time.monotonic()
                measured = False
                with self._catching((case,), name):
                    values = case.measure(prepared[name])
                    self.samples.append(Sample(case.name, name, number, values))
                    measured = True
                    shown = ", ".join(f"{key} {value:.5g}" for key, value in values.items())
                    self.report(f"{case.name}: {name} in {_since(begun)}: {shown}")
                if not measured:
                    del prepared[name]

    @contextlib.contextmanager
    def _catching(self, cases: tuple[Case[Any], ...], side: str) -> Iterator[None]:
        """Record a failure of one side, so that the others are still measured."""
        try:
            yield
        except UnsupportedError as error:
            for case in cases:
                self._fail(case.name, side, str(error), is_expected=True)
        except FAILURES as error:
            for case in cases:
                self._fail(case.name, side, f"{type(error).__name__}: {error}")

    def _fail(self, case: str, side: str, reason: str, *, is_expected: bool = False) -> None:
        self.failures.append(Failure(case, side, reason, is_expected))
        self.report(f"{case}: {side}: {'not supported' if is_expected else 'FAILED'}: {reason}")


def _since(begun: float) -> str:
    return f"{time.monotonic() - begun:.1f} s"
