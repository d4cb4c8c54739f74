"""Runtime: what an API does with sessions: start, fork, speak, cancel, read, follow. Nothing of any dialect, nothing of a turn.

Every door authorizes: `session:Create` on `agent/<name>` (a fork needs `session:Read` on its origin, too); `session:Send`, `session:Approve`, `session:Pause`, `session:Cancel`, `session:Update`, `session:Delete`
and `session:Read` on `session/<id>` (`session/*` for lists). A session acts with its creator's rights of the moment, narrowed to its agent's tools:
whoever may send to it has it act so. Another tenant's session is not found.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import assert_never

from msgspec import structs

from freehold.core import ids
from freehold.core.context import Context
from freehold.core.errors import BadRequest, Conflict, NotFound
from freehold.core.messages import JsonObject, Media, Text
from freehold.core.policy import Principal, authorize
from freehold.core.ports import Clock, Resources, Versioned
from freehold.core.resources import Agent, WhenBusy
from freehold.core.response_facts import SessionKind
from freehold.core.session import (
    ApprovalDecided,
    CancelRequested,
    Input,
    PauseRequested,
    Recorded,
    ResultGiven,
    ResumeRequested,
    SessionEvent,
    SessionSetup,
    SessionStarted,
    SessionStatus,
    UserSpoke,
    row_change,
)
from freehold.core.session_log import (
    ANY_TIME,
    Created,
    NewSession,
    SessionLog,
    SessionPage,
    SessionRow,
    StatusWanted,
)
from freehold.gateway.residency import NOWHERE, Place, hold_here, hold_together, with_labels
from freehold.runtime import busy
from freehold.runtime.forks import Edit, fork_of, place_of
from freehold.runtime.history import history
from freehold.runtime.inputs import (
    EVENTS_LIMIT_MAX,
    INPUTS_MAX,
    MODEL_CHARS_MAX,
    REASON_CHARS_MAX,
    SESSIONS_LIMIT_MAX,
    TITLE_CHARS_MAX,
    check_content,
    check_idempotency_key,
    check_length,
    check_limit,
    check_metadata,
    check_result,
    check_setup,
    patched,
)
from freehold.runtime.kinds import authorize_listing, authorize_reading, check_agents
from freehold.runtime.live import Live
from freehold.runtime.offload import Results
from freehold.runtime.settling import client_result, decision
from freehold.runtime.stream import Item, merged


class Sessions:
    """`home` is where the log is kept, `results` what was too large for it."""

    def __init__(
        self,
        log: SessionLog,
        resources: Resources,
        live: Live,
        clock: Clock,
        *,
        results: Results,
        home: Place = NOWHERE,
    ) -> None:
        self._log = log
        self._resources = resources
        self._live = live
        self._clock = clock
        self._home = home
        self._results = results

    async def create(
        self,
        principal: Principal,
        agent: str,
        *,
        version: int | None = None,
        model: str | None = None,
        title: str = "",
        metadata: Mapping[str, str] | None = None,
        content: Sequence[Text | Media] = (),
        further: Sequence[Sequence[Text | Media]] = (),
        setup: SessionSetup | None = None,
        when_busy: WhenBusy | None = None,
        idempotency_key: str | None = None,
    ) -> SessionRow:
        """With `content`, and what is said `further`, the first turn begins at once. `setup` names the environment, its version is found
        here. `when_busy` goes before the agent's.

        Raises NotFound when there is no such agent, version or environment.
        """
        check_idempotency_key(idempotency_key)
        prepared = await self.prepared(
            principal,
            agent,
            version=version,
            model=model,
            title=title,
            metadata=metadata,
            inputs=[one for one in (content, *further) if one],
            setup=setup,
            when_busy=when_busy,
        )
        return await self._log.create(prepared.row, prepared.events, idempotency_key=idempotency_key)

    async def prepared(
        self,
        principal: Principal,
        agent: str,
        *,
        version: int | None = None,
        model: str | None = None,
        title: str = "",
        metadata: Mapping[str, str] | None = None,
        inputs: Sequence[Sequence[Text | Media]] = (),
        setup: SessionSetup | None = None,
        when_busy: WhenBusy | None = None,
        declared: Versioned | None = None,
    ) -> NewSession:
        """What `create` would write, all of its checks done, with everything that is said first. `declared` is the agent, where the
        caller has it at hand."""
        authorize(principal, "session:Create", f"agent/{agent}")
        check_length(title, TITLE_CHARS_MAX, field="title")
        check_length(model or "", MODEL_CHARS_MAX, field="model")
        check_metadata(metadata or {})
        check_setup(setup)
        setup = await self._in_environment(principal, setup)
        found = declared or await self._resources.get(principal.tenant, "agent", agent, version=version)
        if isinstance(found.resource, Agent):
            principal = with_labels(principal, found.resource.labels)
            when_busy = when_busy or found.resource.when_busy
        hold_here(principal, self._home, "the session's log")
        events: list[SessionEvent] = [
            SessionStarted(
                agent=agent,
                agent_version=found.version,
                model=model,
                title=title,
                by=principal.id,
                labels=principal.residency,
                setup=setup,
                when_busy=when_busy or "queue",
            )
        ]
        events += [_spoken(content, principal) for content in inputs]
        row = SessionRow(
            id=ids.new("sess", self._clock),
            tenant=principal.tenant,
            agent=agent,
            agent_version=found.version,
            status=row_change(events).status or "idle",
            version=len(events),
            created_at=(now := self._clock.now()),
            updated_at=now,
            title=title,
            model=model,
            metadata=dict(metadata or {}),
            created_by=principal.id,
            setup=setup,
            when_busy=when_busy or "queue",
        )
        return NewSession(row, events)

    async def _in_environment(self, principal: Principal, setup: SessionSetup | None) -> SessionSetup | None:
        if setup is None or setup.environment is None:
            return setup
        authorize(principal, "environment:Use", f"environment/{setup.environment}")
        try:
            found = await self._resources.get(principal.tenant, "environment", setup.environment)
        except NotFound as error:
            raise NotFound(error.message, field="environment_id") from error
        return structs.replace(setup, environment_version=found.version)

    async def update(
        self,
        principal: Principal,
        session_id: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, str | None] | None = None,
    ) -> SessionRow:
        """What is said about it, not in it. `metadata` is a patch: None takes a key out. Raises Conflict where it is archived."""
        self._authorize(principal, "session:Update", session_id)
        row = await self._row(principal, session_id)
        if row.archived_at is not None:
            raise Conflict(f"session {session_id} is archived, and only read")
        check_length(title or "", TITLE_CHARS_MAX, field="title")
        bag = None if metadata is None else patched(row.metadata, metadata)
        check_metadata(bag or {})
        return await self._log.update(principal.tenant, session_id, title=title, metadata=bag)

    async def fork(
        self,
        principal: Principal,
        session_id: str,
        *,
        at: str | None = None,
        model: str | None = None,
        title: str | None = None,
        edit: Edit | None = None,
        idempotency_key: str | None = None,
    ) -> SessionRow:
        """A session that shares the events up to and with `at` (without it: all), or those before the one that is edited.

        It acts with the forker's rights, and goes on at once where its origin had something to do there. See forks.py.
        """
        check_length(title or "", TITLE_CHARS_MAX, field="title")
        check_length(model or "", MODEL_CHARS_MAX, field="model")
        check_idempotency_key(idempotency_key)
        if edit is not None:
            (check_result if edit.result else check_content)(edit.content)
        check_agents(session_id, "fork")
        origin = await self.get(principal, session_id)
        authorize(principal, "session:Create", f"agent/{origin.agent}")
        await self._check_labels(principal, session_id)
        events = await history(self._log, session_id)
        place = None if at is None else place_of(session_id, at, events)
        forked = fork_of(session_id, events, at=place, by=principal.id, model=model, edit=edit)
        row = SessionRow(
            id=ids.new("sess", self._clock),
            tenant=principal.tenant,
            agent=origin.agent,
            agent_version=origin.agent_version,
            status=forked.status,
            version=forked.origin_seq + len(forked.events),
            created_at=(now := self._clock.now()),
            updated_at=now,
            title=origin.title if title is None else title,
            model=model or origin.model,
            metadata=origin.metadata,
            created_by=principal.id,
            setup=origin.setup,
            origin_id=session_id,
            origin_seq=forked.origin_seq,
            when_busy=origin.when_busy,
        )
        return await self._log.fork(row, forked.events, idempotency_key=idempotency_key)

    async def send(
        self,
        principal: Principal,
        session_id: str,
        content: Sequence[Text | Media],
        *,
        idempotency_key: str | None = None,
    ) -> int:
        """Returns the session's version. While a turn runs, the input waits for the turn's next model call."""
        spoken = _spoken(content, principal)
        return await self.tell(principal, session_id, [spoken], idempotency_key=idempotency_key)

    async def cancel(
        self, principal: Principal, session_id: str, *, for_good: bool = False, reason: str = ""
    ) -> int:
        """Stops what runs; `for_good` ends the session too. What has already ended is left as it is."""
        request = CancelRequested(scope="session" if for_good else "turn", by=principal.id, reason=reason)
        return await self.tell(principal, session_id, [request])

    async def tell(
        self,
        principal: Principal,
        session_id: str,
        inputs: Sequence[Input],
        *,
        when_busy: WhenBusy | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """Several inputs at once, all or nothing. `when_busy` goes before the session's own. Returns the session's version."""
        check_idempotency_key(idempotency_key)
        if when_busy == "interrupt" and busy.speaks(inputs):
            self._authorize(principal, "session:Cancel", session_id)
        if not 0 < len(inputs) <= INPUTS_MAX:
            raise BadRequest(f"expected 1 to {INPUTS_MAX} events, got {len(inputs)}", field="events")
        for one in inputs:
            self._check_input(principal, session_id, one)
        row = await self._row(principal, session_id)
        if row.archived_at is not None:
            raise Conflict(f"session {session_id} is archived, and only read; start a new one, or fork it")
        if row.status == "cancelled":
            if all(isinstance(one, CancelRequested) for one in inputs):
                return row.version
            raise Conflict(f"session {session_id} was cancelled for good; start a new one")
        await self._check_labels(principal, session_id)
        wanted = _without_idle_cancels(inputs, row.status)
        if not wanted:
            return row.version
        return await busy.append(
            self._log,
            row,
            wanted,
            when_busy=when_busy or row.when_busy,
            by=principal.id,
            idempotency_key=idempotency_key,
        )

    async def pause(self, principal: Principal, session_id: str, *, reason: str = "") -> int:
        """What runs is finished, nothing new begins until `resume`. Idempotent."""
        return await self.tell(principal, session_id, [PauseRequested(by=principal.id, reason=reason)])

    async def resume(self, principal: Principal, session_id: str) -> int:
        return await self.tell(principal, session_id, [ResumeRequested(by=principal.id)])

    async def decide(
        self,
        principal: Principal,
        session_id: str,
        *,
        call_id: str,
        allow: bool,
        reason: str = "",
        arguments: JsonObject | None = None,
        binding: str | None = None,
    ) -> ApprovalDecided:
        """One person's word on a call that awaits approval, to be told. See settling.decision."""
        self._authorize(principal, "session:Approve", session_id)
        row = await self._row(principal, session_id)
        return await decision(
            self._log,
            row,
            principal,
            call_id=call_id,
            allow=allow,
            reason=reason,
            arguments=arguments,
            binding=binding,
        )

    async def give_result(
        self,
        principal: Principal,
        session_id: str,
        *,
        call_id: str,
        content: Sequence[Text | Media],
        failed: bool = False,
    ) -> ResultGiven:
        """The result of a tool that the client ran, to be told. See settling.client_result."""
        self._authorize(principal, "session:Send", session_id)
        row = await self._row(principal, session_id)
        found = await self._resources.get(row.tenant, "agent", row.agent, version=row.agent_version)
        context = found.resource.context if isinstance(found.resource, Agent) else Context()
        results = self._results.of(row.tenant, [row.id], bytes_max=context.tool_result_bytes_max)
        return await client_result(
            self._log, row, principal, call_id=call_id, content=content, results=results, failed=failed
        )

    async def get(self, principal: Principal, session_id: str) -> SessionRow:
        """Of any kind."""
        authorize_reading(principal, session_id)
        return await self._row(principal, session_id)

    async def list(
        self,
        principal: Principal,
        *,
        kind: SessionKind = "agent",
        statuses: Sequence[StatusWanted] = (),
        agent: str | None = None,
        agent_version: int | None = None,
        parent_id: str | None = None,
        deployment: str | None = None,
        created: Created = ANY_TIME,
        by_cost: bool = False,
        oldest_first: bool = False,
        archived: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> SessionPage:
        """`statuses` of any, where there are none; newest first, or oldest first, or dearest first."""
        authorize_listing(principal, kind)
        check_limit(limit, SESSIONS_LIMIT_MAX)
        return await self._log.list(
            principal.tenant,
            kind=kind,
            statuses=statuses,
            agent=agent,
            agent_version=agent_version,
            parent_id=parent_id,
            deployment=deployment,
            created=created,
            by_cost=by_cost,
            oldest_first=oldest_first,
            archived=archived,
            limit=limit,
            cursor=cursor,
        )

    async def family(
        self,
        principal: Principal,
        session_id: str,
        *,
        statuses: Sequence[StatusWanted] = (),
        limit: int = 50,
        cursor: str | None = None,
    ) -> SessionPage:
        """The session and all that work for it, however deep; oldest first."""
        authorize_reading(principal, session_id)
        check_limit(limit, SESSIONS_LIMIT_MAX)
        return await self._log.family(
            principal.tenant, session_id, statuses=statuses, limit=limit, cursor=cursor
        )

    async def forks(self, principal: Principal, session_id: str, *, limit: int = 50) -> SessionPage:
        """Those forked from the session itself, not from its forks; of a response, those that go on with it. Oldest first."""
        authorize_reading(principal, session_id)
        check_limit(limit, SESSIONS_LIMIT_MAX)
        return await self._log.forks(principal.tenant, session_id, limit=limit)

    async def delete(self, principal: Principal, session_id: str) -> None:
        """For good, with its log. Raises Conflict while it runs or waits, or where a fork reads its events."""
        self._authorize(principal, "session:Delete", session_id)
        await self._log.delete(principal.tenant, session_id)

    async def archive(self, principal: Principal, session_id: str) -> SessionRow:
        """From then on it is only read. Idempotent. Raises Conflict while it runs or waits."""
        self._authorize(principal, "session:Delete", session_id)
        return await self._log.archive(principal.tenant, session_id)

    async def events(
        self, principal: Principal, session_id: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[Recorded]:
        """In order, those with a `seq` over `after`."""
        check_limit(limit, EVENTS_LIMIT_MAX)
        await self.get(principal, session_id)
        return await self._log.read(session_id, after=after, limit=limit)

    @asynccontextmanager
    async def stream(
        self, principal: Principal, session_id: str, *, after: int = 0
    ) -> AsyncIterator[AsyncIterator[Item]]:
        """Facts and live deltas, from the fact after `after` on, without end."""
        await self.get(principal, session_id)
        async with merged(self._log, self._live, session_id, after=after) as items:
            yield items

    def _authorize(self, principal: Principal, action: str, session_id: str) -> None:
        check_agents(session_id, action.partition(":")[2].lower())
        authorize(principal, action, f"session/{session_id}")

    def _check_input(self, principal: Principal, session_id: str, one: Input) -> None:
        match one:
            case UserSpoke():
                self._authorize(principal, "session:Send", session_id)
                check_content(one.content)
            case CancelRequested():
                self._authorize(principal, "session:Cancel", session_id)
                check_length(one.reason, REASON_CHARS_MAX, field="reason")
            case PauseRequested():
                self._authorize(principal, "session:Pause", session_id)
                check_length(one.reason, REASON_CHARS_MAX, field="reason")
            case ResumeRequested():
                self._authorize(principal, "session:Pause", session_id)
            case ApprovalDecided():
                self._authorize(principal, "session:Approve", session_id)
            case ResultGiven():
                self._authorize(principal, "session:Send", session_id)
            case _ as unreachable:
                assert_never(unreachable)

    async def _check_labels(self, principal: Principal, session_id: str) -> None:
        """What has labels is not said to a session that goes elsewhere."""
        if not principal.residency:
            return
        started = (await self._log.read(session_id, limit=1))[0].event
        labels = started.labels if isinstance(started, SessionStarted) else ()
        hold_together(principal, labels, f"the session {session_id}")

    async def _row(self, principal: Principal, session_id: str) -> SessionRow:
        return await self._log.get(principal.tenant, session_id)


def _spoken(content: Sequence[Text | Media], principal: Principal) -> UserSpoke:
    spoken = UserSpoke(content=tuple(content), by=principal.id)
    check_content(spoken.content)
    return spoken


def _without_idle_cancels(inputs: Sequence[Input], status: SessionStatus) -> list[Input]:
    """There is nothing to stop in a session that rests, unless something is said before."""
    wanted: list[Input] = []
    for one in inputs:
        stops_nothing = isinstance(one, CancelRequested) and one.scope == "turn" and status == "idle"
        if wanted or not stops_nothing:
            wanted.append(one)
    return wanted
