"""Who asks: a request's key (`Authorization: Bearer`, `x-api-key` as Anthropic's older SDKs send it, or `x-goog-api-key`) and labels."""

from collections.abc import Mapping
from typing import Protocol

from msgspec import structs

from freehold.core.errors import Unauthenticated
from freehold.core.policy import Principal
from freehold.gateway.residency import labelled
from freehold.governance.keys import Admitted
from freehold.server.head import Head


class Admits(Protocol):
    """Who a credential stands for (governance/principals.py)."""

    def admit(self, credential: str | None) -> Admitted: ...
    def holds(self, admitted: Admitted) -> bool: ...


class Authentication:
    """Asked by a request's headers, names lower-cased. Raises Unauthenticated. Never waits."""

    def __init__(self, principals: Admits) -> None:
        self._principals = principals

    def __call__(self, headers: Mapping[str, str]) -> Principal:
        return self._admit(headers).principal

    def of(self, head: Head) -> Principal:
        """By its headers. A head that comes again is looked up again only when keys have changed."""
        admitted: Admitted | None = head.admitted
        if admitted is None or not self._principals.holds(admitted):
            admitted = head.admitted = self._admit(head.headers)
        return admitted.principal

    def _admit(self, headers: Mapping[str, str]) -> Admitted:
        admitted = self._principals.admit(credential_of(headers))
        principal = labelled(admitted.principal, headers)
        return admitted if principal is admitted.principal else structs.replace(admitted, principal=principal)


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
