"""Private keys in a file that leaves the registry, encrypted with a passphrase: scrypt, AES-GCM."""

import os
from collections.abc import Mapping

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from registry.errors import BackupError, InputInvalidError

SHORTEST = 12
"""Characters of a passphrase at the least: whoever has the file can try as many as they like."""

_NONCE = 12
_LARGEST = 1 << 20


class _Sealed(msgspec.Struct):
    """What the file says, in JSON; bytes are base64. `n`, `r`, `p`: the cost, as scrypt names it.

    Source of the default: OWASP Password Storage Cheat Sheet, of those that take 64 MiB.
    """

    salt: bytes
    nonce: bytes
    data: bytes
    kdf: str = "scrypt"
    cipher: str = "aes-256-gcm"
    n: int = 1 << 16
    r: int = 8
    p: int = 2

    def open_with(self, passphrase: str) -> AESGCM:
        """Half a second of work, which is what makes guessing dear."""
        derived = Scrypt(self.salt, 32, self.n, self.r, self.p).derive(passphrase.encode())
        return AESGCM(derived)


def require_strong(passphrase: str) -> None:
    """InputInvalidError for one that is too short."""
    if len(passphrase) < SHORTEST:
        raise InputInvalidError(f"the passphrase has fewer than {SHORTEST} characters")


def seal(keys: Mapping[str, bytes], passphrase: str, label: str) -> bytes:
    """The file of `keys`, which opens with the passphrase and under the same label alone."""
    sealed = _Sealed(salt=os.urandom(16), nonce=os.urandom(_NONCE), data=b"")
    plain = msgspec.json.encode(keys)
    sealed.data = sealed.open_with(passphrase).encrypt(sealed.nonce, plain, label.encode())
    return msgspec.json.encode(sealed)


def unseal(raw: bytes, passphrase: str, label: str) -> dict[str, bytes]:
    """The keys; BackupError if the passphrase does not open the file."""
    try:
        sealed = msgspec.json.decode(raw, type=_Sealed)
        if (sealed.kdf, sealed.cipher) != ("scrypt", "aes-256-gcm") or sealed.n > _LARGEST:
            raise BackupError("the keys are encrypted in a way that this version does not know")
        plain = sealed.open_with(passphrase).decrypt(sealed.nonce, sealed.data, label.encode())
    except (InvalidTag, msgspec.MsgspecError, ValueError) as error:
        raise BackupError("the passphrase does not open the keys of the backup") from error
    return msgspec.json.decode(plain, type=dict[str, bytes])
