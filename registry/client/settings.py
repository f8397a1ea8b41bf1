"""Settings of the upstream registry.

Every command imports this module, so it imports nothing slow.
"""

from dataclasses import dataclass, field
from typing import Annotated

from registry.units import Flag, Origins, Secret, Text, Url


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """`[upstream]`: a registry with the same repositories, from which damaged blobs are healed."""

    url: Annotated[
        Url, "URL of the registry. A path is prepended to repository names. Empty: none."
    ] = ""
    username: Annotated[Text, "User name for the registry. Empty: anonymous."] = ""
    password: Annotated[Secret, "Password or token for the user name."] = field(
        default="", repr=False
    )
    credential_helper: Annotated[
        Text, "Docker credential helper instead of a password, such as `ecr-login`."
    ] = ""
    token_origins: Annotated[
        Origins, "Origins of token servers that get the credentials, other than that of the URL."
    ] = ()
    proxy: Annotated[Secret, "URL of an HTTP proxy. Empty: none."] = field(default="", repr=False)
    allow_private_addresses: Annotated[
        Flag, "Allow private addresses of the registry, and http to them."
    ] = False
    ca_file: Annotated[
        Text,
        "PEM file with additional certificate authorities, relative to the data directory.",
    ] = ""
