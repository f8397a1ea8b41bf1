"""Tests of requests to a bucket: who signs them, and how objects are to be stored."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.errors import StoreUnavailableError
from storage.keys import new_multipart_key
from storage.s3.driver import S3Driver
from tests.storage.s3.helpers import DATA, PART, add, finish
from tests.storage.session_rows import SessionRowDriver
from tests.support.flaky import Flaky, flaky
from tests.support.servers.seaweed import ACCESS_KEY, SECRET_KEY, Bucket

pytestmark = pytest.mark.anyio


@pytest.fixture
def network(bucket: Bucket) -> Iterator[Flaky]:
    with flaky(bucket.endpoint) as proxy:
        yield proxy


def signers(network: Flaky) -> set[str]:
    """Return the access keys that signed the requests."""
    lines = [line for head in network.heads for line in head.decode().split("\r\n")]
    named = [line for line in lines if "Credential=" in line]
    return {line.partition("Credential=")[2].partition("/")[0] for line in named}


async def test_keys_of_the_settings_sign(bucket: Bucket, network: Flaky) -> None:
    store = S3Driver(bucket.settings(endpoint=network.url))
    await store.start()
    await store.close()
    assert signers(network) == {ACCESS_KEY}


@pytest.mark.parametrize("place", ["variables", "file"])
async def test_without_keys_the_standard_chain_is_asked(
    bucket: Bucket, network: Flaky, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    settings = bucket.settings(endpoint=network.url, access_key="", secret_key="", region="eu")
    store = S3Driver(settings)
    with pytest.raises(StoreUnavailableError):
        await store.start()  # there are none
    await store.close()
    if place == "variables":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    else:
        (tmp_path / "credentials").write_text(
            f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
        )
    network.heads.clear()
    store = S3Driver(settings)
    await store.start()
    await store.close()
    assert signers(network) == {ACCESS_KEY}


def writes(network: Flaky, *but: str) -> list[dict[str, str]]:
    """Return the headers, in lower case, of requests that write objects. `but`: keys to ignore."""
    found = []
    for head in network.heads:
        first, *lines = head.decode().split("\r\n")
        method, target, _ = first.split(" ")
        if target.endswith(but):
            continue
        if (method == "PUT" and "partNumber" not in target) or target.endswith("?uploads"):
            pairs = [line.partition(":") for line in lines if line]
            found.append({name.lower(): value.strip() for name, _, value in pairs})
    return found


@pytest.mark.parametrize("kept", [{}, {"storage_class": "STANDARD_IA"}])
async def test_objects_are_kept_as_the_settings_say(
    bucket: Bucket, network: Flaky, kept: dict[str, str]
) -> None:
    settings = bucket.settings(endpoint=network.url, part_size=PART, **kept)
    driver = SessionRowDriver(S3Driver(settings))
    await driver.start()
    for data in (b"small", DATA):
        session = str(uuid.uuid4())
        await add(driver, session, data)
        await finish(driver, session, new_multipart_key())
    await driver.close()
    asked = writes(network, "SELFTEST")
    assert len(asked) >= 3  # the version marker, a small object, and one in parts
    for headers in asked:
        assert headers.get("x-amz-storage-class") == kept.get("storage_class")
        assert "x-amz-server-side-encryption" not in headers
        assert "x-amz-trailer" not in headers
        assert not [name for name in headers if name.startswith("x-amz-checksum")]


async def test_a_store_that_cannot_encrypt_is_refused_at_the_start(
    bucket: Bucket, network: Flaky
) -> None:
    """The test server has no encryption keys."""
    store = S3Driver(bucket.settings(endpoint=network.url, sse="AES256"))
    with pytest.raises(StoreUnavailableError):
        await store.start()
    await store.close()
    assert {one["x-amz-server-side-encryption"] for one in writes(network)} == {"AES256"}
