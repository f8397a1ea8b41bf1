"""Settings of a command, loaded according to its options."""

import argparse
from pathlib import Path

from registry import logs
from registry.config import Settings, find_log_format, load
from registry.data_dir import DataDirectory


def load_settings(args: argparse.Namespace, overrides: dict[str, str] | None = None) -> Settings:
    """Load the settings according to the options. Raises ConfigError if they are invalid."""
    return load(
        config=Path(args.config) if args.config else None,
        data=Path(args.data) if args.data else None,
        overrides=overrides or {},
    )


def start_logging(
    args: argparse.Namespace, overrides: dict[str, str] | None = None, *, access: bool = True
) -> Settings:
    """Load the settings of a service and configure logging.

    Errors in the settings are logged in the configured format too.
    """
    early = find_log_format(
        config=Path(args.config) if args.config else None,
        data=Path(args.data) if args.data else None,
    )
    logs.configure(early, "info", access=False)
    logs.take_over()
    settings = load_settings(args, overrides)
    log = settings.log
    logs.configure(log.format, log.level, access=log.access and access)
    return settings


def find_folder(settings: Settings) -> DataDirectory:
    """Return the data directory.

    Before its first use, it may contain the files that the settings name.
    """
    url = settings.database_url
    places = [
        *settings.list_files().values(),
        *settings.secret_files,
        settings.storage_root,
        settings.find_root(settings.old_storage),
        *([settings.source] if settings.source else []),
        *([Path(url.partition(":///")[2])] if url.startswith("sqlite") else []),
    ]
    inside = [each for each in places if each.is_relative_to(settings.data)]
    named = {each.relative_to(settings.data).parts[0] for each in inside if each != settings.data}
    return DataDirectory(settings.data, named)
