"""Process that has imported Moorage, and forks a copy of itself for each command.

Importing takes a second of processor time, and a fork some milliseconds. Started by
`tests.support.servers.launcher`; the first argument is the number of its socket.

prometheus_client chooses how workers share values when it is imported. So servers with several
workers are copies of another process than all else, started with PROMETHEUS_MULTIPROC_DIR.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from prometheus_client.values import MutexValue, ValueClass

import registry
import storage

REQUEST_SIZE = 1 << 17


def load() -> None:
    """Import all modules that a command can need."""
    for package in (registry, storage):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.startswith("registry.migrations"):
                importlib.import_module(found.name)
    for name in ("boto3", "botocore.session", "sqlite3", "sqlalchemy.dialects.sqlite"):
        importlib.import_module(name)
    with contextlib.suppress(ImportError):
        importlib.import_module("psycopg")
    close_metric_files()
    # Collections in a copy would write to all pages.
    gc.collect()
    gc.freeze()


def close_metric_files() -> None:
    """Close the files of the metrics, whose numbers a copy gives to others.

    A copy opens its own ones when it first counts, in the PROMETHEUS_MULTIPROC_DIR of that moment.
    """
    if ValueClass is MutexValue:  # the metrics are for servers with one process
        return
    check: Any = getattr(ValueClass, f"_{ValueClass.__name__}__check_for_pid_change")
    files = dict(zip(check.__code__.co_freevars, check.__closure__, strict=True))["files"]
    for file in files.cell_contents.values():
        file.close()
    files.cell_contents.clear()


def serve(channel: socket.socket) -> bool:
    """Fork until the socket is closed. Return True in each copy that has to run a command."""
    while True:
        raw, descriptors, _, _ = socket.recv_fds(channel, REQUEST_SIZE, 3)
        if not raw:
            return False
        # The copy is the child of a child that ends, so that the launcher becomes its parent.
        between = os.fork()
        if between == 0:
            pid = os.fork()
            if pid == 0:
                become(json.loads(raw), descriptors)
                return True
            channel.send(str(pid).encode())
            os._exit(0)
        os.waitpid(between, 0)
        channel.send(b"done")
        for descriptor in descriptors:
            os.close(descriptor)


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Make this process look like a new one: streams, session, folder, environment, arguments.

    As a new interpreter does, it runs the `sitecustomize.py` of a folder in PYTHONPATH, by which
    tests break calls.
    """
    if request["session"]:
        os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(len(descriptors), os.sysconf("SC_OPEN_MAX"))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    # As a new interpreter does. Processes in the background start with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["moorage", *request["arguments"]]
    # Buffered by lines where a person reads, as in a new interpreter.
    lines = 1 if os.isatty(1) else -1
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = open(1, "w", lines, "utf-8")  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", 1, "utf-8", "backslashreplace"
    )
    for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        patch = Path(folder, "sitecustomize.py")
        if folder and patch.is_file():
            exec(compile(patch.read_text(), patch, "exec"), {})  # noqa: S102


def run_command() -> NoReturn:
    """Run the command. Wait for the threads as a new interpreter does, but free no memory.

    Freeing what the parent has imported would copy most pages, which takes 70 ms of processor time.
    `multiprocessing` ends its processes in the same way.
    """
    try:
        status: int = importlib.import_module("registry.cli.main").main()
    except SystemExit as error:  # of --help, --version and wrong usage
        if not isinstance(error.code, int):
            raise
        status = error.code
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    load()
    of_launcher = socket.socket(fileno=int(sys.argv[1]))
    of_launcher.send(b"loaded")
    if serve(of_launcher):
        run_command()
