"""`moorage db copy`: copy the whole database to another one."""

import argparse
import sys
from pathlib import Path

from registry.app import Runtime, export_private_keys
from registry.cli.kit import output, progress
from registry.cli.kit.local import with_registry
from registry.cli.kit.options import load_settings
from registry.errors import ConfigError
from registry.services.maintenance.database_transfer import Transfer
from registry.units import mask_database_url


def copy(args: argparse.Namespace) -> int:
    if args.release:
        with_registry(args, lambda opened: Transfer(opened.database).release())
        output.show(
            {"released": True}, "The database accepts changes again.", as_json=bool(args.json)
        )
        return 0
    to = _read_target(args.to, args.to_file)
    settings = load_settings(args)

    async def work(opened: Runtime) -> dict[str, int]:
        now = progress.Progress(0, 0, "connecting")

        def tell(table: str, rows: int) -> None:
            nonlocal now
            now = progress.Progress(0, 0, f"{table}: {rows} rows")

        with progress.show(lambda: now):
            return await Transfer(opened.database).run(
                to, lambda: export_private_keys(settings, opened, to), keep=args.stay, tell=tell
            )

    counts = with_registry(args, work)
    if args.json:
        output.write_json({"rows": counts, "stays": bool(args.stay)})
        return 0
    output.write(f"Copied and compared {sum(counts.values())} rows of {len(counts)} tables.")
    if args.stay:
        output.write("This database accepts changes again; the other one is a copy of it.")
    else:
        output.write(
            "This database accepts no more changes. Set database.url to the other one and "
            "restart the registry. (To go back instead: moorage db copy --release)"
        )
    return 0


def _read_target(url: str | None, file: str | None) -> str:
    """Return the URL of the database to copy to.

    Raises ConfigError if an argument contains a password, because every account of the machine can
    read the arguments in the process list.
    """
    if bool(url) == bool(file):
        raise ConfigError("name the other database with either --to URL or --to-file FILE")
    if url:
        if "***" in mask_database_url(url):
            raise ConfigError(
                "--to contains a password, and other accounts on this machine can read arguments: "
                "write the URL into a file for --to-file FILE, or put the password into ~/.pgpass"
            )
        return url
    try:
        text = sys.stdin.read() if file == "-" else Path(str(file)).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the URL cannot be read from {file}: {error}") from error
    return text.strip()
