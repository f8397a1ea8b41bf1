"""The state of a mirror in this server: what its cache was good for, and how its upstream does."""

from collections import Counter
from dataclasses import dataclass

from registry import metrics
from registry.services.mirrors.upstreams import Failure, Upstreams


@dataclass(frozen=True, slots=True)
class MirrorState:
    """Counts since the server was started, and the last state of the upstream.

    `results` has the requests by result. None stands for what is not known: `is_up` before the
    first request to the upstream, and the quota if the upstream states none.
    """

    results: dict[str, int]
    received_bytes: int
    sent_bytes: int
    is_up: bool | None
    failure: Failure | None
    quota_limit: int | None
    quota_remaining: int | None


def find_state(upstreams: Upstreams, name: str) -> MirrorState:
    """Return the state of a mirror in all workers of this server.

    The last error is that of the worker that answers.
    """
    values: Counter[str] = Counter()
    results: Counter[str] = Counter()
    for sample in metrics.list_samples(mirror=name):
        if sample.name == "moorage_mirror_requests_total":
            results[sample.labels["result"]] += int(sample.value)
        else:
            values[sample.name] += int(sample.value)

    def find(metric: str) -> int | None:
        return values.get(f"moorage_mirror_{metric}")

    up = find("upstream_up")
    return MirrorState(
        dict(results),
        find("received_bytes_total") or 0,
        find("sent_bytes_total") or 0,
        None if up is None else up > 0,
        upstreams.find_failure(name),
        find("quota_limit"),
        find("quota_remaining"),
    )
