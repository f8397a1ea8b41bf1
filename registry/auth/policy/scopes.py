"""Scopes of tokens. Source: Distribution's token scope specification.

A scope has the form `repository:team/app:pull,push`. The name may contain one more colon, before
the port of a host.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Self

from msgspec import Struct

from registry.auth.policy.actions import Action
from registry.errors import NameInvalidError, TooManyScopesError
from registry.logs import LONGEST_FIELD
from registry.oci.names import RepositoryName

_SCOPE = re.compile(r"(?P<type>[a-z0-9]+)(\([a-z0-9]+\))?:(?P<name>.+):(?P<actions>[a-z*,]*)")
_ALL_ACTIONS = (Action.PULL, Action.PUSH, Action.DELETE)
_REPOSITORY_ACTIONS = (*_ALL_ACTIONS, Action.FILL)
MAX_REPOSITORIES = 1000
"""The maximum number of repositories that one request may ask for."""

_ROOM_FOR_MORE = len(" and 1000 more")


def parse_actions(names: Iterable[Any]) -> frozenset[Action]:
    """Return the named actions on a repository. Unknown names are ignored.

    `*` stands for those of Distribution, and so not for `fill`.
    """
    given = {name for name in names if isinstance(name, str)}
    named = frozenset(action for action in _REPOSITORY_ACTIONS if action.value in given)
    return named | frozenset(_ALL_ACTIONS) if "*" in given else named


class Scopes(Struct, frozen=True):
    """The actions by repository, and whether the whole catalog may be listed."""

    repositories: Mapping[RepositoryName, frozenset[Action]]
    catalog: bool = False

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Parse scopes. Each text has one or more, separated by spaces. Unknown scopes are ignored.

        Scopes of the same repository are merged. Raises TooManyScopesError above MAX_REPOSITORIES.
        """
        asked: dict[RepositoryName, frozenset[Action]] = {}
        catalog = False
        for text in (scope for some in texts for scope in some.split()):
            match = _SCOPE.fullmatch(text)
            if match is None:
                continue
            if match["type"] == "registry" and match["name"] == "catalog":
                catalog = catalog or "*" in match["actions"].split(",")
            elif match["type"] == "repository":
                _add(asked, match["name"], match["actions"].split(","))
            if len(asked) > MAX_REPOSITORIES:
                raise TooManyScopesError(
                    f"a request may name at most {MAX_REPOSITORIES} repositories; request fewer",
                    {"limit": MAX_REPOSITORIES},
                )
        return cls(asked, catalog)

    @classmethod
    def from_claims(cls, access: Any) -> Self:
        """Parse the `access` claim of a token, of this registry or of an external issuer."""
        granted: dict[RepositoryName, frozenset[Action]] = {}
        catalog = False
        for entry in access if isinstance(access, list) else []:
            if not isinstance(entry, dict) or not isinstance(entry.get("actions"), list):
                continue
            kind, name = entry.get("type"), entry.get("name")
            if not isinstance(kind, str):
                continue
            kind = kind.partition("(")[0]
            if kind == "registry" and name == "catalog":
                catalog = catalog or "*" in entry["actions"]
            elif kind == "repository" and isinstance(name, str):
                _add(granted, name, entry["actions"])
        return cls(granted, catalog)

    def to_claims(self) -> list[dict[str, Any]]:
        """Return the `access` claim."""
        claims: list[dict[str, Any]] = [
            {"type": "repository", "name": str(name), "actions": write_actions(actions)}
            for name, actions in self.repositories.items()
        ]
        if self.catalog:
            claims.append({"type": "registry", "name": "catalog", "actions": ["*"]})
        return claims

    def actions_in(self, name: RepositoryName) -> frozenset[Action]:
        """Return the actions on a repository."""
        return self.repositories.get(name, frozenset())

    @property
    def names(self) -> Collection[RepositoryName]:
        """The names of the repositories."""
        return self.repositories.keys()

    def __str__(self) -> str:
        return " ".join(map(_write, self.to_claims()))

    def summarize(self) -> str:
        """Return as many scopes as fit a log field, and the number of the others."""
        texts = list(map(_write, self.to_claims()))
        shown: list[str] = []
        for text in texts:
            if shown and len(" ".join([*shown, text])) > LONGEST_FIELD - _ROOM_FOR_MORE:
                return f"{' '.join(shown)} and {len(texts) - len(shown)} more"
            shown.append(text)
        return " ".join(shown)


def write_actions(actions: frozenset[Action]) -> list[str]:
    """Return the names of actions, in a fixed order."""
    return [action.value for action in _REPOSITORY_ACTIONS if action in actions]


def _write(entry: dict[str, Any]) -> str:
    return f"{entry['type']}:{entry['name']}:{','.join(entry['actions'])}"


def _add(
    scopes: dict[RepositoryName, frozenset[Action]], text: str, actions: Iterable[Any]
) -> None:
    try:
        name = RepositoryName.parse(text)
    except NameInvalidError:
        return  # no repository can have this name, so there is nothing to grant
    scopes[name] = scopes.get(name, frozenset()) | parse_actions(actions)
