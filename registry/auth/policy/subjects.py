"""Subjects of grants: users, groups, robots, `authenticated` and `anonymous`."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from registry.errors import AccountNameInvalidError, SubjectInvalidError

ROBOT_SIGN_IN = "robot+"
"""The prefix of a robot's user name, at sign-in and in the audit log."""

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_LONGEST = 64
_USER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]*")
_LONGEST_USER_NAME = 254  # of an e-mail address (RFC 5321)
_RESERVED = {"anonymous", "authenticated", "operator", "oidc"}
_ACTORS = {
    *("gc", "retention", "scrub", "jobs", "worker", "mirror", "moving", "backup", "healing"),
    *("moorage", "registry", "system", "outside", "robot", "group", "user"),
}


def parse_account_name(text: str) -> str:
    """Return the name of a group or robot; raise AccountNameInvalidError.

    Lower-case letters and digits, with single `.`, `_` or `-` between them. Such a name is also a
    valid component of a repository name.
    """
    if not _NAME.fullmatch(text) or len(text) > _LONGEST:
        raise AccountNameInvalidError(
            f"invalid name {text[:80]!r}: use lowercase letters and digits, separated by "
            f"single '.', '_' or '-', at most {_LONGEST}"
        )
    return _require_free(text)


def parse_user_name(text: str) -> str:
    """Return the name of a user; raise AccountNameInvalidError.

    It may be an email address. Names that differ only in case belong to different users.
    """
    if not _USER_NAME.fullmatch(text) or len(text) > _LONGEST_USER_NAME:
        raise AccountNameInvalidError(
            f"invalid user name {text[:80]!r}: use letters, digits and '.', '_', '@', '+', "
            f"'-', beginning with a letter, a digit or '_', at most {_LONGEST_USER_NAME}"
        )
    if text.lower().startswith(ROBOT_SIGN_IN):
        raise AccountNameInvalidError(
            f"invalid user name {text[:80]!r}: such names are reserved for robots"
        )
    return _require_free(text)


def _require_free(name: str) -> str:
    # Case-insensitive, so that no user can pass for the registry itself in the audit log.
    if name.lower() in _RESERVED:
        raise AccountNameInvalidError(f"the name {name!r} is reserved by the registry")
    return name


def parse_new_user_name(text: str) -> str:
    """Return the name of a user to add.

    Raises AccountNameInvalidError, also for the names that the audit log and the change feed use
    for the registry's own work.
    """
    name = parse_user_name(text)
    if name.lower() in _ACTORS:
        raise AccountNameInvalidError(
            f"the name {text!r} is reserved: the audit log uses it for the registry's own actions"
        )
    return name


class SubjectKind(StrEnum):
    """The kind of a subject. The value is the prefix before the colon, if the subject has one."""

    USER = "user"
    GROUP = "group"
    ROBOT = "robot"
    # `authenticated` is every signed-in caller, `anonymous` is every caller.
    AUTHENTICATED = "authenticated"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of a grant. `name` is empty for `authenticated` and `anonymous`."""

    kind: SubjectKind
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `alice`, `group:devs`, `robot:ci`, `authenticated` or `anonymous`."""
        if text in {SubjectKind.AUTHENTICATED, SubjectKind.ANONYMOUS}:
            return cls(SubjectKind(text))
        kind, colon, name = text.rpartition(":")
        if colon and kind not in {SubjectKind.USER, SubjectKind.GROUP, SubjectKind.ROBOT}:
            raise SubjectInvalidError(
                f"invalid subject {text[:80]!r}: use a user name, group:NAME, robot:NAME, "
                "authenticated or anonymous"
            )
        read = SubjectKind(kind or "user")
        return cls(
            read, (parse_user_name if read is SubjectKind.USER else parse_account_name)(name)
        )

    def __str__(self) -> str:
        if self.kind is SubjectKind.USER:
            return self.name
        return f"{self.kind.value}:{self.name}" if self.name else self.kind.value


ANONYMOUS = Subject(SubjectKind.ANONYMOUS)
AUTHENTICATED = Subject(SubjectKind.AUTHENTICATED)
