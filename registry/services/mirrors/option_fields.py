"""The options of a mirror, with their use, apart from their types.

The help of the command line imports this module, so it imports nothing slow.
"""

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """The kind of the values of an option."""

    TEXT = auto()
    TEXTS = auto()
    DURATION = auto()
    COUNT = auto()
    SIZE = auto()
    FLAG = auto()


@dataclass(frozen=True, slots=True)
class OptionField:
    """An option of a mirror. `given_option` is its name, if it is not that of the field."""

    name: str
    kind: Kind
    description: str
    metavar: str = ""
    given_option: str = ""

    @property
    def option(self) -> str:
        """The option of `moorage mirror add`."""
        return self.given_option or "--" + self.name.replace("_", "-")


_ALL = (
    OptionField(
        "hosts",
        Kind.TEXTS,
        "Hosts of registries whose images this mirror has, with the port if it is not 443.",
        "HOST",
        "--host",
    ),
    OptionField("username", Kind.TEXT, "User name at the upstream.", "NAME"),
    OptionField(
        "password_file",
        Kind.TEXT,
        "File with the password, relative to the data directory. It is read again when it changes.",
        "FILE",
    ),
    OptionField(
        "credential_helper",
        Kind.TEXT,
        "Program that returns the credentials: `ecr-login` runs docker-credential-ecr-login.",
        "NAME",
    ),
    OptionField(
        "token_origins",
        Kind.TEXTS,
        "Token servers on other origins that may get the credentials.",
        "URL",
        "--token-origin",
    ),
    OptionField(
        "fallback_upstreams",
        Kind.TEXTS,
        "URLs of registries with the same content, used anonymously while the upstream is down.",
        "URL",
        "--fallback-upstream",
    ),
    OptionField("allow", Kind.TEXTS, "Mirror only upstream repositories that match.", "PATTERN"),
    OptionField("deny", Kind.TEXTS, "Do not mirror upstream repositories that match.", "PATTERN"),
    OptionField(
        "tag_ttl",
        Kind.DURATION,
        "Time for which a tag is served without asking the upstream: a duration or `forever`.",
        "DURATION",
    ),
    OptionField(
        "negative_ttl",
        Kind.DURATION,
        "Time for which something unknown upstream is not asked for again.",
        "DURATION",
    ),
    OptionField(
        "stale_for",
        Kind.DURATION,
        "Time for which tags are served without the upstream if it fails: a duration or `forever`.",
        "DURATION",
    ),
    OptionField(
        "cooldown",
        Kind.DURATION,
        "Time for which a new digest of a tag is held back: a duration such as `3d`.",
        "DURATION",
    ),
    OptionField(
        "serve_new_tags",
        Kind.FLAG,
        "Serve the first digest that is seen for a tag at once, in spite of the cooldown.",
    ),
    OptionField(
        "max_size",
        Kind.SIZE,
        "Size above which the images that were not pulled for the longest time are evicted.",
        "SIZE",
    ),
    OptionField(
        "max_age",
        Kind.DURATION,
        "Time after which an image that is not pulled is evicted: a duration or `forever`.",
        "DURATION",
    ),
    OptionField(
        "max_connections", Kind.COUNT, "Maximum number of connections to the upstream.", "N"
    ),
    OptionField(
        "rate",
        Kind.SIZE,
        "Maximum bytes of blobs per second from the upstream, of each process.",
        "SIZE",
    ),
    OptionField(
        "platforms",
        Kind.TEXTS,
        "Platforms that syncs copy of an image for several, such as linux/amd64.",
        "PLATFORM",
        "--platform",
    ),
    OptionField("http_proxy", Kind.TEXT, "Proxy for requests to the upstream.", "URL"),
    OptionField(
        "ca_file",
        Kind.TEXT,
        "Additional certificate authorities (PEM), relative to the data directory.",
        "FILE",
        "--upstream-ca-file",
    ),
    OptionField(
        "allow_private",
        Kind.FLAG,
        "Allow private addresses of the upstream, and http to them.",
    ),
)

FIELDS = {field.name: field for field in _ALL}
"""The fields of `MirrorOptions` by name."""
