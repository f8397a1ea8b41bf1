"""`moorage serve`: run the registry."""

import argparse
import atexit
import gc
import logging
import os
import shutil
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

from registry import logs
from registry.auth.rules import HOW_TO_HIDE
from registry.cli import db, output
from registry.cli.settings import load_settings
from registry.cli.tls import TlsContext, TlsFiles
from registry.cli.workers import Supervisor
from registry.config import Settings, is_readable, require_safe_listen
from registry.errors import ConfigError
from registry.folder import DataFolder
from registry.server.descriptors import fit_connections, raise_limit
from registry.server.limits import ServerLimits

logger = logging.getLogger(__name__)

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
    if exposure := folder.find_exposure():
        logger.warning("%s", exposure)
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
    named = urlsplit(settings.http.external_url)
    if named.path:
        # No reference of an image can say where it is: clients put /v2/ first.
        output.write(f"Clients reach it at {settings.http.external_url}")
        return
    host = named.netloc or f"localhost:{port}"
    output.write("To push an image:")
    output.write(f"  docker tag IMAGE {host}/IMAGE")
    output.write(f"  docker push {host}/IMAGE")


def _find_limits(settings: Settings) -> ServerLimits:
    """The limits of a process, with no more connections than its descriptors allow."""
    wanted, descriptors = settings.limits.connections, raise_limit()
    fitting = fit_connections(descriptors)
    if fitting < wanted:
        logger.warning(
            "%d connections are accepted, not %d: the limit of open files is %d."
            " Raise it (LimitNOFILE, ulimit -n) or lower limits.connections",
            fitting,
            wanted,
            descriptors,
        )
    return ServerLimits(
        connections=min(wanted, fitting),
        per_address=settings.limits.connections_per_address,
        trusted_proxies=settings.http.trusted_proxies,
        keep_alive=settings.http.keep_alive,
    )


def _work(settings: Settings, sockets: list[socket.socket], tls: TlsContext | None) -> int:
    """Serve until told to stop; the exit status."""
    # After the metrics were shared.
    from registry.app import asgi, compose  # noqa: PLC0415
    from registry.server.server import Server  # noqa: PLC0415

    opened = compose(settings)
    health = opened.registry.health

    def on_stop() -> None:
        health.draining = True

    server = Server(
        asgi(settings, opened),
        _find_limits(settings),
        drain=settings.http.drain,
        stop_delay=settings.http.stop_delay,
        tls=tls,
        background=tls.watch if tls else None,
        on_stop=on_stop,
    )
    # uvicorn raises the signal once more when it is done; by then it has been obeyed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run(sockets)
    return 0 if server.started else 1
