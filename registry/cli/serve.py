"""`moorage serve`: run the registry."""

import argparse
import asyncio
import atexit
import gc
import logging
import os
import shutil
import signal
import socket
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from registry import logs
from registry.auth.rules import HOW_TO_HIDE
from registry.cli import db, output
from registry.cli.settings import load_settings
from registry.cli.tls import TlsContext, TlsFiles
from registry.cli.workers import Supervisor
from registry.config import Settings, is_readable, require_safe_listen
from registry.errors import ConfigError
from registry.folder import DataFolder

if TYPE_CHECKING:
    from registry.services.health import Health

logger = logging.getLogger(__name__)

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than proxies keep theirs."""

LINGER = 1.0
"""Seconds for which a server that stops goes on to answer on connections that are open."""

_BACKLOG = 2048


def serve(args: argparse.Namespace) -> int:
    options = {"http.listen": args.listen, "http.workers": args.workers}
    settings = load_settings(args, {k: v for k, v in options.items() if v is not None})
    logs.configure(settings.log.format, settings.log.level, access=settings.log.access)
    require_safe_listen(settings, lambda: db.has_users(settings))
    if is_readable(settings):
        listen = settings.http.listen
        logger.warning("%s is served without TLS to other machines: %s", listen, HOW_TO_HIDE)
    tls = _load_tls(settings)
    sockets = _bind(settings.http.listen)
    folder = DataFolder(settings.data)
    folder.create()
    db.make_usable(settings, folder)
    _greet(settings, sockets)
    if settings.http.workers == 1:
        return _work(settings, sockets, tls)
    _share_metrics(settings.data)
    from registry import app  # noqa: F401, PLC0415 - loaded once, shared by the workers

    gc.freeze()

    def close_sockets() -> None:
        # While the parent has them open, the kernel takes connections that nobody will answer.
        for bound in sockets:
            bound.close()

    supervisor = Supervisor(
        settings.http.workers,
        lambda: _work(settings, sockets, tls),
        drain=settings.http.stop_delay + settings.http.drain,
        at_stop=close_sockets,
    )
    return supervisor.run()


def _share_metrics(data: Path) -> None:
    """Let the workers count in files, so that whichever is asked can add all of them up."""
    for left in data.glob("metrics-*"):
        if not Path("/proc", left.name.removeprefix("metrics-")).exists():
            shutil.rmtree(left)
    owner = os.getpid()
    folder = data / f"metrics-{owner}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # prometheus_client takes this from the environment alone, when it is imported.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # noqa: TID251

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder)

    atexit.register(remove)


def _load_tls(settings: Settings) -> TlsContext | None:
    """The certificate to serve with, if there is to be one; ConfigError."""
    http, data = settings.http, settings.data
    if not http.tls_cert:
        return None
    client_ca = data / http.tls_client_ca if http.tls_client_ca else None
    return TlsContext(TlsFiles(data / http.tls_cert, data / http.tls_key, client_ca))


def _bind(listen: str) -> list[socket.socket]:
    """Listening sockets for `HOST:PORT`; an empty host means all addresses. ConfigError."""
    host, _, port_text = listen.rpartition(":")
    port = int(port_text)
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in found:
            bound = socket.socket(family, kind, protocol)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address[0], port, *address[2:]))
            bound.listen(_BACKLOG)
            bound.setblocking(False)
            bound.set_inheritable(True)
            port = bound.getsockname()[1]  # the same for every address where it was 0
            sockets.append(bound)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {listen} ({error.strerror}); is something else using port {port}? "
            "Choose another with --listen HOST:PORT"
        ) from error
    return sockets


def _greet(settings: Settings, sockets: list[socket.socket]) -> None:
    port = sockets[0].getsockname()[1]
    scheme = "https" if settings.http.tls_cert else "http"
    for bound in sockets:
        host = bound.getsockname()[0]
        shown = f"[{host}]" if ":" in host else host
        output.write(f"Moorage listens on {scheme}://{shown}:{port}")
    output.write(f"Data lies in {settings.data.resolve()}")
    _, _, named = settings.http.external_url.partition("://")
    host = named or f"localhost:{port}"
    output.write("To push an image:")
    output.write(f"  docker tag IMAGE {host}/IMAGE")
    output.write(f"  docker push {host}/IMAGE")


class _Server(uvicorn.Server):
    """A server that watches its certificate, and says it is draining before it stops listening."""

    health: "Health"
    tls: TlsContext | None
    stop_delay: float

    async def main_loop(self) -> None:
        watching = asyncio.create_task(self.tls.watch()) if self.tls else None
        await super().main_loop()
        # From now on every connection is of one request more: who is told so sends no other.
        self.server_state.default_headers += [(b"connection", b"close")]
        await asyncio.sleep(self.stop_delay)
        if watching:
            watching.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no connections, end those that are in use after their next answers, and only then
        those that are idle: a proxy may be sending on one at the very moment at which it is closed,
        and must not repeat a body of which a part was sent.
        """
        for listener in self.servers:
            listener.close()
        until = time.monotonic() + LINGER
        while self.server_state.connections and time.monotonic() < until:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.health.draining = True
        if sig == signal.SIGINT:
            self.stop_delay = 0  # a person at a terminal waits
        super().handle_exit(sig, frame)


def _work(settings: Settings, sockets: list[socket.socket], tls: TlsContext | None) -> int:
    """Serve until told to stop; the exit status."""
    from registry.app import asgi, compose  # noqa: PLC0415 - after the metrics were shared

    opened = compose(settings)
    config = uvicorn.Config(
        asgi(settings, opened),
        http="httptools",
        ws="none",
        loop="registry.cli.tls:TlsLoop" if tls else "asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # registry.api.proxies reads them
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(settings.http.drain)),
        ssl_context_factory=(lambda *_: tls) if tls else None,
    )
    server = _Server(config)
    server.tls = tls
    server.stop_delay = settings.http.stop_delay
    server.health = opened.registry.health
    # uvicorn raises the signal once more when it is done; by then it has been obeyed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run(sockets)
    return 0 if server.started else 1
