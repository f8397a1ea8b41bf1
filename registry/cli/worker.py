"""`moorage worker`: run the jobs apart from `serve`."""

import argparse
import asyncio
import logging
import signal
from pathlib import Path

from registry import logs
from registry.app import compose_runner, started
from registry.cli import db, heartbeat, output
from registry.cli.settings import load_settings
from registry.config import Settings
from registry.folder import DataFolder

logger = logging.getLogger(__name__)

_NOT_HEALTHY = 1


def work(args: argparse.Namespace) -> int:
    if args.check:
        return _check(load_settings(args).data)
    settings = load_settings(args)
    logs.configure(settings.log.format, settings.log.level, access=False)
    folder = DataFolder(settings.data)
    db.enter(settings, folder)
    db.warn_if_remote(settings)
    try:
        asyncio.run(_run(settings))
    finally:
        folder.close()
    return 0


def _check(folder: Path) -> int:
    """Say whether the worker of the folder is healthy; the exit status is the answer."""
    problem = heartbeat.find_problem(folder)
    if problem:
        output.complain(problem)
        return _NOT_HEALTHY
    output.write("The worker is healthy.")
    return 0


async def _run(settings: Settings) -> None:
    """Run the jobs until told to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with started(settings) as opened:
        runner = compose_runner(settings, opened)
        runner.start()
        logger.info("the jobs run here")
        async with heartbeat.beating(settings.data, opened.registry.health):
            await stop.wait()
        logger.info("stopping")
        await runner.stop()
