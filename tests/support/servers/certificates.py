"""A certificate authority for tests, and the server certificates that it issues."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from registry import clock


class Authority:
    """Certificate authority. `bundle` is its certificate in PEM, which clients must trust."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = generate_private_key(SECP256R1())
        self._name = _name(name)
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, SHA256())
        )

    @property
    def bundle(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)

    def certify(self, key: CertificatePublicKeyTypes, *hosts: str, days: int = 30) -> bytes:
        """Return a certificate for `hosts` in PEM. It is expired if `days` is negative."""
        names = x509.SubjectAlternativeName([_general(host) for host in hosts])
        builder = _builder(_name(hosts[0]), self._name, key, days)
        certificate = builder.add_extension(names, critical=False).sign(self._key, SHA256())
        return certificate.public_bytes(Encoding.PEM)

    def issue(self, folder: Path, *hosts: str, days: int = 30) -> tuple[Path, Path]:
        """Write a certificate for `hosts` and its key in PEM, and return their paths."""
        key = generate_private_key(SECP256R1())
        paths = folder / f"{hosts[0]}.crt", folder / f"{hosts[0]}.key"
        paths[0].write_bytes(self.certify(key.public_key(), *hosts, days=days))
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return paths


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, days: int = 30
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(clock.now_us() // 1_000_000, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=days))
    )
