"""Clients of one environment share a TLS context, and others have their own."""

import ssl

import httpx
import pytest
from httpx._transports import default

from tests.support import tls_contexts


def context_of(client: httpx.Client) -> ssl.SSLContext:
    transport = client._transport
    assert isinstance(transport, httpx.HTTPTransport)
    context = transport._pool._ssl_context
    assert context is not None
    return context


def test_clients_share_one() -> None:
    """If httpx moves the function, each client reads the certificates again."""
    assert vars(default)["create_ssl_context"] is tls_contexts._find
    with httpx.Client() as one, httpx.Client() as other:
        assert context_of(one) is context_of(other)


def test_other_certificates_are_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with httpx.Client() as client:
        before = context_of(client)
    monkeypatch.setenv("SSL_CERT_FILE", "")
    monkeypatch.setenv("SSL_CERT_DIR", "/etc/ssl/certs")
    with httpx.Client() as client, httpx.Client(verify=before) as given:
        assert context_of(client) is not before
        assert context_of(given) is before
