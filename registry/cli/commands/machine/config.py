"""`moorage config`: check and show the settings."""

import argparse
import asyncio
from typing import TYPE_CHECKING

from registry.cli.kit import output, progress
from registry.cli.kit.parsing import Parser

if TYPE_CHECKING:
    from registry.config import Settings


def declare(config: Parser) -> None:
    """Declare the commands."""
    command = config.add_verb(
        "check",
        check,
        "Check the settings, and change nothing",
        "moorage config check --connect",
    )
    command.explain("The exit status is 1 if `moorage serve` would not start.")
    command.add_argument(
        "--connect", action="store_true", help="open the database and the stores as well"
    )
    config.add_verb(
        "show", show, "Show the settings in force and their sources", "moorage config show"
    )


def check(args: argparse.Namespace) -> int:
    from registry import logs
    from registry.cli.kit import database
    from registry.cli.kit.options import load_settings
    from registry.cli.server import checks
    from registry.config import require_safe_listen

    settings = load_settings(args)
    logs.configure(settings.log.format, "warning", access=False)
    checks.require_files(settings)
    # Without --connect, a remote database is not queried for users.
    if args.connect or database.is_embedded(settings):
        require_safe_listen(settings, lambda: database.has_users(settings))
    if args.connect:
        _connect(settings)
    if args.json:
        output.write_json({"ok": True})
    else:
        output.write("The settings are valid.")
    return 0


def _connect(settings: "Settings") -> None:
    """Open the database and the stores as a server does, without creating them."""
    from registry.app import look_at_stores
    from registry.cli.kit import database

    database.check_reachable(settings)
    with progress.wait("connecting"):
        asyncio.run(look_at_stores(settings))


def show(args: argparse.Namespace) -> int:
    from registry import config
    from registry.cli.kit.options import load_settings

    settings = load_settings(args)
    shown = config.show(settings)
    if args.json:
        output.write_json(shown | {"origins": dict(settings.origins)})
        return 0
    rows = [("data", shown["data"], ""), ("config", shown["config"] or "(none)", "")]
    for key, origin in settings.origins.items():
        section, name = key.split(".")
        rows.append((key, shown[section][name], origin))
    output.write_table(("SETTING", "VALUE", "FROM"), rows)
    return 0
