"""Authentication challenges. Source: RFC 9110, section 11.6.1."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"({_WORD})(?:[ \t]+|(?=,|$))")
# Registries also send unquoted values with characters that a token must not have, such as URLs.
_PARAMETER = re.compile(
    rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*+)"|([^\s,"=]+))(?=[ \t]*(?:,|$))'
)
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t]*)*")


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge. Scheme and names of parameters are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Parse the value of a WWW-Authenticate header, which may have several challenges.

    Raises ValueError if it is malformed.
    """
    found: list[Challenge] = []
    position = _skip(header, 0)
    while position < len(header):
        scheme = _SCHEME.match(header, position)
        if scheme is None:
            raise ValueError("not a challenge")
        parameters, position = _parse_parameters(header, scheme.end())
        found.append(Challenge(scheme[1].lower(), parameters))
    return found


def _parse_parameters(header: str, position: int) -> tuple[dict[str, str], int]:
    parameters: dict[str, str] = {}
    while match := _PARAMETER.match(header, position):
        name, quoted, plain = match.groups()
        if name.lower() in parameters:
            raise ValueError("a parameter is given twice")
        value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        parameters[name.lower()] = value
        position = _skip(header, match.end())
    if not parameters and (match := _TOKEN68.match(header, position)):
        position = match.end()
    return parameters, _skip(header, position)


def _skip(header: str, position: int) -> int:
    match = _SEPARATOR.match(header, position)
    return match.end() if match else position
