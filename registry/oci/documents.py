"""Strict parsing of JSON documents: rejects what two parsers could read differently.

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
"""Maximum number of objects and arrays. Each may take 100 times its text size in memory."""
MAX_STRINGS = 500_000
"""Maximum number of strings, including keys."""
MAX_DEPTH = 200
"""Maximum nesting depth of objects and arrays."""

# The match succeeds at every quote, even for an unterminated string, so no byte is scanned twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_document(raw: bytes) -> Fields:
    """Parse a JSON object. Raises ManifestInvalidError for anything else."""
    # RFC 8259 allows parsers to ignore the mark, so two parsers could read two different documents.
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
        raise ManifestInvalidError("the manifest contains a number that is too long") from None
    except RecursionError:
        raise ManifestInvalidError("the manifest is nested too deeply") from None
    return object_of(value, "the manifest")


def _check_structure(raw: bytes) -> None:
    """Reject documents with too many or too deeply nested values before parsing them."""
    if raw.count(b'"') - raw.count(b'\\"') > 2 * MAX_STRINGS:
        raise ManifestInvalidError(f"the manifest contains more than {MAX_STRINGS} JSON strings")
    # Brackets in strings count here as well, so this only short-cuts the common case.
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return
    brackets = _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS)
    if brackets.count(b"{") + brackets.count(b"[") > MAX_CONTAINERS:
        raise ManifestInvalidError(
            f"the manifest contains more than {MAX_CONTAINERS} JSON objects and arrays"
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
    """Return a list. Null and absent count as empty, because Go writes an empty list as null."""
    value = fields.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ManifestInvalidError(f"{key} must be a list")
    return value


def media_type_of(fields: Fields, key: str, where: str = "") -> str | None:
    """Return a media type, or None. Absent, null and "" are the same to a Go client."""
    value = fields.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ManifestInvalidError(f"{_place(where, key)} must be a string")
    # Only reject what rows and headers cannot hold. A strict grammar would reject existing
    # artifacts.
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
    """Replace lone surrogates, which JSON can escape but UTF-8 cannot encode, as Go clients do."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ManifestInvalidError(
            f"the manifest contains the key {key[:80]!a} twice in one object"
        )
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ManifestInvalidError(f"the manifest is not JSON: {name} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
