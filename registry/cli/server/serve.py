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
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from uvicorn.config import STARTUP_FAILURE

from registry import logs
from registry.auth.settings import TLS_REMEDY
from registry.cli.kit import database, output
from registry.cli.kit.error_report import report
from registry.cli.kit.options import find_folder, start_logging
from registry.cli.server import checks, listening
from registry.cli.server.supervisor import Supervisor
from registry.cli.server.tls import TlsContext, load_tls
from registry.config import Settings, require_safe_listen, sends_passwords_in_clear
from registry.data_dir import DataDirectory
from registry.log_writer import WRITER
from registry.server.descriptors import fit_connections, raise_limit
from registry.server.limits import ServerLimits

logger = logging.getLogger(__name__)


def serve(args: argparse.Namespace) -> int:
    # Uploads must survive the end of the terminal, and a SIGHUP that is meant to reload settings.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    options = {"http.listen": args.listen, "http.workers": args.workers}
    settings = start_logging(args, {k: v for k, v in options.items() if v is not None})
    checks.require_files(settings)
    if database.is_embedded(settings):  # check this before creating anything
        require_safe_listen(settings, lambda: database.has_users(settings))
    if sends_passwords_in_clear(settings):
        listen = settings.http.listen
        logger.warning("%s is served without TLS to other machines: %s", listen, TLS_REMEDY)
    tls = load_tls(settings)
    sockets = listening.bind(settings.http.listen, "--listen")
    ops = (
        listening.bind(settings.http.ops_listen, "http.ops_listen")
        if settings.http.ops_listen
        else []
    )
    folder = find_folder(settings)
    folder.create()
    if exposure := folder.find_exposure():
        logger.warning("%s", exposure)
    try:
        return _serve(settings, _Sockets(sockets, ops), tls, folder)
    finally:
        for listen in (settings.http.listen, settings.http.ops_listen):
            listening.remove(listen)


@dataclass(frozen=True, slots=True)
class _Sockets:
    """Listening sockets of a server."""

    public: list[socket.socket]
    ops: list[socket.socket]
    """Sockets for health checks and metrics."""

    def close(self) -> None:
        # While the parent keeps them open, the kernel accepts connections that nobody answers.
        for bound in (*self.public, *self.ops):
            bound.close()


def _serve(
    settings: Settings, sockets: _Sockets, tls: TlsContext | None, folder: DataDirectory
) -> int:
    is_single = settings.http.workers == 1
    if not is_single:
        _share_metrics(settings.data)
    open_mode = _OpenModeCheck(settings)
    _try_start(settings, folder, open_mode)
    _greet(settings, sockets.public)
    if is_single:
        return min(_work(settings, sockets, tls, folder, open_mode), 1)
    _load_worker()
    _stop_visiting_modules()
    supervisor = Supervisor(
        settings.http.workers,
        lambda: _work(settings, sockets, tls, folder, open_mode),
        drain=settings.http.shutdown_delay + settings.http.drain_timeout,
        at_stop=sockets.close,
    )
    return supervisor.run()


class _OpenModeCheck:
    """Check that warns, one time, if the registry has users but `auth.mode` is `none`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._done = settings.auth.mode != "none"

    def warn(self) -> None:
        if self._done:
            return
        if database.has_users(self._settings):
            logger.warning(
                'there are users, but auth.mode = "none": everyone who can reach %s may push and'
                " delete without signing in; remove auth.mode to require sign-in",
                self._settings.http.listen,
            )
        self._done = True


def _try_start(settings: Settings, folder: DataDirectory, open_mode: _OpenModeCheck) -> None:
    """Open and close the registry once, so that errors are reported before the workers start.

    A database or store that does not answer is only logged, because the workers wait for it.
    """
    from registry.app import rehearse  # noqa: PLC0415 - after `_share_metrics`
    from registry.services.maintenance.startup import Startup  # noqa: PLC0415

    async def attempt() -> None:
        await asyncio.to_thread(database.prepare, settings, folder)
        await asyncio.to_thread(open_mode.warn)
        await rehearse(settings)

    asyncio.run(Startup({}).try_once(attempt))


def _load_worker() -> None:
    """Load the modules of a worker, so that all workers share their memory."""
    # Imported only after `_share_metrics` has set the environment.
    import registry.app.answers  # noqa: PLC0415
    import registry.app.asgi  # noqa: PLC0415
    import registry.server.server  # noqa: F401, PLC0415


def _stop_visiting_modules() -> None:
    """Let the garbage collector ignore all that is loaded, and start it.

    Collections are shorter, and workers do not copy the pages that they share.
    """
    gc.freeze()
    gc.enable()


def _share_metrics(data: Path) -> None:
    """Let the workers write metrics to files, so that any of them can report the sums."""
    for left in data.glob("metrics-*"):
        if not Path("/proc", left.name.removeprefix("metrics-")).exists():
            shutil.rmtree(left)
    owner = os.getpid()
    folder = data / f"metrics-{owner}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # prometheus_client reads this from the environment when it is imported.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # noqa: TID251

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder)

    atexit.register(remove)


def _greet(settings: Settings, sockets: list[socket.socket]) -> None:
    scheme = "https" if settings.http.tls_cert else "http"
    addresses = listening.list_addresses(sockets, scheme)
    if logs.is_json_only():
        logger.info("listening", extra={"addresses": addresses, "data": str(settings.data)})
        return
    for address in addresses:
        output.write(f"Moorage listens on {address}")
    output.write(f"Data directory: {settings.data.resolve()}")
    named = urlsplit(settings.http.external_url)
    if named.path:
        # An image reference cannot contain this path, because clients put /v2/ first.
        output.write(f"Clients connect to {settings.http.external_url}")
        output.flush()
        return
    _, _, port = addresses[0].rpartition(":")
    host = named.netloc or (f"localhost:{port}" if port.isdecimal() else "localhost")
    output.write("To push an image:")
    output.write(f"  docker tag IMAGE {host}/IMAGE")
    output.write(f"  docker push {host}/IMAGE")
    output.flush()  # otherwise a pipe or file gets the text only at the end


def _find_limits(settings: Settings) -> ServerLimits:
    """Return the limits of a process, with no more connections than its descriptors allow."""
    wanted, descriptors = settings.limits.connections, raise_limit()
    fitting = fit_connections(descriptors)
    if fitting < wanted:
        logger.warning(
            "only %d of %d connections are accepted: the limit of open files is %d."
            " Raise it (LimitNOFILE, ulimit -n) or lower limits.connections",
            fitting,
            wanted,
            descriptors,
        )
    # A proxy may strip the path of external_url or forward it.
    prefix = urlsplit(settings.http.external_url).path.encode()
    return ServerLimits(
        connections=min(wanted, fitting),
        per_address=settings.limits.connections_per_address,
        trusted_proxies=settings.http.trusted_proxies,
        keep_alive=settings.http.keep_alive_timeout,
        long_query_paths=(b"/token", prefix + b"/token"),
    )


COLLECT_AFTER = 5000
"""New objects after which the garbage collector of Python runs. Its default is 700."""


def collect_less_often() -> None:
    """Let the garbage collector of Python run less often, and skip all objects that exist now.

    Requests leave almost no cycles, and the collector took 5 % of the time of the event loop.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


def _work(
    settings: Settings,
    sockets: _Sockets,
    tls: TlsContext | None,
    folder: DataDirectory,
    open_mode: _OpenModeCheck,
) -> int:
    """Serve until a signal stops the process, and return the exit status."""
    # Imported only after `_share_metrics` has set the environment.
    from registry import metrics  # noqa: PLC0415
    from registry.app import compose  # noqa: PLC0415
    from registry.app.answers import find_answers_room  # noqa: PLC0415
    from registry.app.asgi import StartRules, create_app, ops_asgi  # noqa: PLC0415
    from registry.server.answers import Answers  # noqa: PLC0415
    from registry.server.server import Server  # noqa: PLC0415

    # Not before the fork: a thread does not survive it.
    WRITER.start(metrics.LOG_LINES_DROPPED.inc)
    opened = compose(settings)
    collect_less_often()
    health = opened.registry.health
    failures: list[Exception] = []

    def on_stop() -> None:
        health.draining = True

    def prepare() -> None:
        if not database.is_embedded(settings):  # an embedded database was prepared before the fork
            database.prepare(settings, folder)
            open_mode.warn()

    def fail(error: Exception) -> None:
        report(error)
        failures.append(error)
        server.end()

    room = find_answers_room(settings)
    server = Server(
        create_app(settings, opened, StartRules(prepare, fail)),
        _find_limits(settings),
        drain=settings.http.drain_timeout,
        stop_delay=settings.http.shutdown_delay,
        tls=tls,
        background=tls.watch if tls else None,
        on_stop=on_stop,
        ops_app=ops_asgi(settings, opened),
        ops_sockets=sockets.ops,
        answers=Answers(opened.watch, room, settings.http.trusted_proxies) if room else None,
    )
    _stop_visiting_modules()
    # uvicorn handles these signals only while it runs. One that arrives before must stop it too;
    # one that arrives after, as those that uvicorn raises again at its end, changes nothing.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    server.run(sockets.public)
    return 0 if server.started and not failures else STARTUP_FAILURE
