"""`moorage config`: look at the settings before anything depends on them."""

import argparse

from registry.cli import output
from registry.cli.settings import load_settings
from registry.config import require_safe_listen
from registry.config import show as show_settings


def check(args: argparse.Namespace) -> int:
    settings = load_settings(args)
    require_safe_listen(settings)
    if args.json:
        output.write_json({"ok": True})
    else:
        output.write("The settings are good.")
    return 0


def show(args: argparse.Namespace) -> int:
    settings = load_settings(args)
    shown = show_settings(settings)
    if args.json:
        output.write_json(shown)
        return 0
    rows = [
        (f"{section}.{key}" if section else key, value)
        for section, keys in shown.items()
        for key, value in (keys.items() if isinstance(keys, dict) else [("", keys)])
    ]
    output.write_table(("SETTING", "VALUE"), rows)
    return 0
