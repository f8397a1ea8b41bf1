"""Several upstreams behind one host: their repositories are never mixed up."""

import contextlib
import uuid

import httpx
import pytest

from storage.digest import Digest
from tests.scenarios.mirrors.conftest import Image, Place
from tests.scenarios.mirrors.fake_upstream import FakeUpstream
from tests.scenarios.mirrors.test_pulls import pull

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


async def test_the_same_name_in_two_registries(place: Place, http: httpx.AsyncClient) -> None:
    """As containerd asks with `_default`: `ns` alone says which registry is meant."""
    mark = uuid.uuid4().hex[:8]
    names = [f"{each}-{mark}" for each in ("one", "two", "empty")]
    images = {names[0]: Image.make("one"), names[1]: Image.make("two")}
    async with contextlib.AsyncExitStack() as stack:
        for name in names:
            upstream = await stack.enter_async_context(FakeUpstream().run())
            if name in images:
                upstream.add("library/alpine", "1.0", images[name])
            options = ["--upstream", upstream.url, "--host", f"{name}.example", "--allow-private"]
            place.moorage("mirror", "add", name, *options)
        for _ in range(2):  # from the upstream, and from the cache
            for name, image in images.items():
                query = f"?ns={name}.example"
                found = await pull(http, "/v2/library/alpine", "1.0", query)
                assert found.content == image.raw
        for reference in ("1.0", *(str(Digest.of(image.raw)) for image in images.values())):
            path = f"/v2/library/alpine/manifests/{reference}?ns={names[2]}.example"
            assert (await http.get(path)).status_code == 404
        theirs = str(Digest.of(images[names[1]].raw))
        path = f"/v2/library/alpine/manifests/{theirs}?ns={names[0]}.example"
        assert (await http.get(path)).status_code == 404
