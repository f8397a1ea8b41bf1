"""JSON documents read strictly: what two readers could understand differently is refused.

Sources: RFC 8259 for JSON, RFC 6838 section 4.2 for the length of a media type.
"""

import codecs
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import NoReturn

from registry.errors import ManifestInvalidError

Fields = Mapping[str, object]

MAX_MEDIA_TYPE = 255
MAX_CONTAINERS = 100_000
"""Objects and arrays in a document: one of them takes up to a hundred times its text in memory."""
MAX_STRINGS = 500_000
"""Strings in a document, names of fields included."""
MAX_DEPTH = 200
"""Objects and arrays within each other."""

# Never fails at a quote, also where a string does not end, and so never looks at a byte twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_document(raw: bytes) -> Fields:
    """Read the JSON object that `raw` is; raise ManifestInvalidError for anything else."""
    # RFC 8259 lets a reader skip the mark; one that does and one that does not see two documents.
    if raw.startswith(codecs.BOM_UTF8):
        raise ManifestInvalidError("the manifest starts with a byte order mark")
    _check_structure(raw)
    try:
        value: object = _DECODER.decode(raw.decode())
    except UnicodeDecodeError as error:
        raise ManifestInvalidError(f"the manifest is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ManifestInvalidError(f"the manifest is not JSON: {error}") from None
    except ValueError:  # Python's limit on the digits of an integer
        raise ManifestInvalidError("the manifest holds a number that is too long") from None
    except RecursionError:
        raise ManifestInvalidError("the manifest is nested too deeply") from None
    return object_of(value, "the manifest")


def _check_structure(raw: bytes) -> None:
    """Refuse too many or too deeply nested values before any of them is built."""
    if raw.count(b'"') - raw.count(b'\\"') > 2 * MAX_STRINGS:
        raise ManifestInvalidError(f"the manifest holds more than {MAX_STRINGS} JSON strings")
    # Brackets within strings count here, so this only tells the common case apart.
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return
    brackets = _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS)
    if brackets.count(b"{") + brackets.count(b"[") > MAX_CONTAINERS:
        raise ManifestInvalidError(
            f"the manifest holds more than {MAX_CONTAINERS} JSON objects and arrays"
        )
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"{[" else -1
        if depth > MAX_DEPTH:
            raise ManifestInvalidError(
                f"the manifest is nested too deeply: at most {MAX_DEPTH} levels"
            )


def object_of(value: object, where: str) -> Fields:
    if not isinstance(value, dict):
        raise ManifestInvalidError(f"{where} must be an object")
    return value


def list_of(fields: Fields, key: str) -> list[object]:
    """Return a list; null and absent are the empty one, because Go writes an empty list as null."""
    value = fields.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ManifestInvalidError(f"{key} must be a list")
    return value


def media_type_of(fields: Fields, key: str, where: str = "") -> str | None:
    """Return a type, or None where there is none: absent, null and "" are one to a Go client."""
    value = fields.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ManifestInvalidError(f"{_place(where, key)} must be a string")
    # Only what rows and headers cannot hold: a stricter grammar would refuse artifacts in use.
    if len(value) > MAX_MEDIA_TYPE or _CONTROL.search(value):
        raise ManifestInvalidError(f"{_place(where, key)} is not a media type")
    return _as_unicode(value)


def annotations_of(fields: Fields, where: str = "") -> dict[str, str] | None:
    value = fields.get("annotations")
    if value is None:
        return None
    place = _place(where, "annotations")
    annotations: dict[str, str] = {}
    for key, text in object_of(value, place).items():
        if not isinstance(text, str):
            raise ManifestInvalidError(f"each value in {place} must be a string")
        annotations[_as_unicode(key)] = _as_unicode(text)
    return annotations


def _place(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _as_unicode(text: str) -> str:
    """Replace lone surrogates, which JSON can escape and UTF-8 cannot carry, as Go clients do."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ManifestInvalidError(f"the manifest holds the key {key[:80]!a} twice in one object")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ManifestInvalidError(f"the manifest is not JSON: {name} is no number there")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
