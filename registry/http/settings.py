"""Settings of HTTP front ends. Every command imports this module, so it imports nothing slow."""

from dataclasses import dataclass
from typing import Annotated

from registry.auth.settings import AuthSettings
from registry.services.content.settings import ContentSettings
from registry.units import (
    Count,
    Duration,
    ExternalUrl,
    Flag,
    Limit,
    Listen,
    Networks,
    OptionalListen,
    Origins,
    Size,
    Text,
    Timeout,
    is_loopback,
    parse_endpoint,
    parse_unix,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """`[http]`: listeners, TLS and connections."""

    listen: Annotated[
        Listen, "Address to serve on. Without a host: all addresses. Port 0: any free port."
    ] = "127.0.0.1:5000"
    ops_listen: Annotated[
        OptionalListen, "Second address, plain HTTP, for health checks and metrics. Empty: none."
    ] = ""
    workers: Annotated[Count, "Number of processes that serve requests."] = 1
    external_url: Annotated[
        ExternalUrl, "URL of the registry for clients. Empty: taken from each request."
    ] = ""
    cors_origins: Annotated[
        Origins, "Origins of web pages that may use the registry. `*`: all, without credentials."
    ] = ()
    trusted_proxies: Annotated[
        Networks, "Proxies that are trusted to report the client's address and scheme."
    ] = ()
    tls_cert: Annotated[
        Text,
        "PEM file with the certificate and its chain, relative to the data directory. "
        "Empty: no TLS.",
    ] = ""
    tls_key: Annotated[
        Text, "PEM file with the key of the certificate, relative to the data directory."
    ] = ""
    tls_client_ca: Annotated[
        Text,
        "PEM file with the authorities of client certificates, relative to the data directory. "
        "Empty: clients need none.",
    ] = ""
    shutdown_delay: Annotated[
        Duration, "How long a stopping server accepts requests while `/readyz` returns 503."
    ] = 0.0
    drain_timeout: Annotated[
        Duration, "How long a stopping server waits for requests in progress."
    ] = 30.0
    body_idle_timeout: Annotated[Timeout, "How long a request body may deliver no data."] = 30.0
    answer_from_memory: Annotated[
        Flag, "Repeat responses from memory while nothing they depend on has changed."
    ] = True
    keep_alive_timeout: Annotated[
        Timeout, "How long an idle connection stays open. Longer than that of a proxy in front."
    ] = 75.0

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`.

        The host has no brackets and is empty for all addresses. A Unix socket counts as localhost,
        because only this machine can connect to it.
        """
        return ("localhost", 0) if parse_unix(self.listen) else parse_endpoint(self.listen)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the registry."""
        return is_loopback(self.address[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSettings:
    """`[limits]`: limits on requests, connections and memory."""

    page_size: Annotated[
        Count, "Number of entries on a page of tags or repositories if the request names none."
    ] = 10_000
    max_page_size: Annotated[Count, "Maximum number of entries on a page."] = 10_000
    connections: Annotated[Count, "Maximum number of open connections of a process."] = 8192
    connections_per_address: Annotated[
        Limit, "Maximum number of open connections of a process from one client address."
    ] = 2048
    requests_per_second: Annotated[
        Limit, "Maximum number of requests per second, from an address and of a principal."
    ] = 0
    failed_sign_ins: Annotated[
        Limit,
        "Maximum number of failed sign-ins in five minutes, to an account from an address.",
    ] = 30
    uploads_per_minute: Annotated[
        Limit, "Maximum number of uploads started per minute, from an address and by a principal."
    ] = 0
    manifest_cache_size: Annotated[
        Size, "Memory of a process for recently requested manifests and responses."
    ] = 64 << 20
    request_memory: Annotated[
        Size, "Memory of a process for request bodies above 16 KiB that are read as a whole."
    ] = 32 << 20
    response_memory: Annotated[
        Size, "Memory of a process for manifests and pages of referrers while they are sent."
    ] = 32 << 20
    open_uploads: Annotated[Limit, "Maximum number of open upload sessions of a principal."] = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """The sections that HTTP front ends use. `log_probes` is `log.probes`."""

    http: HttpSettings
    limits: LimitsSettings
    content: ContentSettings
    auth: AuthSettings
    log_probes: bool
