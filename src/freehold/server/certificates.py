"""Server: what HTTPS is served with: a certificate that was given, or one made here for this machine alone.

One made here is signed by an authority that is made with it and whose key is thrown away: whoever trusts it trusts this one
certificate, and nobody can sign another. Clients are given the authority (`ca.pem`). Not here: sockets (listener.py).
"""

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from freehold.core.errors import BadRequest

VALID_DAYS: Final = 397
"""Some clients believe no longer-lived one: https://support.apple.com/en-us/102028."""

RENEWED_DAYS: Final = 90
"""One that is made here is made anew at a start when it has fewer days left."""

BEFORE: Final = timedelta(hours=1)
"""Clocks differ: it holds from so much before it was made."""


class Certificate(Struct, frozen=True):
    """Paths of PEM files. `ca` is what clients must trust; None where the certificate was given."""

    chain: Path
    key: Path
    ca: Path | None = None


class SelfSigned(Struct, frozen=True):
    """PEM. `chain` is the server's certificate and its authority's."""

    ca: bytes
    chain: bytes
    key: bytes


def self_signed(names: Sequence[str], *, now: datetime) -> SelfSigned:
    """For these host names and addresses, and no others."""
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Freehold on this machine")])
    authority = (
        _dated(issuer, issuer, authority_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Freehold")])
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    server = (
        _dated(subject, issuer, server_key, now)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(server_key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    ca = authority.public_bytes(serialization.Encoding.PEM)
    return SelfSigned(
        ca,
        server.public_bytes(serialization.Encoding.PEM) + ca,
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def is_good(chain: bytes, names: Sequence[str], *, now: datetime) -> bool:
    """Whether a certificate that was made here still does: it is for these names, and for a while yet."""
    try:
        certificate = x509.load_pem_x509_certificate(chain)
        named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    lasts = certificate.not_valid_after_utc - now >= timedelta(days=RENEWED_DAYS)
    return lasts and set(named) == {_general(name) for name in names}


def check(certificate: Certificate) -> None:
    """Raises BadRequest, naming the setting, where no server could be run with these files."""
    for field, path in (("server.tls_cert", certificate.chain), ("server.tls_key", certificate.key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise BadRequest(f"{path} cannot be read: {error.strerror}", field=field) from error
    try:
        x509.load_pem_x509_certificates(certificate.chain.read_bytes())
    except ValueError as error:
        raise BadRequest(
            f"expected certificates in PEM (-----BEGIN CERTIFICATE-----) in {certificate.chain}",
            field="server.tls_cert",
        ) from error
    try:
        serialization.load_pem_private_key(certificate.key.read_bytes(), password=None)
    except TypeError as error:
        raise BadRequest(
            f"{certificate.key} is locked with a password: give it without one", field="server.tls_key"
        ) from error
    except ValueError as error:
        raise BadRequest(
            f"expected a private key in PEM (-----BEGIN PRIVATE KEY-----) in {certificate.key}",
            field="server.tls_key",
        ) from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate.chain, certificate.key)
    except ssl.SSLError as error:
        said = "is not the key of the certificate in" if "MISMATCH" in str(error) else "does not go with"
        raise BadRequest(
            f"{certificate.key} {said} {certificate.chain} ({error.reason})", field="server.tls_key"
        ) from error


def _dated(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509
        .CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(now + timedelta(days=VALID_DAYS))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
