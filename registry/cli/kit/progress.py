"""Progress of long operations, drawn on standard error if that is a terminal."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from registry.cli.kit.output import readable

_DELAY = 1.0
"""Seconds after which an operation is long, so that its progress is drawn."""

_EVERY = 0.2
"""Interval between two updates, in seconds."""

_terminal = threading.Lock()
"""Held while a progress may be drawn, because there is one line for it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of an operation: `done` of `total`, and a text. The total is 0 if it is unknown."""

    done: int
    total: int
    text: str


@contextlib.contextmanager
def show(read_progress: Callable[[], Progress]) -> Iterator[None]:
    """Draw the progress that `read_progress` returns while the block runs.

    `read_progress` is called on another thread. Nothing is drawn if the block is part of another
    one whose progress is drawn.
    """
    if not sys.stderr.isatty() or not _terminal.acquire(blocking=False):
        yield
        return
    ended = threading.Event()
    drawing = threading.Thread(target=_draw, args=(read_progress, ended), daemon=True)
    drawing.start()
    try:
        yield
    finally:
        ended.set()
        drawing.join()
        _terminal.release()


def wait(text: str) -> contextlib.AbstractContextManager[None]:
    """Draw a spinner with a text while the block runs, for an operation of unknown length."""
    return show(lambda: Progress(0, 0, text))


def _draw(read_progress: Callable[[], Progress], ended: threading.Event) -> None:
    if ended.wait(_DELAY):
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.SpinnerColumn(),
        progress.BarColumn(bar_width=30),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
    )
    console = Console(stderr=True)
    with progress.Progress(
        *columns, console=console, transient=True, auto_refresh=False, redirect_stdout=False
    ) as bar:
        task = bar.add_task("", total=None)
        while True:
            now = read_progress()
            bar.update(
                task,
                completed=now.done,
                total=max(now.total, now.done) or None,
                description=readable(now.text),
            )
            bar.refresh()
            if ended.wait(_EVERY):
                return
