"""Governance: where a reference (`env:NAME`, `file:PATH`) becomes a secret, and how text is cleaned of secrets.

References stand in resources and files, values nowhere. Not here: what a reference may look like (core/resources.py SECRET).
"""

import logging
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from freehold.core.errors import BadRequest, NotFound, TooLarge

SECRET_BYTES_MAX: Final = 64 * 1024
REDACTED: Final = "[redacted]"
REDACTED_CHARS_MIN: Final = 8
"""Shorter values are not looked for in text: they would be found in half of all words."""

_SHAPES: Final = re.compile(
    r"(?i)\b(?:fh_[0-9a-z]{26}_[0-9A-Za-z]{16,}|sk-[0-9A-Za-z_-]{12,}|AKIA[0-9A-Z]{16}|gh[pousr]_[0-9A-Za-z]{20,})"
    r"|(?<=bearer )[0-9A-Za-z._~+/=-]{12,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
"""Freehold's keys, vendors' keys, bearer tokens, and the login in an address."""

log = logging.getLogger(__name__)


class Secrets:
    """`environment` is the process's at its start. Values that were resolved are remembered only to keep them out of text."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._resolved: set[str] = set()
        self._warned: set[str] = set()

    def resolve(self, reference: str) -> str:
        """Raises NotFound naming the reference, BadRequest for what is none. Reads a file each time: it may be renewed."""
        scheme, _, name = reference.partition(":")
        if scheme == "env" and name:
            value = self._environment.get(name, "").strip()
            if not value:
                raise NotFound(
                    f"the environment variable {name} is not set: set it where Freehold is started"
                )
        elif scheme == "file" and name:
            value = self._read(Path(name).expanduser())
        else:
            raise BadRequest(
                "expected env:NAME or file:PATH, got something else (a secret's value never goes here)"
            )
        if len(value) >= REDACTED_CHARS_MIN:
            self._resolved.add(value)
        return value

    def redact(self, text: str) -> str:
        """For logs and details: known values, and whatever looks like a key."""
        for value in self._resolved:
            if value in text:
                text = text.replace(value, REDACTED)
        return _SHAPES.sub(REDACTED, text)

    def _read(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                mode = path.stat().st_mode
                data = file.read(SECRET_BYTES_MAX + 1)
        except OSError as error:
            raise NotFound(f"the secret's file {path} cannot be read: {error.strerror}") from error
        if len(data) > SECRET_BYTES_MAX:
            raise TooLarge(f"the secret's file {path} is over SECRET_BYTES_MAX = {SECRET_BYTES_MAX}")
        if mode & (stat.S_IRWXG | stat.S_IRWXO) and str(path) not in self._warned:
            self._warned.add(str(path))
            log.warning(
                "secret.file_open_to_others",
                extra={"path": str(path), "mode": oct(mode & 0o777), "wanted": "0o600"},
            )
        try:
            value = data.decode().strip()
        except UnicodeDecodeError as error:
            raise BadRequest(f"the secret's file {path} is no UTF-8 text") from error
        if not value:
            raise NotFound(f"the secret's file {path} is empty")
        return value
