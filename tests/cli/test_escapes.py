"""Control characters in content and in responses of servers are escaped on the terminal."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from registry.cli.kit import output
from registry.cli.main import main

EVIL = "\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202e"
ESCAPED = r"\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202e"


def write_table(text: str) -> None:
    output.write_table(("A",), [(text,)])


@pytest.mark.parametrize(
    "write", [output.write, output.write_note, output.write_error, write_table, output.write_json]
)
def test_no_output_holds_escapes(
    write: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write(f"tag {EVIL} of team/app")
    told = "".join(capsys.readouterr())
    assert "tag " in told
    assert " of team/app" in told
    assert told.replace("\n", "").isprintable()


def test_lines_of_our_own_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output.write("first\n  second é\n")
    assert capsys.readouterr().out == "first\n  second é\n\n"


class Evil(BaseHTTPRequestHandler):
    """Handler that responds with an error with terminal control sequences."""

    def do_GET(self) -> None:
        errors = [{"message": f"no {EVIL}\nmoorage: all is well {'x' * 100_000}"}] * 1000
        body = json.dumps({"errors": errors}).encode()
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def evil_url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Evil)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_errors_of_another_server_are_one_short_line(
    evil_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOORAGE_TOKEN", "a token")
    assert main(["user", "list", "--url", evil_url]) == 1
    last = capsys.readouterr().err.removesuffix("\n").split("\n")[-1]
    assert last.startswith(f"moorage: no {ESCAPED.replace(chr(92) + 'r', ' ')} moorage: all is")
    assert last.isprintable()
    assert len(last) < 100_000
