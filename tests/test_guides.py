"""The settings and the script in the guides do what the guides say."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from registry.auth.keys.jose import public_keys
from registry.config import load
from registry.services.mirrors.client_files import Address, ClientMirror, write_files
from registry.services.mirrors.presets import PRESETS
from tests.support.servers.certificates import Authority

DOCS = Path(__file__).resolve().parent.parent / "docs"
GUIDES = DOCS / "guides"
CI = (GUIDES / "ci.md").read_text()
EXISTING = (GUIDES / "existing-issuer.md").read_text()


@pytest.mark.parametrize("page", [CI, EXISTING], ids=["ci", "existing-issuer"])
def test_the_settings_shown_are_accepted(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        tomllib.loads(block)
        (tmp_path / "moorage.toml").write_text(block)
        load(config=None, data=tmp_path, overrides={}, environ={})


# A key and its ID from the token specification of Distribution (docs/spec/auth/jwt.md).
X = "m7zUpx3b-zmVE5cymSs64POG9QcyEpJaYCD82-549_Q"
Y = "dU3biz8sZ_8GPB-odm8Wxz3lNDr1xcAQQPQaOcr1fmc"
KID = "PYYO:TEWU:V7JH:26JV:AQTZ:LJC3:SXVJ:XGHA:34F2:2LAQ:ZRMK:Z7Q6"


def test_the_script_writes_the_key_of_a_certificate(tmp_path: Path) -> None:
    [script] = re.findall(r"<<'EOF'\n(.*?)\nEOF\n", EXISTING, re.DOTALL)
    ours = generate_private_key(65537, 2048).public_key()
    theirs = jwt.PyJWK({"kty": "EC", "crv": "P-256", "x": X, "y": Y}).key
    names = []
    for key, algorithm in ((ours, "RS256"), (theirs, "ES256")):
        (tmp_path / "registry.crt").write_bytes(Authority().certify(key, "registry"))
        written = subprocess.run(
            [sys.executable, "-", tmp_path / "registry.crt"],
            input=script,
            capture_output=True,
            text=True,
            check=True,
        )
        [(kid, found)] = public_keys(json.loads(written.stdout)).items()
        assert (found.algorithm, found.key) == (algorithm, key)
        names.append(kid)
    assert names[1] == KID
    assert re.fullmatch(r"([A-Z2-7]{4}:){11}[A-Z2-7]{4}", names[0])


ADDRESS = Address.parse("https://registry.example.org")
SHOWN = [
    ("mirror-team", "json", "dockerd", ("docker.io",)),
    ("mirror-cluster", "toml", "containerd", ("docker.io", "quay.io", "registry.k8s.io")),
    ("mirror-cluster", "yaml", "k3s", ("docker.io", "quay.io", "registry.k8s.io")),
    ("mirror-ci", "toml", "buildkit", ("docker.io", "ghcr.io")),
]


@pytest.mark.parametrize(("page", "kind", "client", "names"), SHOWN)
def test_the_configuration_of_clients_is_what_the_command_prints(
    page: str, kind: str, client: str, names: tuple[str, ...]
) -> None:
    mirrors = [ClientMirror(name, name, PRESETS[name].url, PRESETS[name].hosts) for name in names]
    [file] = write_files(client, ADDRESS, mirrors, is_all=len(mirrors) > 1)
    text = (GUIDES / f"{page}.md").read_text()
    blocks = re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)
    expected = file.text if kind == "json" else f"# {file.path}\n{file.text}"
    assert expected in blocks
