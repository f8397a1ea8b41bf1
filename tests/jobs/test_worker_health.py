"""Health of a worker, as container health checks query it."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import clock
from registry.cli.main import main
from registry.cli.server import heartbeat
from tests.support.servers.server import add_admin
from tests.support.servers.workers import PATIENCE, worker


def check(data: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(["worker", "--check", "--data", str(data)])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def test_a_worker_is_healthy_while_it_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    add_admin(data, "root", "the password of root")
    status, said = check(data, capsys)
    assert status == 1
    assert "no worker runs on" in said
    with worker(data):
        deadline = time.monotonic() + PATIENCE
        while check(data, capsys) != (0, "The worker is healthy.\n"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert check(data, capsys)[0] == 1


def change(name: str, value: object) -> Callable[[Path], None]:
    def work(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return work


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda _: None, ""),
        (change("at", clock.boottime_us() - 31_000_000), "has written no heartbeat for 30 s"),
        (change("boot", "another"), "has written no heartbeat"),
        (change("problems", {"database": "no answer", "storage": "full"}), "database: no answer; "),
        (lambda path: path.write_text("{"), "cannot be read"),
        (change("at", None), "cannot be read"),
        (lambda path: path.unlink(), "no worker runs"),
    ],
)
def test_a_heartbeat_says_what_is_wrong(
    tmp_path: Path, harm: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / heartbeat.NAME
    state = {"boot": clock.boot_id(), "at": clock.boottime_us(), "problems": {}}
    path.write_text(json.dumps(state))
    harm(path)
    problem = heartbeat.find_problem(tmp_path)
    assert said in problem
    assert bool(problem) == bool(said)
