"""Heartbeat of `moorage worker`: a file with its state, for health checks of containers.

A worker listens on no port. It rewrites the file every few seconds from its event loop, so the age
of the file reveals a worker that hangs or was killed.
"""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

from registry import clock
from registry.services.maintenance.health import Health

logger = logging.getLogger(__name__)

NAME = "worker-health"

_EVERY = 5.0
_PATIENCE = 30_000_000
"""Microseconds without a heartbeat after which a worker counts as dead."""


@contextlib.asynccontextmanager
async def beating(folder: Path, health: Health) -> AsyncIterator[None]:
    """Write the heartbeat into the folder while the block runs."""
    task = asyncio.create_task(_repeat(folder / NAME, health))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        (folder / NAME).unlink(missing_ok=True)


async def _repeat(path: Path, health: Health) -> None:
    while True:
        state = {
            "boot": clock.boot_id(),
            "at": clock.boottime_us(),
            "problems": await health.list_problems(),
        }
        try:
            await asyncio.to_thread(_write, path, json.dumps(state))
        except OSError as error:
            # Keep the jobs running, because they may free space on a full disk.
            logger.warning("the heartbeat cannot be written to %s: %s", path, error.strerror)
        await asyncio.sleep(_EVERY)


def _write(path: Path, text: str) -> None:
    new = path.with_name(f"{NAME}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)


def find_problem(folder: Path) -> str:
    """Return the problem of the worker of the data directory, or an empty text if it is healthy."""
    try:
        state = json.loads((folder / NAME).read_text())
        age = clock.boottime_us() - state["at"]
        same_boot = state["boot"] == clock.boot_id()
        problems = dict(state["problems"])
    except FileNotFoundError:
        return f"no worker runs on {folder}, or it is still starting"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{folder / NAME} cannot be read ({error})"
    if not same_boot or age > _PATIENCE:
        return f"the worker of {folder} has written no heartbeat for {_PATIENCE // 1_000_000} s"
    return "; ".join(f"{part}: {problem}" for part, problem in problems.items())
