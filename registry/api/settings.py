"""What the API is told."""

from dataclasses import dataclass

from registry.units import Network


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """`body_idle` in seconds; `page` and `page_max` in entries of a list.

    `large_bodies` and `large_answers` are the bytes that requests and answers may hold at once.
    `requests` per second and `uploads` begun per minute, of an address and of a principal, 0 for
    any number. `local`: only this machine reaches the registry. `cors_origins`: origins of pages
    that may use it, or `*`. `realm` is where tokens are to be had, if not here, for
    `realm_service`. `metrics` is false where they have a listener of their own; `log_probes` as
    `log.probes`.
    """

    body_idle: float = 30.0
    page: int = 10_000
    page_max: int = 10_000
    delete: bool = True
    read_only: bool = False
    external_url: str = ""
    local: bool = True
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    requests: int = 0
    uploads: int = 0
    large_bodies: int = 32 << 20
    large_answers: int = 32 << 20
    realm: str = ""
    realm_service: str = ""
    metrics: bool = True
    log_probes: bool = True
