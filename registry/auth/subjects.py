"""Names of those who may do something: users, groups, robots, everybody."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from registry.errors import AccountNameInvalidError, SubjectInvalidError

ROBOT_SIGN_IN = "robot+"
"""What the user name of a robot begins with where it signs in, and in the books."""

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_LONGEST = 64
_RESERVED = {"anonymous", "authenticated", "operator", "oidc"}


def parse_account_name(text: str) -> str:
    """The name of a user, group or robot; AccountNameInvalidError.

    Small letters and digits, with single `.`, `_`, `-` between: also a part of a repository name.
    """
    if not _NAME.fullmatch(text) or len(text) > _LONGEST:
        raise AccountNameInvalidError(
            f"{text[:80]!r} is no name: small letters and digits, with single '.', '_' or '-' "
            f"between them, at most {_LONGEST}"
        )
    if text in _RESERVED:
        raise AccountNameInvalidError(f"the name {text!r} is taken by the registry itself")
    return text


class SubjectKind(StrEnum):
    """What a grant can be given to; the value stands before the colon where there is one."""

    USER = "user"
    GROUP = "group"
    ROBOT = "robot"
    # Whoever has signed in, and whoever comes.
    AUTHENTICATED = "authenticated"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a grant is for. `name` is empty for everybody."""

    kind: SubjectKind
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `alice`, `group:devs`, `robot:ci`, `authenticated` or `anonymous`."""
        if text in {SubjectKind.AUTHENTICATED, SubjectKind.ANONYMOUS}:
            return cls(SubjectKind(text))
        kind, colon, name = text.rpartition(":")
        if colon and kind not in {SubjectKind.USER, SubjectKind.GROUP, SubjectKind.ROBOT}:
            raise SubjectInvalidError(
                f"{text[:80]!r} is nobody: a user's name, group:NAME, robot:NAME, authenticated "
                "or anonymous"
            )
        return cls(SubjectKind(kind or "user"), parse_account_name(name))

    def __str__(self) -> str:
        if self.kind is SubjectKind.USER:
            return self.name
        return f"{self.kind.value}:{self.name}" if self.name else self.kind.value


EVERYBODY = Subject(SubjectKind.ANONYMOUS)
SIGNED_IN = Subject(SubjectKind.AUTHENTICATED)
