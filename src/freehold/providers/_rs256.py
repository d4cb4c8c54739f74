"""Providers: RS256, the signature under a JWT. Source: https://www.rfc-editor.org/rfc/rfc7518#section-3.3.

A file of its own since what it imports takes 20 ms, and hardly any server starts with a key to sign with.
"""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from freehold.core.errors import BadRequest


class Signer:
    __slots__ = ("_key",)

    def __init__(self, pem: str) -> None:
        """Raises BadRequest, never showing the key."""
        try:
            key = load_pem_private_key(pem.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise BadRequest("its private_key is no PEM of an RSA key", field="api_key") from None
        if not isinstance(key, RSAPrivateKey):
            raise BadRequest("its private_key is no RSA key", field="api_key")
        self._key = key

    def signature(self, data: bytes) -> bytes:
        """Takes about a millisecond."""
        return self._key.sign(data, PKCS1v15(), SHA256())
