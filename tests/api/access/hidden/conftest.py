"""A registry with a hidden repository."""

from collections.abc import AsyncIterator

import pytest

from registry.oci.media_types import OCI_MANIFEST
from tests.api.access.hidden.scene import (
    BLOB,
    MINE,
    THERE,
    Scene,
)
from tests.api.conftest import Started
from tests.support.accounts import (
    AUTH,
    Accounts,
    signed,
)
from tests.support.kit import descriptor, image_manifest


@pytest.fixture
def driver() -> str:
    return "memory"


@pytest.fixture
async def scene(start_api: Started) -> AsyncIterator[Scene]:
    async with start_api(AUTH) as api:
        accounts = Accounts.of(api.opened)
        root = await accounts.user("root", admin=True)
        bob = await accounts.user("bob")
        await accounts.grant("bob", "mine/**", "pull,push,delete")
        kit = signed(api.http, root.basic)
        await kit.push_blob(THERE, BLOB)
        digest, raw = await kit.push_image(THERE, "latest", "hidden")
        signature = image_manifest(b"{}", [], subject=descriptor(raw, OCI_MANIFEST))
        await kit.push_blob(THERE, b"{}")
        assert (await kit.put_manifest(THERE, "signature", signature)).status_code == 201
        location = await kit.start_upload(THERE)
        mine = signed(api.http, bob.basic)
        await mine.push_image(MINE, "latest", "mine")
        await mine.push_blob(MINE, b"{}")
        yield Scene(api, accounts, bob, root, digest, location.rpartition("/")[2])
