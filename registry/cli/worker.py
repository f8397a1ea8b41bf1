"""`moorage worker`: run the jobs apart from `serve`."""

import argparse
import asyncio
import logging
import signal

from registry import logs
from registry.app import compose_runner, started
from registry.cli import db
from registry.cli.settings import load_settings
from registry.config import Settings
from registry.folder import DataFolder

logger = logging.getLogger(__name__)


def work(args: argparse.Namespace) -> int:
    settings = load_settings(args)
    logs.configure(settings.log.format, settings.log.level, access=False)
    folder = DataFolder(settings.data)
    db.enter(settings, folder)
    try:
        asyncio.run(_run(settings))
    finally:
        folder.close()
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
        await stop.wait()
        logger.info("stopping")
        await runner.stop()
