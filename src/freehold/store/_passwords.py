"""Store: passwords of database roles, in one file that only its owner reads. Not here: API keys and users' secrets (governance).

The file is replaced as a whole, and synced, before a password is used anywhere: a crash leaves at worst a password that no
role has yet, never a role whose password nobody knows.
"""

import os
import secrets
from pathlib import Path

import msgspec

from freehold.core.errors import Unavailable
from freehold.store.data_folder import folder_error

PASSWORD_BYTES = 24
"""Entropy of a generated password; its text is URL-safe base64 and needs no quoting in SQL or in a URL."""


class Passwords:
    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, role: str) -> str | None:
        return self._read().get(role)

    def ensure(self, role: str) -> str:
        """The role's password; made and saved at the first call. Raises Unavailable when the file cannot be used."""
        known = self._read()
        if role not in known:
            known[role] = secrets.token_urlsafe(PASSWORD_BYTES)
            self._write(known)
        return known[role]

    def _read(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise folder_error(self.path.parent, error) from error
        except msgspec.MsgspecError as error:
            raise Unavailable(
                f"{self.path} should be a JSON object of role names and passwords, and is not. Restore it from a backup.",
                detail=str(error),
            ) from error

    def _write(self, known: dict[str, str]) -> None:
        fresh = self.path.with_name(self.path.name + ".new")
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(known), indent=2))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise folder_error(self.path.parent, error) from error


def sync_folder(folder: Path) -> None:
    """Makes renames in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
