"""Tests of the TCP proxy that other tests rely on."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from typing import cast

import pytest

from tests.support.servers.tcp_proxy import TcpProxy, tcp_proxy


class _Shout(socketserver.BaseRequestHandler):
    """Handler that records what it receives and sends it back in capitals."""

    def handle(self) -> None:
        seen = cast("_Server", self.server).seen
        while data := cast("bytes", self.request.recv(65536)):
            seen.append(data)
            self.request.sendall(data.upper())


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Shout)
        self.seen: list[bytes] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors, because these tests cut connections."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: _Server) -> Iterator[TcpProxy]:
    with tcp_proxy(("127.0.0.1", server.server_address[1])) as proxy:
        yield proxy


def connect(proxy: TcpProxy, patience: float = 10) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=patience)


def ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    answer = b""
    while len(answer) < len(data):
        piece = client.recv(65536)
        if not piece:
            raise EOFError
        answer += piece
    return answer


def test_passes_everything_both_ways_to_the_end(proxy: TcpProxy) -> None:
    data = b"x" * 3_000_000
    with connect(proxy) as client:
        sending = threading.Thread(target=client.sendall, args=[data])
        sending.start()
        got = 0
        while got < len(data):
            got += len(client.recv(65536))
        sending.join()
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert proxy.taken == 1


def test_refuses_resets_and_comes_back_at_the_same_port(proxy: TcpProxy) -> None:
    with connect(proxy) as client:
        assert ask(client, b"a") == b"A"
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.accept()
    with connect(proxy) as client:
        assert ask(client, b"b") == b"B"


def test_cuts_what_is_open_alone(proxy: TcpProxy) -> None:
    with connect(proxy) as client, connect(proxy) as other:
        assert ask(client, b"a") == ask(other, b"a") == b"A"
        proxy.cut()
        for each in (client, other):
            with pytest.raises(ConnectionResetError):
                each.recv(1)
    assert proxy.open == 0
    with connect(proxy) as client:
        assert ask(client, b"b") == b"B"


def test_stalls_and_delivers_later_what_was_sent(proxy: TcpProxy, server: _Server) -> None:
    with connect(proxy) as client:
        assert ask(client, b"a") == b"A"
        proxy.stall()
        client.sendall(b"held")
        with connect(proxy) as other:
            other.sendall(b"too")
            for each in (client, other):
                each.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    each.recv(1)
                each.settimeout(10)
            assert server.seen == [b"a"]
            proxy.resume()
            assert client.recv(9) == b"HELD"
            assert other.recv(9) == b"TOO"


def test_delays(proxy: TcpProxy) -> None:
    with connect(proxy) as client:
        proxy.delay(0.2)
        started = time.monotonic()
        assert ask(client, b"a") == b"A"
        assert time.monotonic() - started >= 0.4
        proxy.delay(0)
        assert ask(client, b"b") == b"B"


@pytest.mark.parametrize("delivered", [True, False])
def test_loses_one_answer(proxy: TcpProxy, server: _Server, *, delivered: bool) -> None:
    lost = proxy.lose_answer(b"COMMIT", delivered=delivered)
    with connect(proxy) as client, connect(proxy) as other:
        assert ask(client, b"begin") == b"BEGIN"
        assert ask(other, b"begin") == b"BEGIN"
        assert not lost.is_set()
        with pytest.raises(ConnectionResetError):
            ask(client, b"; COMMIT;")
        assert lost.is_set()
        assert ask(other, b"COMMIT") == b"COMMIT"
    assert (b"; COMMIT;" in server.seen) is delivered
