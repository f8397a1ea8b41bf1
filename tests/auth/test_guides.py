"""The settings and the script that the guides show do what the guides say."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from registry.auth.jose import public_keys
from registry.config import load
from tests.support.certificates import Authority

DOCS = Path(__file__).resolve().parents[2] / "docs"
CI = (DOCS / "ci.md").read_text()
EXISTING = (DOCS / "existing-issuer.md").read_text()


@pytest.mark.parametrize("page", [CI, EXISTING], ids=["ci", "existing-issuer"])
def test_the_settings_shown_are_accepted(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        tomllib.loads(block)
        (tmp_path / "moorage.toml").write_text(block)
        load(config=None, data=tmp_path, overrides={}, environ={})


def test_the_script_writes_the_keys_of_a_certificate(tmp_path: Path) -> None:
    """Named as GitLab and docker_auth name it; the expected name is of another program."""
    [script] = re.findall(r"<<'EOF'\n(.*?)\nEOF\n", EXISTING, re.DOTALL)
    key = generate_private_key(65537, 2048)
    (tmp_path / "registry.crt").write_bytes(_certificate(key))
    written = subprocess.run(
        [sys.executable, "-", tmp_path / "registry.crt"],
        input=script, capture_output=True, text=True, check=True,
    )  # fmt: skip
    [(kid, found)] = public_keys(json.loads(written.stdout)).items()
    assert re.fullmatch(r"([A-Z2-7]{4}:){11}[A-Z2-7]{4}", kid)
    assert found.algorithm == "RS256"
    assert found.key == key.public_key()
