"""Discovery, and ID tokens of CI systems."""

from typing import Any

import pytest

from registry.auth.oidc_settings import OidcRule
from registry.auth.tokens.external_issuers import ExternalIssuer, OidcIssuer, key_source
from registry.client.web import Web
from tests.auth.external_issuers.helpers import (
    AUDIENCE,
    FIRST,
    SECOND,
    Told,
    accepts,
    eventually,
    jwks,
    running,
    sign,
)
from tests.support.forged_tokens import good_claims
from tests.support.servers.upstream import Upstream

pytestmark = pytest.mark.anyio


class TestDiscovery:
    """The discovery document must name the issuer that was asked."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"issuer": "https://other.example.org"},
            {"issuer": None},
            {"jwks_uri": None},
            {"jwks_uri": ["/keys"]},
            {"jwks_uri": "/keys"},
            {"jwks_uri": "file:///etc/passwd"},
            {"jwks_uri": "http://169.254.169.254/keys"},
        ],
    )
    async def test_a_configuration_that_is_refused(
        self, server: Upstream, web: Web, changes: dict[str, Any], told: Told
    ) -> None:
        name = server.url()
        document = {"issuer": name, "jwks_uri": server.put("/keys", jwks(FIRST)), **changes}
        server.put("/.well-known/openid-configuration", document)
        source = key_source(web, issuer=name)
        async with running(ExternalIssuer(name, AUDIENCE, source, refresh=3600)) as issuer:
            await eventually(lambda: bool(told()))
            assert not accepts(issuer, sign(FIRST, good_claims(name, AUDIENCE)))
        assert not told()[0].exc_info
        assert [path for path, _ in server.requests] == ["/.well-known/openid-configuration"]

    async def test_http_and_private_addresses_are_for_those_who_allow_it(
        self, server: Upstream, told: Told
    ) -> None:
        source = key_source(Web(), issuer=server.url())
        async with running(ExternalIssuer(server.url(), AUDIENCE, source, refresh=3600)):
            await eventually(lambda: bool(told()))
        assert server.requests == []

    async def test_a_path_is_part_of_the_issuer(self, server: Upstream, web: Web) -> None:
        name = server.url("/realms/a/")
        server.put(
            "/realms/a/.well-known/openid-configuration",
            {"issuer": name, "jwks_uri": server.put("/keys", jwks(FIRST))},
        )
        source = key_source(web, issuer=name)
        async with running(ExternalIssuer(name, AUDIENCE, source, refresh=3600)) as issuer:
            token = sign(FIRST, good_claims(name, AUDIENCE))
            await eventually(lambda: accepts(issuer, token))
            assert not accepts(issuer, sign(FIRST, good_claims(name[:-1], AUDIENCE)))


# ID tokens as GitHub and GitLab document them, without claims that no rule would use.
GITHUB = {
    "sub": "repo:org/app:ref:refs/heads/main",
    "repository": "org/app",
    "repository_owner": "org",
    "repository_id": "74",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "ref_protected": "true",
    "event_name": "push",
    "job_workflow_ref": "org/app/.github/workflows/push.yml@refs/heads/main",
    "runner_environment": "github-hosted",
}
GITLAB = {
    "sub": "project_path:team/app:ref_type:branch:ref:main",
    "namespace_path": "team",
    "project_path": "team/app",
    "project_id": "22",
    "ref": "main",
    "ref_type": "branch",
    "ref_path": "refs/heads/main",
    "ref_protected": "true",
    "environment": "production",
    "pipeline_source": "push",
    "runner_id": 1,
    "groups_direct": ["team"],
}


@pytest.mark.parametrize(
    ("made", "wanted", "robot"),
    [
        (GITHUB, {"repository": ("org/app",), "ref": ("refs/heads/main",)}, "ci"),
        (GITHUB, {"repository": ("org/*",), "event_name": ("push", "release")}, "ci"),
        (GITHUB, {"repository": ("org/app",), "environment": ("production",)}, None),
        (GITHUB, {"repository": ("org/app",), "ref": ("refs/tags/*",)}, None),
        (GITHUB, {"repository": ("other/app",)}, None),
        (GITLAB, {"project_path": ("team/app",), "environment": ("production",)}, "ci"),
        (GITLAB, {"project_path": ("team/app",), "ref_protected": ("true",)}, "ci"),
        (GITLAB, {"project_path": ("team/app",), "runner_id": ("1",)}, None),
        (GITLAB, {"project_path": ("team/app",), "groups_direct": ("team",)}, None),
        (GITLAB, {"project_path": ("team",)}, None),
    ],
)
async def test_id_tokens(
    server: Upstream,
    web: Web,
    made: dict[str, Any],
    wanted: dict[str, tuple[str, ...]],
    robot: str | None,
) -> None:
    name = "https://issuer.example.org"
    source = key_source(web, issuer=name, url=server.put("/keys", jwks(SECOND)))
    rules = [OidcRule("nobody", {"repository": ("org/none",)}), OidcRule("ci", wanted)]
    token = sign(SECOND, {**good_claims(name, "moorage"), **made})
    async with running(OidcIssuer(name, "moorage", source, rules, refresh=3600)) as issuer:
        assert isinstance(issuer, OidcIssuer)
        await eventually(lambda: accepts(issuer, token))
        assert issuer.match(issuer.verify(token)) == robot
        for key, claims in (
            (FIRST, good_claims(name, "moorage")),
            (SECOND, good_claims(name, "other")),
            (SECOND, good_claims(f"{name}/", "moorage")),
        ):
            assert not accepts(issuer, sign(key, {**made, **claims}))


async def test_the_first_rule_that_matches_names_the_robot() -> None:
    async def source() -> object:
        return {}

    rules = [
        OidcRule("release", {"repository": ("org/app",), "ref": ("refs/tags/v*",)}),
        OidcRule("ci", {"repository": ("org/app",)}),
        OidcRule("late", {"repository": ("org/app",)}),
    ]
    issuer = OidcIssuer("https://issuer.example.org", "moorage", source, rules, refresh=1)
    assert issuer.match({"repository": "org/app", "ref": "refs/tags/v1"}) == "release"
    assert issuer.match({"repository": "org/app", "ref": "refs/heads/main"}) == "ci"
    assert issuer.match({"repository": "org/lib"}) is None
    assert issuer.match({}) is None
