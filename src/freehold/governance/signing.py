"""Governance: secrets that webhooks are signed with. None is kept: each is made of the installation's pepper, the webhook and a number.

So servers that share a pepper sign alike, and a database that is read by somebody else gives none away. Why: docs/decisions/0005.
"""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime

from freehold.core.webhooks import WebhookRow


class Signing:
    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper

    def key(self, webhook: WebhookRow, number: int | None = None) -> bytes:
        """32 bytes: of its present secret, unless another number is asked for."""
        wanted = webhook.secret_number if number is None else number
        named = "\0".join(("webhook", webhook.tenant, webhook.uid, str(wanted)))
        return hmac.digest(self._pepper, named.encode(), hashlib.sha256)

    def keys(self, webhook: WebhookRow, now: datetime) -> Sequence[bytes]:
        """All that are good now, the present one first."""
        if webhook.previous_until is None or webhook.previous_until <= now:
            return [self.key(webhook)]
        return [self.key(webhook), self.key(webhook, webhook.secret_number - 1)]
