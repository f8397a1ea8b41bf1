"""`moorage db`: the schema of the database."""

import argparse
import asyncio
from dataclasses import asdict

from registry import logs
from registry.cli.kit import database, output
from registry.cli.kit.options import find_folder, load_settings
from registry.config import Settings
from registry.metadata.engine import migrate
from registry.services.maintenance.startup import Startup


def upgrade(args: argparse.Namespace) -> int:
    settings = load_settings(args)
    folder = find_folder(settings)
    folder.create()
    if args.wait:
        logs.configure(settings.log.format, "info", access=False)
        asyncio.run(_wait(settings))
    changed = database.bring_up_to_date(settings, folder)
    folder.close()
    if args.json:
        output.write_json({"changed": changed, "version": migrate.VERSION})
    else:
        done = "upgraded to" if changed else "is already at"
        output.write(f"The database {done} schema {migrate.VERSION}.")
    return 0


async def _wait(settings: Settings) -> None:
    """Wait until the database answers. Raises ConfigError if waiting does not help."""
    await Startup({}).wait(lambda: asyncio.to_thread(database.require_reachable, settings))


def status(args: argparse.Namespace) -> int:
    settings = load_settings(args)
    folder = find_folder(settings)
    database.enter(settings, folder)
    state = database.read_state(settings)
    folder.close()
    if args.json:
        output.write_json({**asdict(state), "known": migrate.VERSION, "usable": state.usable})
        return 0
    if state.move is not None and state.filling:
        output.write(f"{state.move.state}: being filled from {state.move.place}")
    elif state.move is not None and not state.move.over:
        output.write(f"{state.move.state}: takes no changes (copied to {state.move.place})")
    fits = "usable by this version" if state.usable else "not usable by this version"
    output.write(f"schema {state.version or 'none'}: {fits}, which knows {migrate.VERSION}")
    return 0
