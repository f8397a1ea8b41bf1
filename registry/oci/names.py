"""Repository names, the `<name>` of every path under `/v2/`.

Source: OCI distribution-spec, section Pulling manifests.
"""

import re
from dataclasses import dataclass
from typing import Self

from registry.errors import NameInvalidError

MAX_LENGTH = 255

# Each choice is determined by the next character and the repetitions are possessive, so that no
# text makes matching slow.
_COMPONENT = r"[a-z0-9]++(?:(?:\.|_{1,2}+|-++)[a-z0-9]++)*+"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*+")


@dataclass(frozen=True, slots=True, order=True)
class RepositoryName:
    """A repository name, such as `team/app`. Untrusted text must go through `parse`."""

    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        if len(text) > MAX_LENGTH:
            raise NameInvalidError(f"a repository name must not exceed {MAX_LENGTH} characters")
        if not _NAME.fullmatch(text):
            raise NameInvalidError(
                f"invalid repository name {text!a}: use lowercase letters and digits, "
                "joined by one '.', one or two '_' or any number of '-', in components "
                "separated by '/'"
            )
        return cls(text)

    def __str__(self) -> str:
        return self.value


def is_repository_name(text: str) -> bool:
    """Return whether a text can be a repository name, or the first components of one."""
    return len(text) <= MAX_LENGTH and _NAME.fullmatch(text) is not None


def list_patterns(name: str) -> list[str]:
    """Return all patterns that match the repository, as `registry.auth.policy.patterns` does."""
    patterns = [name, "**"]
    parent, _, _ = name.rpartition("/")
    patterns.append(f"{parent}/*" if parent else "*")
    while parent:
        patterns.append(f"{parent}/**")
        parent, _, _ = parent.rpartition("/")
    return patterns
