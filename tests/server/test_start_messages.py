"""Messages at the start: the listening address, and the warning about `auth.mode = "none"`."""

from pathlib import Path

from tests.support.servers.server import Server, add_admin, serving

OPEN = {"MOORAGE_AUTH__MODE": "none"}
WARNING = 'there are users, but auth.mode = "none"'


def test_the_greeting_is_read_while_it_serves_and_is_there_once(tmp_path: Path) -> None:
    """The message is flushed at once and is printed once.

    Standard output is a file, so Python buffers it. A worker that is forked with the message in its
    buffer would write it again.
    """
    external = "https://example.org/registry"
    server = Server(tmp_path / "data", 2, {"MOORAGE_HTTP__EXTERNAL_URL": external})
    with serving(server):
        said = server.log.read_text()
    assert "Moorage listens on http://127.0.0.1:" in said
    assert f"Clients connect to {external}" in said
    assert server.log.read_text().count("Clients connect to") == 1


def test_open_mode_beside_users_is_warned_of_at_each_start(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", 2, OPEN)
    with serving(server):
        pass
    assert WARNING not in server.log.read_text()  # there are no users yet
    add_admin(server.data, "ann", "the password of ann")
    for starts in (1, 2):
        with serving(server):
            pass
        assert server.log.read_text().count(WARNING) == starts
