"""Wires: a refusal that AWS has a name of its own for: `aws_type` is what its SDKs are told instead of the cause's usual one."""

from freehold.core.errors import Unauthenticated


class SignatureRefused(Unauthenticated):
    def __init__(self, aws_type: str, message: str) -> None:
        super().__init__(message)
        self.aws_type = aws_type


def wrong_signature() -> SignatureRefused:
    return SignatureRefused(
        "InvalidSignatureException",
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and"
        " signing method. Consult the service documentation for details.",
    )


def incomplete(said: str) -> SignatureRefused:
    return SignatureRefused("IncompleteSignatureException", said)


def unknown_key() -> SignatureRefused:
    return SignatureRefused(
        "UnrecognizedClientException", "The security token included in the request is invalid."
    )
