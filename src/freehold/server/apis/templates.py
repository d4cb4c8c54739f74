"""Templates: what applying one would change, and applying it. And declared resources of every kind, to look at."""

from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest, Conflict
from freehold.core.policy import authorize
from freehold.core.ports import Resources, Versioned
from freehold.core.resources import KINDS, Kind, kind_of
from freehold.core.routes import Route
from freehold.core.validation import near
from freehold.resources.plan import Plan
from freehold.resources.templates import Templates
from freehold.server.operations import Call, Operation

SOURCE_CHARACTERS_MAX: Final = 200


class TemplateBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`source` is the file's name, for messages. `variables` fill `${NAME}`."""

    template: str
    source: str = "template"
    variables: dict[str, str] = {}
    allow_unknown_models: bool = False


class ResourceShown(Struct, frozen=True, kw_only=True):
    kind: str
    name: str
    version: int
    created_at: datetime
    updated_at: datetime
    created_by: str
    archived: bool
    resource: Any


class AppliedShown(Struct, frozen=True):
    plan: Plan
    resources: tuple[ResourceShown, ...]


class ResourceList(Struct, frozen=True):
    data: tuple[ResourceShown, ...]


class ListResources(Struct, frozen=True, forbid_unknown_fields=True):
    kind: str | None = None
    include_archived: bool = False


class GetResource(Struct, frozen=True, forbid_unknown_fields=True):
    version: int | None = None


def shown(one: Versioned) -> ResourceShown:
    return ResourceShown(
        kind=kind_of(one.resource),
        name=one.resource.name,
        version=one.version,
        created_at=one.created_at,
        updated_at=one.updated_at,
        created_by=one.created_by,
        archived=one.archived,
        resource=msgspec.to_builtins(one.resource),
    )


def kind_named(name: str) -> Kind:
    """Also takes the plural (`agents`, `capacities`), as people type it."""
    for kind in KINDS:
        if name in {kind, f"{kind}s", f"{kind.removesuffix('y')}ies"}:
            return kind
    raise BadRequest(f"expected one of {', '.join(KINDS)}; got {name!r}{near(name, KINDS)}", field="kind")


class TemplateApi:
    def __init__(self, templates: Templates, resources: Resources) -> None:
        self._templates = templates
        self._resources = resources

    async def plan(self, call: Call) -> Plan:
        body: TemplateBody = call.body
        return await self._templates.plan(
            call.principal,
            body.template,
            source=body.source[:SOURCE_CHARACTERS_MAX],
            variables=body.variables,
            unknown_models_allowed=body.allow_unknown_models,
        )

    async def apply(self, call: Call) -> AppliedShown:
        body: TemplateBody = call.body
        applied = await self._templates.apply(
            call.principal,
            body.template,
            source=body.source[:SOURCE_CHARACTERS_MAX],
            variables=body.variables,
            unknown_models_allowed=body.allow_unknown_models,
        )
        return AppliedShown(applied.plan, tuple(shown(one) for one in applied.resources))

    async def list(self, call: Call) -> ResourceList:
        query: ListResources = call.query
        kind = None if query.kind is None else kind_named(query.kind)
        authorize(call.principal, f"{kind or 'resource'}:List", f"{kind or 'resource'}/*")
        found = await self._resources.list(call.principal.tenant, kind, archived=query.include_archived)
        return ResourceList(tuple(shown(one) for one in found))

    async def get(self, call: Call) -> ResourceShown:
        kind, name = kind_named(call.path["kind"]), call.path["name"]
        query: GetResource = call.query
        authorize(call.principal, f"{kind}:Read", f"{kind}/{name}")
        return shown(await self._resources.get(call.principal.tenant, kind, name, version=query.version))

    async def versions(self, call: Call) -> ResourceList:
        kind, name = kind_named(call.path["kind"]), call.path["name"]
        authorize(call.principal, f"{kind}:Read", f"{kind}/{name}")
        found = await self._resources.versions(call.principal.tenant, kind, name)
        return ResourceList(tuple(shown(one) for one in found))

    async def archive(self, call: Call) -> ResourceShown:
        kind, name = kind_named(call.path["kind"]), call.path["name"]
        authorize(call.principal, f"{kind}:Archive", f"{kind}/{name}")
        if kind == "route":
            await self._check_no_arm(call.principal.tenant, name)
        await self._resources.archive(call.principal.tenant, kind, name, by=call.principal.id)
        newest, *_ = await self._resources.versions(call.principal.tenant, kind, name)
        return shown(newest)

    async def _check_no_arm(self, tenant: str, name: str) -> None:
        """Raises Conflict where another route's experiment would be without one of its arms."""
        for one in await self._resources.list(tenant, "route"):
            experiment = one.resource.experiment if isinstance(one.resource, Route) else None
            if experiment is not None and name in {arm for _, arm in experiment.routes()}:
                raise Conflict(
                    f"route {name} is an arm of route {one.resource.name}: change or archive that one first"
                )


def operations(templates: Templates, resources: Resources) -> list[Operation]:
    api = TemplateApi(templates, resources)
    one = "/v1/resources/{kind}/{name}"
    return [
        Operation(method="POST", path="/v1/templates/plan", id="planTemplate", tag="resources",
                  summary="What applying a template would change; changes nothing.", handler=api.plan, body=TemplateBody,
                  answer=Plan),
        Operation(method="POST", path="/v1/templates/apply", id="applyTemplate", tag="resources",
                  summary="Apply a template, all or nothing.", handler=api.apply, body=TemplateBody, answer=AppliedShown),
        Operation(method="GET", path="/v1/resources", id="listResources", tag="resources", summary="Declared resources.",
                  handler=api.list, query=ListResources, answer=ResourceList),
        Operation(method="GET", path=one, id="getResource", tag="resources", summary="A resource, or one version of it.",
                  handler=api.get, query=GetResource, answer=ResourceShown),
        Operation(method="GET", path=f"{one}/versions", id="listResourceVersions", tag="resources",
                  summary="Every version, newest first.", handler=api.versions, answer=ResourceList),
        Operation(method="DELETE", path=one, id="archiveResource", tag="resources", summary="Take out of use; versions stay.",
                  handler=api.archive, answer=ResourceShown),
    ]  # fmt: skip
