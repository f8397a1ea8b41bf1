"""`moorage db`: the schema of the database."""

import argparse
import asyncio
from typing import TYPE_CHECKING

from registry.cli.kit import output, progress
from registry.cli.kit.parsing import Parser

if TYPE_CHECKING:
    from registry.config import Settings


def declare(db: Parser) -> None:
    """Declare the commands."""
    command = db.add_verb(
        "upgrade",
        upgrade,
        "Upgrade the schema to this version",
        "moorage db upgrade --wait",
    )
    command.add_argument(
        "--wait", action="store_true", help="wait for a database that does not answer yet"
    )
    db.add_verb("status", status, "Show the version of the schema", "moorage db status")
    command = db.add_verb(
        "copy",
        copy,
        "Copy all rows to another, empty database",
        "moorage db copy --to postgresql+psycopg://moorage@db.example.org/moorage",
        "moorage db copy --release",
    )
    command.explain("After that, this database accepts no more changes.")
    command.add_argument(
        "--to", metavar="URL", help="SQLAlchemy URL of an empty database, without a password"
    )
    command.add_argument(
        "--to-file",
        metavar="FILE",
        help="file with the URL, including its password (-: standard input)",
    )
    command.add_argument(
        "--stay", action="store_true", help="keep using this database after the copy"
    )
    command.add_argument(
        "--release",
        action="store_true",
        help="accept changes again after an earlier copy, and copy nothing",
    )


def upgrade(args: argparse.Namespace) -> int:
    from registry import logs
    from registry.cli.kit import database
    from registry.cli.kit.options import find_folder, load_settings
    from registry.metadata.engine import migrate

    settings = load_settings(args)
    folder = find_folder(settings)
    folder.create()
    if args.wait:
        logs.configure(settings.log.format, "info", access=False)
        asyncio.run(_wait(settings))
    with progress.wait("upgrading the schema"):
        changed = database.bring_up_to_date(settings, folder)
    folder.close()
    if args.json:
        output.write_json({"changed": changed, "version": migrate.VERSION})
    else:
        done = "upgraded to" if changed else "is already at"
        output.write(f"The database {done} schema {migrate.VERSION}.")
    return 0


async def _wait(settings: "Settings") -> None:
    """Wait until the database answers. Raises ConfigError if waiting does not help."""
    from registry.cli.kit import database
    from registry.services.maintenance.startup import Startup

    await Startup({}).wait(lambda: asyncio.to_thread(database.require_reachable, settings))


def copy(args: argparse.Namespace) -> int:
    from registry.cli.commands.machine import db_copy

    return db_copy.copy(args)


def status(args: argparse.Namespace) -> int:
    from registry.cli.kit import database
    from registry.cli.kit.options import find_folder, load_settings
    from registry.metadata.engine import migrate

    settings = load_settings(args)
    folder = find_folder(settings)
    database.enter(settings, folder)
    state = database.read_state(settings)
    folder.close()
    if args.json:
        known = {"known": migrate.VERSION, "usable": state.usable}
        output.write_json(output.to_json(state) | known)
        return 0
    if state.move is not None and state.filling:
        output.write(f"{state.move.state}: a copy from {state.move.peer} is in progress")
    elif state.move is not None and not state.move.is_expired:
        output.write(f"{state.move.state}: accepts no changes (copied to {state.move.peer})")
    fits = "usable by this version" if state.usable else "not usable by this version"
    output.write(f"schema {state.version or 'none'}: {fits}, whose schema is {migrate.VERSION}")
    return 0
