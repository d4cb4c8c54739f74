"""Governance: who a credential stands for, and who a principal's id stands for now.

Besides API keys there is the operator: whoever can read the data folder of a running server, and with it the key that this
server made for its lifetime (`server.json`, 0600). It may do everything in the default tenant.
"""

import hmac
from typing import Final

from freehold.core.errors import Unauthenticated
from freehold.core.policy import ALLOW_ALL, Principal
from freehold.governance.keys import Admitted, KeyTable

DEFAULT_TENANT: Final = "default"
OPERATOR: Final = Principal(DEFAULT_TENANT, "user", "operator", (ALLOW_ALL,))
_NEVER_KEPT: Final = -1
"""A generation of keys that never is."""


class PrincipalTable:
    """`operator_key` is None where nobody is the operator."""

    def __init__(self, keys: KeyTable, *, operator_key: str | None) -> None:
        self._keys = keys
        self._operator_key = operator_key.encode() if operator_key else None
        self.holds: Final = keys.holds
        """As of the keys: the operator's is asked for each time."""

    def admit(self, credential: str | None) -> Admitted:
        """Microseconds, and no wait. Raises Unauthenticated."""
        if (
            self._operator_key is not None
            and credential is not None
            and hmac.compare_digest(credential.encode(), self._operator_key)
        ):
            return Admitted(OPERATOR, None, _NEVER_KEPT)
        return self._keys.admit(credential)

    async def current(self, tenant: str, principal_id: str) -> Principal:
        """As `now`."""
        return self.now(tenant, principal_id)

    def now(self, tenant: str, principal_id: str) -> Principal:
        """Raises Unauthenticated where the key was revoked, has expired or is unknown by now."""
        if principal_id == OPERATOR.id and tenant == OPERATOR.tenant:
            return OPERATOR
        principal = self._keys.principal(principal_id)
        if principal.tenant != tenant:
            raise Unauthenticated(f"the API key {principal_id} is unknown")
        return principal
