"""Listening sockets of a server."""

import contextlib
import errno
import socket
import stat
from ipaddress import ip_address
from pathlib import Path

from registry.errors import ConfigError
from registry.units import parse_endpoint, parse_unix

_BACKLOG = 2048
_UNIX_MODE = 0o660
"""File mode of a Unix socket. A proxy connects as a member of the group of the socket."""

# Errors of the kernel for an address family that is compiled out or disabled.
_NO_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}


def bind(listen: str, option: str) -> list[socket.socket]:
    """Return listening sockets for a value of `http.listen`.

    An empty host means all addresses of all address families of the machine. `option` is the name
    of the option for the address, used in error messages. Raises ConfigError if the address cannot
    be used.
    """
    path = parse_unix(listen)
    if path:
        return [_bind_unix(Path(path), listen)]
    host, port = parse_endpoint(listen)
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, address in found:
            try:
                sockets.append(_bind_address(family, (address[0], port, *address[2:])))
            except OSError as error:
                if error.errno not in _NO_FAMILY or _is_address(host):
                    raise
                missing = error
            else:
                port = sockets[-1].getsockname()[1]  # if 0, use the same free port everywhere
        if not sockets and missing:
            raise missing
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise ConfigError(
            f"cannot listen on {listen} ({error.strerror}): another program may use port {port}. "
            f"Choose another with {option} HOST:PORT"
        ) from error
    return sockets


def _bind_address(family: int, address: tuple[object, ...]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return _listen(bound)


def _bind_unix(path: Path, listen: str) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_left(path)
        bound.bind(str(path))
        path.chmod(_UNIX_MODE)
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"cannot listen on {listen} ({error.strerror or error}): its directory must exist and "
            "be writable, and no other server may listen there"
        ) from error
    return _listen(bound)


def _remove_left(path: Path) -> None:
    """Remove the socket file that a killed server left.

    Raises OSError if a server listens on the socket, or the file is not a socket.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "the path exists and is not a socket", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, "a server listens there already", str(path))


def remove(listen: str) -> None:
    """Remove the socket file if `listen` names a Unix socket."""
    path = parse_unix(listen)
    if path:
        with contextlib.suppress(FileNotFoundError):
            Path(path).unlink()


def _listen(bound: socket.socket) -> socket.socket:
    bound.listen(_BACKLOG)
    bound.setblocking(False)
    bound.set_inheritable(True)
    return bound


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def list_addresses(sockets: list[socket.socket], scheme: str) -> list[str]:
    """Return the addresses of the sockets as URLs, and a Unix socket in the form of its setting."""
    shown = []
    for bound in sockets:
        name = bound.getsockname()
        if bound.family == socket.AF_UNIX:
            shown.append(f"unix:{name}")
        else:
            host = f"[{name[0]}]" if ":" in name[0] else name[0]
            shown.append(f"{scheme}://{host}:{name[1]}")
    return shown
