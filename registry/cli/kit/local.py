"""Access of commands to the registry in the data folder, without a server."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from registry import logs
from registry.app import Opened, started
from registry.auth.audit_log import Actor
from registry.auth.policy.principals import OPERATOR
from registry.cli.kit import database
from registry.cli.kit.options import find_folder, load_settings
from registry.services.services import Registry

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
        database.make_usable(settings, folder)
    else:
        database.enter(settings, folder)

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
