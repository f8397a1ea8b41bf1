"""Messages of commands and refusals: what is wrong, and what to do about it."""

import contextlib
import socket
import ssl
import threading
from pathlib import Path

import pytest

from registry.cli.main import main
from tests.cli.moorage import PASSWORD
from tests.support.servers.certificates import Authority
from tests.support.servers.server import add_admin

pytestmark = pytest.mark.timeout(120)


def test_a_grant_without_pull_is_told_of_only_where_pull_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        assert main([*arguments, "--data", str(tmp_path / "data")]) == 0
        return capsys.readouterr().err

    run("user", "add", "alice", "--no-password")
    run("group", "add", "devs")
    run("group", "join", "devs", "alice")
    lacking = run("grant", "add", "alice", "team/app", "push")
    assert "alice has no grant of pull on all of team/app" in lacking
    assert "moorage grant add alice 'team/app' pull" in lacking
    run("grant", "add", "group:devs", "team/**", "pull")
    for subject in ("alice", "group:devs"):
        assert not run("grant", "add", subject, "team/app", "push")
    assert run("grant", "add", "alice", "other/app", "push")


def test_an_unknown_authority_is_told_of_with_the_option_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority().issue(tmp_path, "localhost"))
    monkeypatch.setenv("MOORAGE_TOKEN", "x")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)

        def answer() -> None:
            connection, _ = listener.accept()
            connection.settimeout(30)
            # The client aborts the handshake.
            with connection, contextlib.suppress(OSError):
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"https://localhost:{listener.getsockname()[1]}"
        assert main(["user", "list", "--url", url]) == 1
        thread.join()
    said = capsys.readouterr().err
    assert "CERTIFICATE_VERIFY_FAILED" in said
    assert "private CA" in said
    assert "--ca-file FILE" in said


def test_a_restore_over_data_says_where_to_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    add_admin(data, "root", PASSWORD)
    assert main(["backup", "create", str(tmp_path / "backup"), "--data", str(data)]) == 0
    assert main(["backup", "restore", str(tmp_path / "backup"), "--data", str(data)]) == 1
    said = capsys.readouterr().err
    assert "is not empty" in said
    assert "another data directory (--data DIR)" in said
