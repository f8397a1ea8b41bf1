"""Access of commands to the registry in the data folder, without a server."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from registry import logs
from registry.app import Opened, started
from registry.auth.books import Actor
from registry.auth.principals import OPERATOR
from registry.cli import db
from registry.cli.settings import find_folder, load_settings
from registry.services.registry import Registry

T = TypeVar("T")


def run(args: argparse.Namespace, work: Callable[[Registry], Awaitable[T]]) -> T:
    """Run `work` on the registry. Raises ConfigError if there is no registry."""
    return run_opened(args, lambda opened: work(opened.registry))


def run_opened(
    args: argparse.Namespace, work: Callable[[Opened], Awaitable[T]], *, create: bool = False
) -> T:
    """Run `work` on the open registry with its database, stores and keys.

    If there is no registry, creates one with `create`, and raises ConfigError otherwise.
    """
    settings = load_settings(args)
    logs.configure(settings.log.format, "warning", access=False)
    folder = find_folder(settings)
    if create:
        folder.create()
        db.make_usable(settings, folder)
    else:
        db.enter(settings, folder)

    async def job() -> T:
        async with started(settings) as opened:
            return await work(opened)

    try:
        return asyncio.run(job())
    finally:
        folder.close()


def find_override(args: argparse.Namespace) -> Actor | None:
    """Return the actor that overrides immutable tags if `--override` is given, else None."""
    return Actor(OPERATOR.name) if args.override else None
