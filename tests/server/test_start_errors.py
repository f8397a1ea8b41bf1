"""Failed starts print only one line that says what to do, and exit with status 1."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry.cli.main import main
from registry.data_dir import DataDirectory
from registry.errors import ConfigError
from registry.metadata.engine.reachable import require_reachable
from storage.errors import StoreRefusedError
from storage.factory import create_driver
from tests.support.accounts import SECRET
from tests.support.missing import missing
from tests.support.servers import launcher
from tests.support.servers.postgres import Cluster
from tests.support.servers.seaweed import Seaweed

pytestmark = pytest.mark.timeout(120)

OTHER_USER = 10001
"""ID of another account, for tests that run as root."""


@dataclass
class Command:
    """Runner of `moorage` in this process, with settings in its environment."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def check(self, data: Path, settings: dict[str, str], *more: str) -> tuple[int, str, str]:
        """Run `moorage config check`, and return its exit status, output and errors."""
        with self.monkeypatch.context() as patch:
            for name, value in environment(settings).items():
                patch.setenv(name, value)
            status = main(["config", "check", *more, "--data", str(data)])
        return status, *self.capsys.readouterr()

    def refuse(self, data: Path, settings: dict[str, str], *words: str) -> None:
        """Require that the check fails with one line that contains the words."""
        status, out, said = self.check(data, settings, "--connect")
        require_line(status, out, said, words)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def environment(settings: dict[str, str]) -> dict[str, str]:
    return {f"MOORAGE_{k.upper().replace('.', '__')}": v for k, v in settings.items()}


def require_line(status: int, out: str, said: str, words: tuple[str, ...]) -> None:
    assert status == 1, said
    assert out == ""
    assert said.count("moorage: ") == 1, said
    assert "Traceback" not in said
    assert "\n  " not in said
    for word in words:
        assert word in said


def refuse_start(data: Path, settings: dict[str, str], *words: str) -> None:
    """Require that `serve` prints the words in one line and not the address it listens on."""
    ended = run("serve", "--listen", "127.0.0.1:0", data=data, settings=settings)
    require_line(ended.returncode, ended.stdout, ended.stderr, words)


def run(
    *arguments: str, data: Path, settings: dict[str, str], given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
    env = {**kept, **environment(settings)}
    return launcher.run(*arguments, "--data", data, typed=given, env=env)


def bucket(seaweed: Seaweed, **more: str) -> dict[str, str]:
    given = seaweed.bucket().overrides() | {"storage.driver": "s3"}
    return given | {f"storage.{key}": value for key, value in more.items()}


def test_no_such_bucket(command: Command, seaweed: Seaweed, tmp_path: Path) -> None:
    words = ("no such bucket", '"nowhere"', "NoSuchBucket", "create it")
    settings = bucket(seaweed, bucket="nowhere")
    command.refuse(tmp_path / "data", settings, *words)
    refuse_start(tmp_path / "data", settings, *words)


def test_a_wrong_secret_of_the_bucket(command: Command, seaweed: Seaweed, tmp_path: Path) -> None:
    words = ("SignatureDoesNotMatch", "check access_key and secret_key")
    settings = bucket(seaweed) | {"storage.secret_key": "wrong"}
    command.refuse(tmp_path / "data", settings, *words)


def test_a_bucket_that_something_else_uses(
    command: Command, seaweed: Seaweed, tmp_path: Path
) -> None:
    used = seaweed.bucket()
    used.put("docker/registry/v2/blobs/sha256/00/data", b"theirs")
    settings = used.overrides() | {"storage.driver": "s3"}
    words = ("the data of Distribution", "skopeo sync", "prefix")
    command.refuse(tmp_path / "data", settings, *words)
    assert used.list_keys() == ["docker/registry/v2/blobs/sha256/00/data"]


def test_a_secret_that_is_missing(command: Command, postgres: Cluster, tmp_path: Path) -> None:
    with postgres.database() as url:
        settings = {"database.url": url, "auth.mode": "token"}
        command.refuse(tmp_path / "data", settings, "auth.secret is missing", "openssl rand")


def test_a_secret_that_is_missing_once_there_are_users(postgres: Cluster, tmp_path: Path) -> None:
    """Without auth.mode, only the database shows that clients must sign in."""
    with postgres.database() as url:
        settings = {"database.url": url}
        add_user(tmp_path / "data", settings | {"auth.secret": SECRET})
        refuse_start(tmp_path / "data", settings, "auth.secret")


def add_user(data: Path, settings: dict[str, str]) -> None:
    arguments = ("user", "add", "ann", "--admin", "--password-stdin")
    added = run(*arguments, data=data, settings=settings, given="a long password of ann\n")
    assert added.returncode == 0, added.stderr


def test_no_such_database(command: Command, postgres: Cluster, tmp_path: Path) -> None:
    with postgres.database() as url:
        wrong = url.rpartition("/")[0] + "/nowhere"
        words = ('database "nowhere" does not exist', "database.url")
        command.refuse(tmp_path / "data", {"database.url": wrong}, *words)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"http.tls_cert": "a", "http.tls_key": "b"}, "cannot be read"),
        (
            {"auth.issuer": "i", "auth.audience": "a", "auth.jwks_file": "missing.json"},
            "auth.jwks_file",
        ),
        ({"auth.ca_file": "missing.pem"}, "auth.ca_file"),
        (
            {"database.url": "sqlite:////nowhere/at/all/moorage.db"},
            "directory /nowhere/at/all does not exist",
        ),
        ({"storage.root": "/dev/null"}, "it must be a directory"),
    ],
)
def test_files_that_are_not_there(
    command: Command, tmp_path: Path, settings: dict[str, str], word: str
) -> None:
    command.refuse(tmp_path / "data", settings, word)


# Folders of other accounts


@pytest.fixture
def foreign() -> Iterator[Path]:
    """Return a data directory of root, while the process runs as another account."""
    if os.geteuid() != 0:
        missing("root, to become another user")
    folder = Path(tempfile.mkdtemp(prefix="moorage-start-"))
    folder.chmod(0o755)
    data = folder / "data"
    (data / "storage").mkdir(parents=True, mode=0o755)
    (data / "moorage.db").touch(mode=0o644)
    os.setegid(OTHER_USER)
    os.seteuid(OTHER_USER)
    try:
        yield data
    finally:
        os.seteuid(0)
        os.setegid(0)
        shutil.rmtree(folder)


@pytest.mark.anyio
async def test_folders_of_others_are_named_with_the_command_that_helps(foreign: Path) -> None:
    user = f"{OTHER_USER}:{OTHER_USER}"
    with pytest.raises(ConfigError) as refused:
        DataDirectory(foreign).create()
    assert f"chown -R {user} {foreign}" in refused.value.message
    with pytest.raises(ConfigError) as refused:
        require_reachable(f"sqlite:///{foreign}/moorage.db")
    assert f"chown {user} {foreign}/moorage.db" in refused.value.message
    driver = create_driver("local", root=foreign / "storage")
    for refusing in (driver.start, driver.probe):
        with pytest.raises(StoreRefusedError) as denied:
            await refusing()
        assert f"chown -R {user} {foreign}/storage" in str(denied.value)
    await driver.close()


# Folders with the files of other programs


def distribution(folder: Path) -> None:
    (folder / "docker" / "registry" / "v2" / "repositories").mkdir(parents=True)


def layout(folder: Path) -> None:
    (folder / "blobs" / "sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text("{}")


def documents(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "thesis.odt").write_text("mine")


@pytest.mark.parametrize(
    ("fill", "word"),
    [
        (distribution, "the data of Distribution"),
        (layout, "an OCI image layout"),
        (documents, "'thesis.odt'"),
    ],
)
@pytest.mark.parametrize("place", ["data", "data/storage"])
def test_a_folder_that_something_else_uses(
    command: Command, tmp_path: Path, fill: Callable[[Path], None], word: str, place: str
) -> None:
    fill(tmp_path / place)
    before = sorted((tmp_path / place).rglob("*"))
    command.refuse(tmp_path / "data", {}, word, "skopeo sync", str(tmp_path / place))
    assert sorted((tmp_path / place).rglob("*")) == before


def test_serve_and_commands_refuse_such_a_folder_as_well(tmp_path: Path) -> None:
    distribution(tmp_path / "data")
    refuse_start(tmp_path / "data", {}, "the data of Distribution")
    with pytest.raises(AssertionError, match="the data of Distribution"):
        add_user(tmp_path / "data", {})
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["docker"]


def test_serve_refuses_a_storage_folder_that_something_else_uses(tmp_path: Path) -> None:
    distribution(tmp_path / "blobs")
    settings = {"storage.root": str(tmp_path / "blobs")}
    refuse_start(tmp_path / "data", settings, "the data of Distribution")
    assert [path.name for path in (tmp_path / "blobs").iterdir()] == ["docker"]


def test_what_the_settings_name_may_be_there_first(command: Command, tmp_path: Path) -> None:
    for name in ("moorage.toml", "ca.pem", "lost+found", ".snapshot"):
        (tmp_path / name).touch()
    (tmp_path / "secret").write_text(SECRET)
    settings = {"auth.secret_file": "secret"}
    assert "'ca.pem'" in command.check(tmp_path, settings)[2]  # no setting names this file
    (tmp_path / "ca.pem").unlink()
    assert command.check(tmp_path, settings)[0] == 0


def test_check_says_that_all_is_well_and_makes_nothing(
    command: Command, postgres: Cluster, seaweed: Seaweed, tmp_path: Path
) -> None:
    with postgres.database(empty=True) as url:
        used = seaweed.bucket()
        settings = used.overrides() | {"storage.driver": "s3", "database.url": url}
        status, out, said = command.check(tmp_path / "data", settings, "--connect", "--json")
        assert (status, json.loads(out)) == (0, {"ok": True}), said
        assert used.list_keys() == ["SELFTEST"]
    assert command.check(tmp_path / "data", {}, "--connect")[0] == 0
    assert not (tmp_path / "data").exists()
