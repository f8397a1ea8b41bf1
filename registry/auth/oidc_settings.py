"""The settings of external OIDC issuers whose ID tokens authenticate robots.

Every command imports this module, so it imports nothing slow.
`registry.auth.tokens.external_issuers` uses these settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from registry.auth.policy.subjects import parse_account_name
from registry.errors import AccountNameInvalidError, ConfigError
from registry.units import SettingType, parse_url

AUDIENCE: Final = "moorage"
"""The default audience of ID tokens."""

_EVERYTHING: Final = "*"

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class OidcRule:
    """A rule that maps a token to a robot if all `claims` match; each needs one of its values."""

    robot: str
    claims: Mapping[str, tuple[str, ...]]

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Return whether the claims of a verified token match. Only string claims can match."""
        return all(
            any(_matches(value, claims.get(name)) for value in values)
            for name, values in self.claims.items()
        )


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """`[[auth.oidc]]`: an issuer whose ID tokens are exchanged for tokens of robots.

    Its keys come from `jwks_url` or from `jwks_file`, relative to the data directory; otherwise
    from OpenID discovery.
    """

    issuer: str
    audience: str
    jwks_url: str
    jwks_file: str
    rules: tuple[OidcRule, ...]


def parse_issuers(items: list[Any]) -> tuple[OidcSettings, ...]:
    """Parse the tables of `[[auth.oidc]]`; raise ConfigError, which names the location."""
    issuers = tuple(_parse_issuer(item, f"[{index}]") for index, item in enumerate(items))
    for index, issuer in enumerate(issuers):
        if any(_is_same(issuer, other) for other in issuers[:index]):
            raise ConfigError(f"[{index}]: duplicate issuer and audience")
    return issuers


def show_issuers(issuers: tuple[OidcSettings, ...]) -> list[dict[str, Any]]:
    """Return the tables in the form that `parse_issuers` reads."""
    return [_show_issuer(issuer) for issuer in issuers]


def _matches(value: str, claim: object) -> bool:
    if not isinstance(claim, str):
        return False
    return claim.startswith(value[:-1]) if value.endswith(_EVERYTHING) else claim == value


def _is_same(issuer: OidcSettings, other: OidcSettings) -> bool:
    return (issuer.issuer, issuer.audience) == (other.issuer, other.audience)


def _parse_issuer(item: object, where: str) -> OidcSettings:
    table = _table(item, where, {"issuer", "audience", "jwks_url", "jwks_file", "rules"})
    jwks_url = _take(table, "jwks_url", str, where, default="")
    settings = OidcSettings(
        issuer=_parse_place(_take(table, "issuer", str, where), f"{where}.issuer"),
        audience=_take(table, "audience", str, where, default=AUDIENCE),
        jwks_url=_parse_place(jwks_url, f"{where}.jwks_url") if jwks_url else "",
        jwks_file=_take(table, "jwks_file", str, where, default=""),
        rules=tuple(
            _parse_rule(rule, f"{where}.rules[{index}]")
            for index, rule in enumerate(_take(table, "rules", list, where))
        ),
    )
    if not settings.audience:
        raise ConfigError(f"{where}.audience: expected a name")
    if settings.jwks_url and settings.jwks_file:
        raise ConfigError(f"{where}: jwks_url and jwks_file cannot both be set")
    if not settings.rules:
        raise ConfigError(f"{where}.rules: expected at least one rule")
    return settings


def _parse_rule(item: object, where: str) -> OidcRule:
    table = _table(item, where, {"robot", "claims"})
    robot = _take(table, "robot", str, where)
    try:
        parse_account_name(robot)
    except AccountNameInvalidError as error:
        raise ConfigError(f"{where}.robot: {error.message}") from None
    claims = _take(table, "claims", dict, where)
    if not claims:
        raise ConfigError(f"{where}.claims: expected at least one claim")
    return OidcRule(
        robot,
        {name: _parse_values(value, f"{where}.claims.{name}") for name, value in claims.items()},
    )


def _parse_values(value: object, where: str) -> tuple[str, ...]:
    values = tuple(value) if isinstance(value, list) else (value,)
    if not values or not all(map(_is_value, values)):
        raise ConfigError(
            f"{where}: expected a string or a list of strings, each a value or a prefix "
            'followed by "*", such as "refs/heads/*"'
        )
    return values


def _is_value(value: object) -> bool:
    return isinstance(value, str) and value != _EVERYTHING and _EVERYTHING not in value[:-1]


def _parse_place(text: str, where: str) -> str:
    try:
        return parse_url(text)
    except ValueError:
        raise ConfigError(
            f'{where} = "{text}": expected a URL, such as "https://gitlab.example.org"'
        ) from None


def _table(item: object, where: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise ConfigError(f"{where}: expected a table")
    for key in item:
        if key not in known:
            raise ConfigError(
                f"{where}.{key}: unknown key; known keys are {', '.join(sorted(known))}"
            )
    return item


def _take(
    table: dict[str, Any], key: str, kind: type[Value], where: str, default: Value | None = None
) -> Value:
    value = table.get(key, default)
    if not isinstance(value, kind):
        names = {"str": "a string", "list": "a list of tables", "dict": "a table"}
        raise ConfigError(f"{where}.{key}: expected {names[kind.__name__]}")
    return value


def _show_issuer(settings: OidcSettings) -> dict[str, Any]:
    keys = {"jwks_url": settings.jwks_url, "jwks_file": settings.jwks_file}
    return {
        "issuer": settings.issuer,
        "audience": settings.audience,
        **{name: value for name, value in keys.items() if value},
        "rules": [
            {
                "robot": rule.robot,
                "claims": {
                    name: values[0] if len(values) == 1 else list(values)
                    for name, values in rule.claims.items()
                },
            }
            for rule in settings.rules
        ],
    }


_EXPECTED = "a list of tables, each with issuer and rules; in the environment, as JSON"

Oidc = Annotated[
    tuple[OidcSettings, ...], SettingType(_EXPECTED, list, parse_issuers, show_issuers, json=True)
]
