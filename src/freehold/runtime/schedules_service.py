"""Runtime: what an API does with deployments. Nothing of any dialect.

Every door authorizes: `deployment:Put`, `deployment:Read`, `deployment:Archive`, `deployment:Pause` and `deployment:Run` on
`deployment/<id>`, `deployment:List` on `deployment/*`. Who declares one also needs `session:Create` on its agent: it will act with their
rights of the moment. Who may only run it has it do what it declares, and nothing else.
"""

from msgspec.structs import replace

from freehold.core import ids
from freehold.core.deployments import (
    DeploymentPage,
    DeploymentRow,
    DeploymentRun,
    Deployments,
    DeploymentStatus,
    RunPage,
    Trigger,
)
from freehold.core.environments import DEFAULT
from freehold.core.errors import BadRequest, Conflict
from freehold.core.policy import Principal, authorize
from freehold.core.ports import Clock, Resources
from freehold.core.schedules import Deployment
from freehold.core.session_log import ANY_TIME, Created
from freehold.runtime.inputs import check_idempotency_key, check_limit
from freehold.runtime.schedules_check import check, past_problem
from freehold.runtime.schedules_worker import Scheduler

DEPLOYMENTS_LIMIT_MAX = 100
RUNS_LIMIT_MAX = 1000


class DeploymentService:
    def __init__(self, kept: Deployments, resources: Resources, scheduler: Scheduler, clock: Clock) -> None:
        self._kept = kept
        self._resources = resources
        self._scheduler = scheduler
        self._clock = clock

    async def create(self, principal: Principal, deployment: Deployment) -> DeploymentRow:
        """Under an id of our own in place of its name; of the agent's newest version, where it says none."""
        return await self._put(principal, replace(deployment, name=ids.new("depl", self._clock)), None, 0)

    async def update(
        self, principal: Principal, there: DeploymentRow, deployment: Deployment
    ) -> DeploymentRow:
        """`there` is what it was made from. Raises Conflict where somebody changed it meanwhile, or it is archived."""
        if there.archived_at is not None:
            raise Conflict(f"deployment {there.deployment.name} is archived, and only read")
        return await self._put(principal, deployment, there.deployment, there.version)

    async def _put(
        self, principal: Principal, deployment: Deployment, there: Deployment | None, expected: int
    ) -> DeploymentRow:
        name, tenant = deployment.name, principal.tenant
        authorize(principal, "deployment:Put", f"deployment/{name}")
        authorize(principal, "session:Create", f"agent/{deployment.agent}")
        check(deployment)
        newest = await self._resources.get(tenant, "agent", deployment.agent)
        if deployment.agent_version is None:
            deployment = replace(deployment, agent_version=newest.version)
        else:
            await self._resources.get(tenant, "agent", deployment.agent, version=deployment.agent_version)
        if deployment.environment != DEFAULT:
            await self._resources.get(tenant, "environment", deployment.environment)
        if (problem := past_problem(deployment, there, self._clock.now())) is not None:
            raise BadRequest(problem[1], field=problem[0])
        versions = {("deployment", name): expected}
        await self._resources.put(tenant, [deployment], by=principal.id, expected=versions)  # type: ignore[arg-type]
        return await self._kept.get(tenant, name)

    async def get(self, principal: Principal, name: str) -> DeploymentRow:
        authorize(principal, "deployment:Read", f"deployment/{name}")
        return await self._kept.get(principal.tenant, name)

    async def list(
        self,
        principal: Principal,
        *,
        agent: str | None = None,
        status: DeploymentStatus | None = None,
        archived: bool = False,
        created: Created = ANY_TIME,
        limit: int = 20,
        cursor: str | None = None,
    ) -> DeploymentPage:
        authorize(principal, "deployment:List", "deployment/*")
        check_limit(limit, DEPLOYMENTS_LIMIT_MAX)
        return await self._kept.list(
            principal.tenant,
            agent=agent,
            status=status,
            archived=archived,
            created=created,
            limit=limit,
            cursor=cursor,
        )

    async def archive(self, principal: Principal, name: str) -> DeploymentRow:
        """Idempotent."""
        authorize(principal, "deployment:Archive", f"deployment/{name}")
        there = await self._kept.get(principal.tenant, name)
        if there.archived_at is None:
            await self._resources.archive(principal.tenant, "deployment", name, by=principal.id)
        return await self._kept.get(principal.tenant, name)

    async def pause(self, principal: Principal, name: str) -> DeploymentRow:
        """Idempotent. It can still be run by hand."""
        authorize(principal, "deployment:Pause", f"deployment/{name}")
        await self._kept.pause(principal.tenant, name, at=self._clock.now())
        return await self._kept.get(principal.tenant, name)

    async def unpause(self, principal: Principal, name: str) -> DeploymentRow:
        """Idempotent. Slots that passed meanwhile are missed ones."""
        authorize(principal, "deployment:Pause", f"deployment/{name}")
        await self._kept.unpause(principal.tenant, name)
        return await self._kept.get(principal.tenant, name)

    async def run(
        self, principal: Principal, name: str, *, idempotency_key: str | None = None
    ) -> DeploymentRun:
        """Now, whatever its schedule says. What keeps its session from beginning is told in the run."""
        authorize(principal, "deployment:Run", f"deployment/{name}")
        check_idempotency_key(idempotency_key)
        row = await self._kept.get(principal.tenant, name)
        if row.archived_at is not None:
            raise Conflict(f"deployment {name} is archived, and runs no more")
        return await self._scheduler.begin_by_hand(row, by=principal.id, key=idempotency_key)

    async def get_run(self, principal: Principal, run_id: str) -> DeploymentRun:
        ids.check("drun", run_id, field="deployment_run_id")
        run = await self._kept.get_run(principal.tenant, run_id)
        authorize(principal, "deployment:Read", f"deployment/{run.deployment}")
        return run

    async def runs(
        self,
        principal: Principal,
        *,
        deployment: str | None = None,
        trigger: Trigger | None = None,
        failed: bool | None = None,
        created: Created = ANY_TIME,
        limit: int = 20,
        cursor: str | None = None,
    ) -> RunPage:
        authorize(principal, "deployment:Read", f"deployment/{deployment or '*'}")
        check_limit(limit, RUNS_LIMIT_MAX)
        if cursor is not None:
            ids.check("drun", cursor, field="page")
        return await self._kept.runs(
            principal.tenant,
            deployment=deployment,
            trigger=trigger,
            failed=failed,
            created=created,
            limit=limit,
            cursor=cursor,
        )
