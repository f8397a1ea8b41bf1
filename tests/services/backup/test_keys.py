"""Private keys: in a backup only on request, and then only encrypted."""

import base64
from pathlib import Path

import httpx
import pytest

from registry.auth.keys.key_encryption import seal, unseal
from registry.errors import BackupError
from tests.api.conftest import Api
from tests.services.backup.conftest import PASSPHRASE, Make, Place
from tests.support.accounts import Accounts, Login, bearer, get_token

pytestmark = pytest.mark.anyio

NAME = "team/app"


class House:
    """A registry with users, robots and their credentials."""

    user: Login
    robot: Login
    personal: Login
    private: dict[str, bytes]

    async def fill(self, api: Api) -> None:
        accounts = Accounts.of(api.opened)
        self.user = await accounts.user("ann", admin=True)
        self.robot = await accounts.robot("ci")
        self.personal = await accounts.token("ann")
        await accounts.grant("robot:ci", "team/**", "pull,push")
        answer = await api.http.post(f"/v2/{NAME}/blobs/uploads/", headers=self.user.basic)
        assert answer.status_code == 202
        await get_token(api.http, self.user)
        self.private = await api.opened.keyring.list_private()
        assert len(self.private) == 2


async def can_sign_in(http: httpx.AsyncClient, login: Login) -> bool:
    answer = await http.get("/v2/", headers=login.basic)
    assert answer.status_code in {200, 401}
    return answer.status_code == 200


def find_secrets(target: Path, private: dict[str, bytes]) -> list[str]:
    """Return the files that contain any of the private keys in any usual encoding."""
    forms = [
        form.strip(b"=")
        for key in private.values()
        for form in (
            *(key, key.hex().encode()),
            *(base64.b64encode(key), base64.urlsafe_b64encode(key)),
        )
    ]
    files = [path for path in target.rglob("*") if path.is_file()]
    assert files
    return [path.name for path in files if any(form in path.read_bytes() for form in forms)]


async def test_without_being_asked_for_none_are_there(make: Make, target: Path) -> None:
    house, place, other = House(), make("a"), make("b")
    async with place.opened() as api:
        await house.fill(api)
        told = await place.run("create", target)
        assert "--with-keys" in told
    assert find_secrets(target, house.private) == []
    assert find_secrets(place.data / "keys", house.private) != []  # control
    told = await other.run("restore", target)
    assert "moorage robot rotate" in told
    async with other.opened() as api:
        assert await can_sign_in(api.http, house.user)
        assert not await can_sign_in(api.http, house.robot)
        assert not await can_sign_in(api.http, house.personal)
        # The registry generates new keys, and tokens signed with them are valid.
        token = await get_token(api.http, house.user, f"repository:{NAME}:pull")
        answer = await api.http.get(f"/v2/{NAME}/tags/list", headers=bearer(token))
        assert answer.status_code == 404
        assert set(await api.opened.keyring.list_private()).isdisjoint(
            set(house.private) - {"secrets"}
        )


WAYS = [("sqlite-local", "postgres-local"), ("postgres-local", "sqlite-local")]


@pytest.mark.parametrize(("kind", "to"), WAYS)
async def test_with_them_all_sign_in_as_before(
    make: Make, target: Path, tmp_path: Path, kind: str, to: str
) -> None:
    house, place = House(), make("a", kind, auth__mode="token")
    other = make("b", to, bare=True, auth__mode="token")
    async with place.opened() as api:
        await house.fill(api)
        token = await get_token(api.http, house.user, f"repository:{NAME}:pull")
        for passphrase in ("", "short"):
            told = await place.run("create", target, "--with-keys", expect=1, passphrase=passphrase)
            assert "passphrase" in told
        assert not target.exists()
        made = await place.ask("create", target, "--with-keys", passphrase=PASSPHRASE)
        assert made["snapshot"]["keys"]["size"] > 0
    assert find_secrets(target, house.private) == []
    assert PASSPHRASE not in "".join(
        path.read_text("latin-1") for path in target.rglob("*") if path.is_file()
    )
    for passphrase, words in (("", "--without-keys"), ("another passphrase", "does not decrypt")):
        told = await other.run("restore", target, expect=1, passphrase=passphrase)
        assert words in told
    assert not (other.data / "keys").exists()
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    done = await other.ask("restore", target, "--passphrase-file", str(tmp_path / "passphrase"))
    assert done["keys"] is True
    async with other.opened() as api:
        for login in (house.user, house.robot, house.personal):
            assert await can_sign_in(api.http, login)
        answer = await api.http.get(f"/v2/{NAME}/tags/list", headers=bearer(token))
        assert answer.status_code == 404, answer.text
        assert await api.opened.keyring.list_private() == house.private


async def test_they_can_be_left_out_again(make: Make, target: Path) -> None:
    house, place, other = House(), make("a"), make("b")
    async with place.opened() as api:
        await house.fill(api)
        await place.run("create", target, "--with-keys", passphrase=PASSPHRASE)
    done = await other.ask("restore", target, "--without-keys")
    assert (done["keys"], done["complete"]) == (False, True)
    async with other.opened() as api:
        assert await can_sign_in(api.http, house.user)
        assert not await can_sign_in(api.http, house.robot)


async def test_keys_of_another_registry_are_not_overwritten(make: Make, target: Path) -> None:
    house, place, other = House(), make("a"), make("b")
    async with place.opened() as api:
        await house.fill(api)
        await place.run("create", target, "--with-keys", passphrase=PASSPHRASE)
    keys: Place = other
    (keys.data / "keys").mkdir(parents=True)
    (keys.data / "keys" / "secrets").write_bytes(b"another")
    (keys.data / "keys" / "secrets").chmod(0o600)
    told = await other.run("restore", target, expect=1, passphrase=PASSPHRASE)
    assert "move it away" in told
    assert (keys.data / "keys" / "secrets").read_bytes() == b"another"
    await other.require_closed()
    (keys.data / "keys" / "secrets").unlink()
    await other.run("restore", target, passphrase=PASSPHRASE)
    async with other.opened() as api:
        assert await can_sign_in(api.http, house.robot)


def test_a_seal_opens_with_its_passphrase_and_label_alone() -> None:
    keys = {"secrets": bytes(range(256)), "": b""}
    raw = seal(keys, PASSPHRASE, "one")
    assert unseal(raw, PASSPHRASE, "one") == keys
    assert seal(keys, PASSPHRASE, "one") != raw
    changed = raw.replace(b'"p":2', b'"p":1')
    assert changed != raw
    for wrong in (
        (raw, PASSPHRASE + " ", "one"),
        (raw, PASSPHRASE, "two"),
        (changed, PASSPHRASE, "one"),
        (raw[:-5], PASSPHRASE, "one"),
        (b"{}", PASSPHRASE, "one"),
    ):
        with pytest.raises(BackupError):
            unseal(*wrong)
