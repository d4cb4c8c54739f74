"""HTTPS for a command that serves: which certificate, made here where that was asked for, and the socket beside HTTP's."""

import ipaddress
import re
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from freehold.app import write_private
from freehold.config import Config
from freehold.core.errors import BadRequest
from freehold.server.certificates import Certificate, check, is_good, self_signed

FOLDER_NAME: Final = "tls"
SELF_SIGNED: Final = "self-signed"
_HOST_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
HOST_NAME_CHARS_MAX: Final = 253


def certificate(config: Config) -> Certificate | None:
    """None where HTTPS is not asked for. Raises BadRequest for files that cannot be served with, naming the setting."""
    chain, key = config.server.tls_cert, config.server.tls_key
    if config.server.tls is not None:
        if chain is not None or key is not None:
            raise BadRequest(
                f"{config.server.tls!r} makes a certificate: give it or tls_cert and tls_key, not both",
                field="server.tls",
            )
        return _made(config)
    if chain is None and key is None:
        return None
    if chain is None or key is None:
        missing, given = ("tls_cert", "tls_key") if chain is None else ("tls_key", "tls_cert")
        raise BadRequest(f"{given} is given without {missing}: both are needed", field=f"server.{missing}")
    found = Certificate(Path(chain).expanduser(), Path(key).expanduser())
    check(found)
    return found


def _made(config: Config) -> Certificate:
    folder = config.data_folder / FOLDER_NAME
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Certificate(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
    names, now = _names(config.server.host), datetime.now(UTC)
    paths = (made.chain, made.key, folder / "ca.pem")
    if all(path.exists() for path in paths) and is_good(made.chain.read_bytes(), names, now=now):
        return made
    pem = self_signed(names, now=now)
    for path, content in zip(paths, (pem.chain, pem.key, pem.ca), strict=True):
        write_private(path, content)
    return made


def _names(host: str) -> list[str]:
    """This machine as its clients may call it."""
    names = ["localhost", "127.0.0.1", "::1"]
    for name in (socket.gethostname().lower(), host.lower()):
        if name not in names and _is_name(name):
            names.append(name)
    return names


def _is_name(name: str) -> bool:
    try:
        return not ipaddress.ip_address(name).is_unspecified
    except ValueError:
        return len(name) <= HOST_NAME_CHARS_MAX and _HOST_NAME.fullmatch(name) is not None
