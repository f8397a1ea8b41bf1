"""What commands work on: the registry in the data folder, opened without a server."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from registry import logs
from registry.app import started
from registry.cli.settings import load_settings
from registry.folder import DataFolder
from registry.services.registry import Registry

T = TypeVar("T")


def run(args: argparse.Namespace, work: Callable[[Registry], Awaitable[T]]) -> T:
    """Run `work` on the registry; ConfigError where there is none."""
    settings = load_settings(args)
    logs.configure(settings.log.format, "warning", access=False)
    folder = DataFolder(settings.data)
    folder.open()

    async def job() -> T:
        async with started(settings) as opened:
            return await work(opened.registry)

    try:
        return asyncio.run(job())
    finally:
        folder.close()
