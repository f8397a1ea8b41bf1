"""Loading of the settings from their sources.

The sources are, each overriding the ones before: defaults, the settings file, systemd credentials,
environment variables, and command-line options.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from registry import secret_files
from registry.config.checks import list_conflicts
from registry.config.tree import FILE_KEYS, SECTIONS, SETTINGS, Settings, Source
from registry.errors import ConfigError

_PREFIX = "MOORAGE_"
_VARIABLES = {f"{_PREFIX}{key.upper().replace('.', '__')}": key for key in (*SETTINGS, *FILE_KEYS)}
_NEAR_MISSES = {name.replace("__", "_") for name in _VARIABLES}


class _RawValue(NamedTuple):
    """An unvalidated value from one source, which `where` names. The key may be unknown."""

    key: str
    value: Any
    origin: Source
    where: str


def load(
    *,
    config: Path | None,
    data: Path | None,
    overrides: Mapping[str, str],
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Load the settings from all sources.

    `overrides` holds the command-line options as text, by key, such as `http.listen`. Raises
    ConfigError, which lists every wrong key and value with its source.
    """
    if environ is None:
        environ = os.environ
    data = (data or Path(environ.get("MOORAGE_DATA") or "data")).absolute()
    source, document = _read_document(config, data, environ)
    values = {key: setting.default for key, setting in SETTINGS.items()}
    origins: dict[str, Source] = dict.fromkeys(SETTINGS, "default")
    problems: list[str] = []
    secret_files: list[Path] = []
    for source_values in (
        list(_from_document(document, f"file {source}")),
        list(_from_credentials(environ)),
        list(_from_environment(environ)),
        [_RawValue(key, text, "option", "command line") for key, text in overrides.items()],
    ):
        problems.extend(_list_doubles(source_values))
        for given in source_values:
            try:
                key = FILE_KEYS.get(given.key, given.key)
                if key != given.key:
                    secret_files.append(data / str(given.value))
                values[key] = _read(given, data)
                origins[key] = given.origin
            except ConfigError as problem:
                problems.append(problem.message)
    _raise_if_any(problems)
    sections: dict[str, Any] = {
        section: tree(**{each.name: values[f"{section}.{each.name}"] for each in fields(tree)})
        for section, tree in SECTIONS.items()
    }
    settings = Settings(
        data=data, source=source, origins=origins, secret_files=tuple(secret_files), **sections
    )
    _raise_if_any(list(list_conflicts(settings)))
    return settings


def find_log_format(
    *, config: Path | None, data: Path | None, environ: Mapping[str, str] | None = None
) -> str:
    """Return `log.format` even if other settings are wrong; `text` if it cannot be read."""
    if environ is None:
        environ = os.environ
    if written := environ.get("MOORAGE_LOG__FORMAT"):
        return "json" if written == "json" else "text"
    data = (data or Path(environ.get("MOORAGE_DATA") or "data")).absolute()
    try:
        _, document = _read_document(config, data, environ)
    except ConfigError:
        return "text"
    log = document.get("log")
    return "json" if isinstance(log, dict) and log.get("format") == "json" else "text"


def _read_document(
    config: Path | None, data: Path, environ: Mapping[str, str]
) -> tuple[Path | None, dict[str, Any]]:
    variable = environ.get("MOORAGE_CONFIG")
    named = config or (Path(variable) if variable else None)
    path = named or data / "moorage.toml"
    try:
        return path, tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        if named is None:
            return None, {}
        raise ConfigError(
            f"there is no settings file {path}: create it, or name another file with --config or "
            "MOORAGE_CONFIG"
        ) from None
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"the settings file {path} is not valid UTF-8 (line {line})") from error
    except ValueError as error:
        raise ConfigError(f"the settings file {path} is not valid TOML: {error}") from error


def _from_document(document: dict[str, Any], where: str) -> Iterator[_RawValue]:
    for section, table in document.items():
        if not isinstance(table, dict):
            yield _RawValue(f'"{section}"', table, "file", where)
        elif section not in SECTIONS:
            yield _RawValue(f"[{section}]", table, "file", where)
        else:
            for name, value in table.items():
                yield _RawValue(f"{section}.{name}", value, "file", where)


def _from_environment(environ: Mapping[str, str]) -> Iterator[_RawValue]:
    for name, text in environ.items():
        if key := _VARIABLES.get(name):
            yield _RawValue(key, text, "env", f"environment variable {name}")
        elif name.startswith(_PREFIX) and ("__" in name or name in _NEAR_MISSES):
            yield _RawValue(name, text, "env", "environment")


def _from_credentials(environ: Mapping[str, str]) -> Iterator[_RawValue]:
    """Yield the credentials of the systemd unit that are named after settings (systemd.exec(5))."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return
    for name, key in FILE_KEYS.items():
        path = Path(directory) / key
        if path.is_file():
            yield _RawValue(name, str(path), "credential", f"credential {key}")


def _list_doubles(given: list[_RawValue]) -> Iterator[str]:
    """Yield a message for each secret that one source sets both as a value and as a file."""
    keys = {each.key for each in given}
    for name, key in FILE_KEYS.items():
        if name in keys and key in keys:
            where = next(each.where for each in given if each.key == name)
            yield f"{key} and {name} cannot both be set: remove one of them ({where})"


def _read(given: _RawValue, data: Path) -> Any:
    """Return the parsed value.

    Raises ConfigError if the key is unknown or the value is invalid.
    """
    if given.key in FILE_KEYS:
        return _read_file(given, data)
    if given.key not in SETTINGS:
        headings = [f"[{section}]" for section in SECTIONS]
        names = (*SETTINGS, *FILE_KEYS, *headings, *_VARIABLES)
        known = {name.upper(): name for name in names}
        near = known[get_close_matches(given.key.upper(), known, n=1, cutoff=0)[0]]
        raise ConfigError(f"unknown setting {given.key} ({given.where}); did you mean {near}?")
    kind = SETTINGS[given.key].kind
    try:
        return (kind.from_toml if given.origin == "file" else kind.from_text)(given.value)
    except ConfigError as problem:  # the message starts with the position inside the value
        raise ConfigError(f"{given.key}{problem.message} ({given.where})") from None
    except ValueError:
        written = given.key if kind.secret else f"{given.key} = {given.value!r}"
        raise ConfigError(f"{written} ({given.where}): expected {kind.expected}") from None


def _read_file(given: _RawValue, data: Path) -> Any:
    """Return the value in the file that a setting names; a relative path is relative to `data`."""
    if not isinstance(given.value, str) or not given.value:
        raise ConfigError(f"{given.key} ({given.where}): expected the path of a file")
    path = data / given.value
    try:
        text = secret_files.read(path)
    except ConfigError as problem:
        raise ConfigError(f"{given.key} ({given.where}): {problem.message}") from None
    kind = SETTINGS[FILE_KEYS[given.key]].kind
    try:
        return kind.from_text(text)
    except ConfigError as problem:
        raise ConfigError(f"{given.key}{problem.message} ({path}, {given.where})") from None
    except ValueError:
        raise ConfigError(
            f"{given.key} ({given.where}): {path} must contain {kind.expected}"
        ) from None


def _raise_if_any(problems: list[str]) -> None:
    if problems:
        heading = [f"{len(problems)} settings are wrong:"] if problems[1:] else []
        raise ConfigError("\n  ".join([*heading, *problems]), problems)
