"""`moorage config`: look at the settings before anything depends on them."""

import argparse

from registry.cli import db, output
from registry.cli.settings import load_settings
from registry.config import require_safe_listen
from registry.config import show as show_settings


def check(args: argparse.Namespace) -> int:
    settings = load_settings(args)
    require_safe_listen(settings, lambda: db.has_users(settings))
    if args.json:
        output.write_json({"ok": True})
    else:
        output.write("The settings are good.")
    return 0


def show(args: argparse.Namespace) -> int:
    settings = load_settings(args)
    shown = show_settings(settings)
    if args.json:
        output.write_json(shown | {"origins": dict(settings.origins)})
        return 0
    rows = [("data", shown["data"], ""), ("config", shown["config"] or "(none)", "")]
    for key, origin in settings.origins.items():
        section, name = key.split(".")
        rows.append((key, shown[section][name], origin))
    output.write_table(("SETTING", "VALUE", "FROM"), rows)
    return 0
