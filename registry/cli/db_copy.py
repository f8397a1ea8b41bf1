"""`moorage db copy`: the whole database to another."""

import argparse

from registry.app import Opened, gather_keys
from registry.cli import output
from registry.cli.opened import run_opened
from registry.cli.settings import load_settings
from registry.errors import ConfigError
from registry.services.transfer import Transfer


def copy(args: argparse.Namespace) -> int:
    if args.release:
        run_opened(args, lambda opened: Transfer(opened.database).release())
        output.show(
            {"released": True}, "The database takes changes again.", as_json=bool(args.json)
        )
        return 0
    if not args.to:
        raise ConfigError("say where to with --to URL")
    settings = load_settings(args)

    async def work(opened: Opened) -> dict[str, int]:
        def tell(table: str, rows: int) -> None:
            output.show_progress(1, 1, f"{table}: {rows} rows")

        return await Transfer(opened.database).run(
            args.to, lambda: gather_keys(settings, opened, args.to), keep=args.keep, tell=tell
        )

    counts = run_opened(args, work)
    output.end_progress()
    if args.json:
        output.write_json({"rows": counts, "kept": bool(args.keep)})
        return 0
    output.write(f"Copied {sum(counts.values())} rows of {len(counts)} tables, and compared them.")
    if args.keep:
        output.write("This database takes changes again; the other one is a copy of it.")
    else:
        output.write(
            "This database takes no changes any more. Set [database] url to the other one and "
            "restart the registry. (To go back instead: moorage db copy --release)"
        )
    return 0
