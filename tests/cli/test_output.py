"""Tables and progress on a terminal, and plain rows in a pipe."""

import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import Mapping

import pytest

from registry.cli.kit import output
from tests.support.servers.server import ROOT

HEADER = ("NAME", "WHAT")
ROWS = [("one", "x" * 100), ("[red]two[/red]", "a b")]
TABLE = f"from registry.cli.kit import output; output.write_table({HEADER!r}, {ROWS!r})"
BAR = """
import time
from registry.cli.kit import output, progress

progress._DELAY = 0
with progress.show(lambda: progress.Progress(1, 4, 'copying {blobs} [bold]')):
    with progress.wait('inner'):
        time.sleep(0.5)
output.write('done')
"""


def on_terminal(program: str, settings: Mapping[str, str], width: int = 40) -> str:
    """Run a program on a terminal, and return all that it shows."""
    ours, theirs = pty.openpty()
    kept = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}}
    env = {**kept, "TERM": "xterm", "COLUMNS": str(width), "PYTHONPATH": str(ROOT), **settings}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=env, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal closes when the program ends
            while piece := os.read(ours, 4096):
                shown += piece
        assert process.wait(30) == 0, shown
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_a_table_in_a_pipe_is_plain_and_complete(capsys: pytest.CaptureFixture[str]) -> None:
    output.write_table(HEADER, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["\t".join(HEADER), *("\t".join(row) for row in ROWS)]


def test_a_table_fits_the_terminal() -> None:
    shown = on_terminal(TABLE, {"NO_COLOR": "1"})
    lines = shown.splitlines()
    assert all(len(line.rstrip()) <= 40 for line in lines)
    assert lines[0].split() == list(HEADER)
    assert shown.count("x") == 100
    assert "[red]two[/red]" in shown
    assert "\x1b" not in shown


def test_only_a_terminal_gets_colour(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\x1b[" in on_terminal(TABLE, {})
    assert "\x1b" not in on_terminal(TABLE, {"TERM": "dumb"})
    output.write_table(HEADER, ROWS)
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("settings", [{}, {"NO_COLOR": "1"}], ids=["colour", "no colour"])
def test_progress_is_drawn_on_a_terminal(settings: dict[str, str]) -> None:
    shown = on_terminal(BAR, settings, width=100)
    assert "25%" in shown
    assert "copying {blobs} [bold]" in shown
    assert "inner" not in shown
    assert shown.splitlines()[-1].endswith("done")


def test_progress_is_not_drawn_in_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BAR],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")
