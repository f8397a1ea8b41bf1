"""Access of commands to the registry in the data directory, without a server."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from registry.app import Runtime
    from registry.services.services import Services

T = TypeVar("T")


def run(args: argparse.Namespace, work: "Callable[[Services], Awaitable[T]]") -> T:
    """Run `work` on the registry. Raises ConfigError if there is no registry."""
    return with_registry(args, lambda opened: work(opened.registry))


def with_registry(
    args: argparse.Namespace,
    work: "Callable[[Runtime], Awaitable[T]]",
    *,
    create: bool = False,
    with_stores: bool = True,
) -> T:
    """Run `work` on the open registry with its database, stores and keys.

    If there is no registry, creates one with `create`, and raises ConfigError otherwise. Without
    `with_stores`, the stores are not started, so that a bucket need not be reachable.
    """
    from registry import logs
    from registry.app import open_runtime
    from registry.cli.kit import database
    from registry.cli.kit.options import find_folder, load_settings

    settings = load_settings(args)
    logs.configure(settings.log.format, "warning", access=False)
    folder = find_folder(settings)
    if create:
        folder.create()
        database.make_usable(settings, folder)
    else:
        database.enter(settings, folder)

    async def job() -> T:
        async with open_runtime(settings, with_stores=with_stores) as opened:
            return await work(opened)

    try:
        return asyncio.run(job())
    finally:
        folder.close()
