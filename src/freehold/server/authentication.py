"""How a request carries its key: `Authorization: Bearer`, `x-api-key` as Anthropic's older SDKs send it, or `x-goog-api-key`."""

from collections.abc import Mapping

from freehold.core.errors import Unauthenticated


def credential_of(headers: Mapping[str, str]) -> str | None:
    """Headers' names are lower-cased. Raises Unauthenticated for another scheme than Bearer."""
    given = headers.get("authorization")
    if given:
        if given.startswith("Bearer "):  # As most write it.
            return given[7:].strip()
        scheme, _, credential = given.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated(f"expected Authorization: Bearer <key>, got the scheme {scheme[:20]!r}")
        return credential.strip()
    return headers.get("x-api-key") or headers.get("x-goog-api-key")
