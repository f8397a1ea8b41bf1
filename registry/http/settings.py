"""The settings of the API."""

from dataclasses import dataclass

from registry.units import Network


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The settings of the API.

    - `body_idle` is in seconds; `page` and `page_max` are entries of a list.
    - `large_bodies` and `large_answers` are the bytes that requests and responses may use at once.
    - `requests` per second and `uploads` started per minute are limits for each address and each
      principal; 0 means no limit.
    - `local`: only this machine can reach the registry.
    - `cors_origins`: the origins of pages that may use it, or `*`.
    - `realm` is the URL of another token server, and `realm_service` its service.
    - `metrics` is false if the metrics have their own listener.
    - `log_probes` is `log.probes`.
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
