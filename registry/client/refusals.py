"""Refusals of an upstream: statuses other than those of success."""

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from registry import clock
from registry.client.response import Headers, Response
from registry.errors import (
    UpstreamDeniedError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimitedError,
    UpstreamUnavailableError,
    UpstreamUnknownError,
)

_MOST_TEXT = 4096
_LIMIT = re.compile(r"([0-9]{1,9})(?:;w=([0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A quota of pulls: `remaining` of `limit` in a window of `window_s` seconds (0: unknown)."""

    limit: int
    remaining: int
    window_s: int


def parse_rate_limit(headers: Headers) -> RateLimit | None:
    """Return the quota in the headers of Docker Hub, such as `ratelimit-limit: 100;w=21600`."""
    limit = _LIMIT.fullmatch(headers.get("RateLimit-Limit"))
    remaining = _LIMIT.fullmatch(headers.get("RateLimit-Remaining"))
    if limit is None or remaining is None:
        return None
    return RateLimit(int(limit[1]), int(remaining[1]), int(limit[2] or 0))


def parse_retry_after(headers: Headers) -> float:
    """Return the seconds in a Retry-After header; 0 if there is none or it is invalid."""
    text = headers.get("Retry-After")
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - clock.now_us() / 1e6)
    except (ValueError, OverflowError):
        return 0.0


async def read_refusal(response: Response) -> UpstreamError:
    """Return the error for a response that is no success.

    Its message contains no text of the upstream.
    """
    status, where = response.status, response.where
    match status:
        case 401 | 403:
            return UpstreamDeniedError(f"{where} denies access (status {status})")
        case 404:
            return UpstreamUnknownError(f"{where} does not have it (status 404)")
        case 429:
            return await _read_limit(response)
        case 408 | 500 | 502 | 503 | 504:
            return UpstreamUnavailableError(
                f"{where} returned status {status}", parse_retry_after(response.headers)
            )
        case _:
            return UpstreamProtocolError(f"{where} returned status {status}")


async def _read_limit(response: Response) -> UpstreamRateLimitedError:
    quota = parse_rate_limit(response.headers)
    # Docker Hub explains a reached pull limit in the body; its limit of all requests is a bare 429.
    text = (await response.read_start(_MOST_TEXT)).lower()
    is_pull_limit = b"pull rate limit" in text or (quota is not None and not quota.remaining)
    reason = "the pull limit is reached" if is_pull_limit else "too many requests"
    return UpstreamRateLimitedError(
        f"{response.where} refuses requests: {reason} (status 429)",
        parse_retry_after(response.headers),
        is_pull_limit=is_pull_limit,
    )
