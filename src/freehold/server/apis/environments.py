"""Environments, in Claude Managed Agents' shapes: /v1/environments. Its id is its name, as an agent's.

Actions: `environment:Put`, `:Read`, `:List`, `:Archive`, `:Delete`; whoever begins a session in one needs `environment:Use`.

Not served: packages (Freehold runs no code in environments, so nothing would be installed), and the queue of work for self-hosted
environments: sessions are carried forward by `freehold worker`, on your machines anyway.
"""

from datetime import UTC, datetime
from typing import Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType, structs

from freehold.core import environments
from freehold.core.environments import DEFAULT, Environment, Network
from freehold.core.errors import BadRequest, Unsupported
from freehold.core.policy import Principal, authorize
from freehold.core.ports import Clock, Resources, Versioned
from freehold.runtime.inputs import check_metadata
from freehold.server.apis._named import (
    PAGE_MAX,
    also_archived,
    changeable,
    id_and_title,
    page_by_name,
    patched,
    renamed,
    with_given,
)
from freehold.server.operations import Call, Operation

_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MANAGERS: Final = ("apt", "cargo", "gem", "go", "npm", "pip")
_PATHS: Final = (("network.", "config.networking."), ("hosting", "config.type"))


class Unrestricted(Struct, frozen=True, tag="unrestricted", forbid_unknown_fields=True):
    pass


class Limited(Struct, frozen=True, tag="limited", forbid_unknown_fields=True):
    """What is left out stays, in a change."""

    allowed_hosts: tuple[str, ...] | None = None
    allow_mcp_servers: bool | None = None
    allow_package_managers: bool | None = None


class Packages(Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["packages"] = "packages"
    apt: tuple[str, ...] | None = None
    cargo: tuple[str, ...] | None = None
    gem: tuple[str, ...] | None = None
    go: tuple[str, ...] | None = None
    npm: tuple[str, ...] | None = None
    pip: tuple[str, ...] | None = None


class CloudConfig(Struct, frozen=True, tag="cloud", forbid_unknown_fields=True):
    networking: Unrestricted | Limited | None = None
    packages: Packages | None = None


class SelfHostedConfig(Struct, frozen=True, tag="self_hosted", forbid_unknown_fields=True):
    pass


class EnvironmentBody(Struct, frozen=True, forbid_unknown_fields=True):
    """To create and to change: what is left out stays (or takes its default)."""

    name: str | UnsetType | None = UNSET
    config: CloudConfig | SelfHostedConfig | None = None
    description: str | UnsetType | None = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    scope: Literal["organization", "account"] | None = None


class EnvironmentShown(Struct, frozen=True, kw_only=True):
    id: str
    type: str = "environment"
    name: str
    description: str | None
    config: dict[str, Any]
    metadata: dict[str, str]
    scope: str = "organization"
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None


class EnvironmentPage(Struct, frozen=True):
    data: tuple[EnvironmentShown, ...]
    next_page: str | None = None


class EnvironmentDeleted(Struct, frozen=True):
    id: str
    type: str = "environment_deleted"


class ListEnvironments(Struct, frozen=True, forbid_unknown_fields=True):
    limit: int = PAGE_MAX
    page: str | None = None
    include_archived: bool = False


class AnyQuery(Struct, frozen=True):
    """Of what is not served, whatever it is."""


def shown(one: Versioned) -> EnvironmentShown:
    environment = one.resource
    if not isinstance(environment, Environment):
        raise TypeError(f"expected an environment, got {type(environment).__name__}")
    return EnvironmentShown(
        id=environment.name,
        name=environment.title or environment.name,
        description=environment.description or None,
        config=_config_shown(environment),
        metadata=environment.metadata,
        created_at=one.created_at,
        updated_at=one.updated_at,
        archived_at=one.updated_at if one.archived else None,
    )


def _config_shown(environment: Environment) -> dict[str, Any]:
    if environment.hosting == "self_hosted":
        return {"type": "self_hosted"}
    network = environment.network
    networking: dict[str, Any] = {"type": network.type}
    if network.type == "limited":
        networking |= {
            "allowed_hosts": network.allowed_hosts,
            "allow_mcp_servers": network.allow_mcp_servers,
            "allow_package_managers": network.allow_package_managers,
        }
    packages: dict[str, Any] = {"type": "packages"} | {name: [] for name in _MANAGERS}
    return {"type": "cloud", "networking": networking, "packages": packages}


def changed(environment: Environment, body: EnvironmentBody) -> Environment:
    """Pure. Raises BadRequest and Unsupported with the path of what is wrong."""
    if body.scope == "account":
        raise Unsupported("what is declared here is everybody's in the organization", field="scope")
    given: dict[str, Any] = {
        "description": "" if body.description is None else body.description,
        "metadata": patched(environment.metadata, body.metadata),
    }
    match body.config:
        case SelfHostedConfig():
            given |= {"hosting": "self_hosted", "network": Network()}
        case CloudConfig() as cloud:
            _refuse_packages(cloud.packages)
            given |= {"hosting": "cloud", "network": _network(environment.network, cloud.networking)}
        case None:
            pass
    made = with_given(environment, given)
    try:
        environments.check(made)
    except BadRequest as error:
        path = error.field or ""
        for ours, theirs in _PATHS:
            path = path.replace(ours, theirs, 1)
        raise BadRequest(error.message, field=path) from error
    check_metadata(made.metadata)
    return made


def _network(before: Network, given: Unrestricted | Limited | None) -> Network:
    match given:
        case None:
            return before
        case Unrestricted():
            return Network()
        case Limited():
            wanted = {name: value for name, value in structs.asdict(given).items() if value is not None}
            return structs.replace(before, type="limited", **wanted)


def _refuse_packages(packages: Packages | None) -> None:
    for name in _MANAGERS:
        if packages is not None and getattr(packages, name):
            raise Unsupported(
                "expected none: Freehold runs no code in environments, so nothing would be installed",
                field=f"config.packages.{name}",
            )


class Environments:
    def __init__(self, resources: Resources, clock: Clock) -> None:
        self._resources = resources
        self._clock = clock

    async def create(self, call: Call) -> EnvironmentShown:
        body: EnvironmentBody = call.body
        if not isinstance(body.name, str):
            raise BadRequest("required, but missing", field="name")
        name, title = id_and_title(body.name, self._clock)
        return await self._put(call.principal, changed(Environment(name=name, title=title), body), expected=0)

    async def update(self, call: Call) -> EnvironmentShown:
        body: EnvironmentBody = call.body
        there = await self._get(call.principal, call.path["environment_id"])
        environment = renamed(changeable(there, Environment), body.name)
        if isinstance(body.metadata, dict):
            # Of environments alone an empty text takes a key out, as null does (the SDK's environment_update_params).
            body = structs.replace(
                body, metadata={name: value or None for name, value in body.metadata.items()}
            )
        return await self._put(call.principal, changed(environment, body), expected=there.version)

    async def get(self, call: Call) -> EnvironmentShown:
        return shown(await self._get(call.principal, call.path["environment_id"]))

    async def list(self, call: Call) -> EnvironmentPage:
        query: ListEnvironments = call.query
        authorize(call.principal, "environment:List", "environment/*")
        tenant = call.principal.tenant
        listed = await self._resources.list(tenant, "environment", archived=query.include_archived)
        page, following = page_by_name(listed, limit=query.limit, after=query.page)
        return EnvironmentPage(tuple(map(shown, page)), following)

    async def archive(self, call: Call) -> EnvironmentShown:
        """Sessions that are in it go on."""
        name = call.path["environment_id"]
        authorize(call.principal, "environment:Archive", f"environment/{name}")
        await self._resources.archive(call.principal.tenant, "environment", name, by=call.principal.id)
        return shown(await self._get(call.principal, name))

    async def delete(self, call: Call) -> EnvironmentDeleted:
        name = call.path["environment_id"]
        authorize(call.principal, "environment:Delete", f"environment/{name}")
        await self._resources.delete_environment(call.principal.tenant, name)
        return EnvironmentDeleted(name)

    async def _get(self, principal: Principal, name: str) -> Versioned:
        """Also one that is archived, and the one of sessions that name none."""
        authorize(principal, "environment:Read", f"environment/{name}")
        if name == DEFAULT:
            return Versioned(
                resource=Environment(name=DEFAULT), version=0, created_at=_EVER, updated_at=_EVER
            )
        return await also_archived(self._resources, principal.tenant, "environment", name)

    async def _put(
        self, principal: Principal, environment: Environment, *, expected: int
    ) -> EnvironmentShown:
        authorize(principal, "environment:Put", f"environment/{environment.name}")
        written = await self._resources.put(
            principal.tenant,
            [environment],
            by=principal.id,
            expected={("environment", environment.name): expected},
        )
        return shown(written[0])


async def _no_work(call: Call) -> None:
    """For a client that would otherwise wait for work that never comes."""
    raise Unsupported(
        "Freehold hands out no work for self-hosted environments: sessions are carried forward by `freehold worker` (docs/workers.md)"
    )


def operations(resources: Resources, clock: Clock) -> list[Operation]:
    api = Environments(resources, clock)
    one = "/v1/environments/{environment_id}"
    work = f"{one}/work"
    unserved = (
        ("GET", work, "listWork"), ("GET", f"{work}/poll", "pollWork"), ("GET", f"{work}/stats", "workStats"),
        ("GET", f"{work}/{{work_id}}", "getWork"), ("POST", f"{work}/{{work_id}}", "updateWork"),
        ("POST", f"{work}/{{work_id}}/ack", "acknowledgeWork"), ("POST", f"{work}/{{work_id}}/heartbeat", "keepWork"),
        ("POST", f"{work}/{{work_id}}/stop", "stopWork"),
    )  # fmt: skip
    return [
        Operation(method="POST", path="/v1/environments", id="createEnvironment", tag="environments",
                  summary="Declare an environment.", handler=api.create, body=EnvironmentBody, answer=EnvironmentShown),
        Operation(method="GET", path="/v1/environments", id="listEnvironments", tag="environments", summary="Environments, by name.",
                  handler=api.list, query=ListEnvironments, answer=EnvironmentPage),
        Operation(method="GET", path=one, id="getEnvironment", tag="environments", summary="An environment.", handler=api.get,
                  answer=EnvironmentShown),
        Operation(method="POST", path=one, id="updateEnvironment", tag="environments",
                  summary="Change an environment; its sessions' next turns go by it.", handler=api.update, body=EnvironmentBody,
                  answer=EnvironmentShown),
        Operation(method="DELETE", path=one, id="deleteEnvironment", tag="environments",
                  summary="Delete an environment that no session is in, for good.", handler=api.delete, answer=EnvironmentDeleted),
        Operation(method="POST", path=f"{one}/archive", id="archiveEnvironment", tag="environments",
                  summary="Take out of use; sessions in it go on.", handler=api.archive, answer=EnvironmentShown),
        *(Operation(method=method, path=path, id=name, tag="environments", summary="Not served.", handler=_no_work,
                    query=AnyQuery)
          for method, path, name in unserved),
    ]  # fmt: skip
