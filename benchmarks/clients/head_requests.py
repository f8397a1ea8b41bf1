"""Rates of HEAD requests. wrk cannot send them: it waits for the body that Content-Length names."""

import contextlib
import selectors
import socket
import time

from benchmarks.clients.wrk import LoadError, Rate

END = b"\r\n\r\n"
SILENCE_S = 30.0


def run_heads(
    port: int,
    target: str,
    *,
    seconds: float,
    connections: int = 16,
    headers: dict[str, str] | None = None,
) -> Rate:
    """Send HEAD requests on many connections, one at a time on each, and count the responses."""
    lines = [f"HEAD {target} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    request = "\r\n".join([*lines, "", ""]).encode()
    latencies: list[float] = []
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.EpollSelector())
        sockets = {}
        for _ in range(connections):
            each = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(each, selectors.EVENT_READ)
            sockets[each.fileno()] = each
        now = time.perf_counter
        begun = now()
        sent = {}
        for fd, each in sockets.items():
            sent[fd] = now()
            each.send(request)
        end = begun + seconds
        while now() < end:
            ready = selector.select(SILENCE_S)
            if not ready:
                raise LoadError(f"no response within {SILENCE_S:.0f} s")
            for key, _ in ready:
                fd = key.fd
                each = sockets[fd]
                response = each.recv(65536)
                if not (response.startswith(b"HTTP/1.1 200") and response.endswith(END)):
                    raise LoadError(f"unexpected response: {response[:200]!r}")
                at = now()
                latencies.append(at - sent[fd])
                sent[fd] = at
                each.send(request)
        took = now() - begun
    if not latencies:
        raise LoadError("no response")
    latencies.sort()
    return Rate(
        len(latencies),
        took,
        latencies[len(latencies) // 2] * 1000,
        latencies[len(latencies) * 99 // 100] * 1000,
    )
