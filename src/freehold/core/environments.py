"""Environments, as declared: where what is not trusted runs, and which network a session's tools see. Pure.

Shapes and words: Claude Managed Agents' environments (types of the `anthropic` SDK, `beta.environments`). Freehold runs no code in
environments yet, so what would only matter there (packages) cannot be declared. Who holds tools to the network: runtime/tool_step.py.
"""

import re
from typing import Final, Literal

from msgspec import Struct

from freehold.core.errors import BadRequest

DEFAULT: Final = "default"
"""Of sessions that name none. It limits nothing, and is nobody's to declare."""

HOSTS_MAX: Final = 200
_HOST: Final = re.compile(
    r"(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_HOST_CHARS_MAX: Final = 253


class Network(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """`limited`: tools reach `allowed_hosts` and no others; `*.example.com` is every name below that one. `allow_mcp_servers` and
    `allow_package_managers` add nothing, as long as there is neither.
    """

    type: Literal["unrestricted", "limited"] = "unrestricted"
    allowed_hosts: tuple[str, ...] = ()
    allow_mcp_servers: bool = False
    allow_package_managers: bool = False


class Environment(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag="environment",
    tag_field="kind",
):
    """`hosting` is carried for clients that ask: sessions run on your machines either way. `title` is its name for people."""

    name: str
    title: str = ""
    description: str = ""
    hosting: Literal["cloud", "self_hosted"] = "cloud"
    network: Network = Network()
    metadata: dict[str, str] = {}


def check(environment: Environment) -> None:
    """Raises BadRequest with the path of what is wrong."""
    if environment.name == DEFAULT:
        raise BadRequest(
            f"{DEFAULT!r} is the environment of sessions that name none; call this one something else",
            field="name",
        )
    network = environment.network
    if environment.hosting == "self_hosted" and network != Network():
        raise BadRequest("expected none where the environment is self_hosted", field="network")
    if network.type == "unrestricted" and network != Network():
        raise BadRequest("expected hosts only where the network is limited", field="network.type")
    if len(network.allowed_hosts) > HOSTS_MAX:
        raise BadRequest(
            f"expected {HOSTS_MAX} hosts at most, got {len(network.allowed_hosts)}",
            field="network.allowed_hosts",
        )
    for place, host in enumerate(network.allowed_hosts):
        if len(host) > _HOST_CHARS_MAX or not _HOST.fullmatch(host):
            raise BadRequest(
                f"expected a name in lower case, without scheme, port and path, like api.example.com or *.example.com; got {host[:80]!r}",
                field=f"network.allowed_hosts[{place}]",
            )


def hosts_of(environment: Environment) -> tuple[str, ...] | None:
    """What its sessions' tools may reach; None: whatever they can."""
    return environment.network.allowed_hosts if environment.network.type == "limited" else None


def reaches(hosts: tuple[str, ...] | None, host: str) -> bool:
    """Whether `host`, a name or an address, is one of those."""
    if hosts is None:
        return True
    name = host.lower().rstrip(".")
    return any(name == one or (one.startswith("*.") and name.endswith(one[1:])) for one in hosts)
