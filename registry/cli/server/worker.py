"""`moorage worker`: run the background jobs in a process of their own."""

import argparse
import asyncio
import logging
import signal
from pathlib import Path

from registry.app import Runtime, compose, compose_runner, require_ready
from registry.cli.kit import database, output
from registry.cli.kit.options import find_folder, load_settings, start_logging
from registry.cli.server import checks, heartbeat
from registry.config import Settings
from registry.services.maintenance.startup import Startup

logger = logging.getLogger(__name__)

_NOT_HEALTHY = 1


def work(args: argparse.Namespace) -> int:
    if args.check:
        return _check(load_settings(args).data)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    settings = start_logging(args, access=False)
    checks.require_files(settings)
    folder = find_folder(settings)
    database.enter(settings, folder)
    database.warn_if_remote(settings)
    try:
        asyncio.run(_run(settings))
    finally:
        folder.close()
    return 0


def _check(folder: Path) -> int:
    """Print whether the worker of the data directory is healthy, and return it as exit status."""
    problem = heartbeat.find_problem(folder)
    if problem:
        output.write_error(problem)
        return _NOT_HEALTHY
    output.write("The worker is healthy.")
    return 0


async def _run(settings: Settings) -> None:
    """Run the jobs until a signal stops the process."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    opened = compose(settings)
    try:
        async with heartbeat.beating(settings.data, opened.registry.health):
            if await _open(settings, opened, stop):
                runner = compose_runner(settings, opened)
                runner.start()
                logger.info("running the jobs")
                await stop.wait()
                logger.info("stopping")
                await runner.stop()
    finally:
        await opened.close()


async def _open(settings: Settings, opened: Runtime, stop: asyncio.Event) -> bool:
    """Wait for the database and the stores. Return False if `stop` is set before they answer."""

    async def attempt() -> None:
        await asyncio.to_thread(database.require_reachable, settings)
        await asyncio.to_thread(database.require_filled, settings)
        await require_ready(opened)

    waiting_for = opened.registry.health.waiting_for
    waiting_for["server"] = "starting"
    opening = asyncio.create_task(Startup(waiting_for).wait(attempt))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not opening.done():
        opening.cancel()
        await asyncio.wait({opening})
        return False
    opening.result()
    return True
