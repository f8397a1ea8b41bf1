"""Encryption of private keys for export, with a passphrase: scrypt and AES-GCM."""

import os
from collections.abc import Mapping

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from registry.errors import BackupError, InputInvalidError

SHORTEST = 12
"""The minimum length of a passphrase, in characters. A stolen file allows unlimited guesses."""

_NONCE = 12
_LARGEST = 1 << 20


class _Sealed(msgspec.Struct):
    """The contents of the file, in JSON; bytes are base64. `n`, `r`, `p` are the cost of scrypt.

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
        """Derive the cipher from the passphrase.

        This takes half a second, which makes guessing slow.
        """
        derived = Scrypt(self.salt, 32, self.n, self.r, self.p).derive(passphrase.encode())
        return AESGCM(derived)


def require_strong(passphrase: str) -> None:
    """Raise InputInvalidError if the passphrase is too short."""
    if len(passphrase) < SHORTEST:
        raise InputInvalidError(f"the passphrase must have at least {SHORTEST} characters")


def seal(keys: Mapping[str, bytes], passphrase: str, label: str) -> bytes:
    """Encrypt `keys`. Decryption requires the same passphrase and the same label."""
    sealed = _Sealed(salt=os.urandom(16), nonce=os.urandom(_NONCE), data=b"")
    plain = msgspec.json.encode(keys)
    sealed.data = sealed.open_with(passphrase).encrypt(sealed.nonce, plain, label.encode())
    return msgspec.json.encode(sealed)


def unseal(raw: bytes, passphrase: str, label: str) -> dict[str, bytes]:
    """Decrypt the keys; raise BackupError if the passphrase does not decrypt the file."""
    try:
        sealed = msgspec.json.decode(raw, type=_Sealed)
        if (sealed.kdf, sealed.cipher) != ("scrypt", "aes-256-gcm") or sealed.n > _LARGEST:
            raise BackupError(
                "the keys are encrypted with a method that this version does not support"
            )
        plain = sealed.open_with(passphrase).decrypt(sealed.nonce, sealed.data, label.encode())
    except (InvalidTag, msgspec.MsgspecError, ValueError) as error:
        raise BackupError("wrong passphrase: it does not decrypt the keys of the backup") from error
    return msgspec.json.decode(plain, type=dict[str, bytes])
