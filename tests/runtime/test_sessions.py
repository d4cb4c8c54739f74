"""What an API may do with sessions: who may do what, and which input is refused with which words."""

import pytest
from msgspec import structs

from freehold.core.errors import BadRequest, Conflict, Forbidden, NotFound, TooLarge
from freehold.core.messages import Bytes, Media, Text
from freehold.core.policy import Policy, Principal, Statement
from freehold.core.session import CancelRequested, SessionStarted, TurnFinished, UserSpoke
from freehold.runtime.inputs import INPUT_BYTES_MAX
from tests.runtime._world import AGENT, OWNER, TENANT, Held, in_turn, kinds_of, said, world


def _who(*statements: Statement) -> Principal:
    return Principal(TENANT, "service", "key_other", (Policy(tuple(statements)),))


@pytest.fixture
async def here(place):
    async with world(place, lambda _: said("yes")) as opened:
        yield opened


async def test_a_new_session_is_pinned_to_the_agents_version_of_now(here):
    row = await here.start("")
    await here.declare(structs.replace(AGENT, instructions="Something new."))
    later = await here.start("")
    assert later.agent_version == row.agent_version + 1
    started = (await here.log_of(row.id))[0].event
    assert isinstance(started, SessionStarted)
    assert (started.agent_version, started.by) == (row.agent_version, OWNER.id)


async def test_the_same_idempotency_key_makes_one_session(here):
    first = await here.start("go", idempotency_key="order-1")
    assert (await here.start("go", idempotency_key="order-1")).id == first.id


async def test_the_same_idempotency_key_says_a_thing_once(here):
    row = await here.start("")
    versions = [
        await here.sessions.send(OWNER, row.id, [Text("go")], idempotency_key="say-1") for _ in range(2)
    ]
    assert versions == [2, 2]


async def test_without_such_an_agent_there_is_no_session(here):
    with pytest.raises(NotFound, match="nobody"):
        await here.sessions.create(OWNER, "nobody")


async def test_another_tenants_session_is_not_found(here):
    row = await here.start("")
    stranger = structs.replace(OWNER, tenant="other")
    with pytest.raises(NotFound):
        await here.sessions.get(stranger, row.id)
    with pytest.raises(NotFound):
        await here.sessions.send(stranger, row.id, [Text("hello")])
    with pytest.raises(NotFound):
        await here.sessions.events(stranger, row.id)
    with pytest.raises(NotFound):
        async with here.sessions.stream(stranger, row.id):
            pass


async def test_each_door_asks_for_its_own_right(here):
    row = await here.start("")
    reader = _who(Statement("Allow", "session:Read", f"session/{row.id}"))
    assert (await here.sessions.get(reader, row.id)).id == row.id
    for act in (
        lambda: here.sessions.send(reader, row.id, [Text("hello")]),
        lambda: here.sessions.cancel(reader, row.id),
        lambda: here.sessions.create(reader, "clerk"),
        lambda: here.sessions.list(reader),
    ):
        with pytest.raises(Forbidden, match="no policy allows it"):
            await act()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([], "expected some content"),
        ([Text("  \n")], "expected some content"),
        ([Text("x")] * 257, "256 parts at most"),
    ],
)
async def test_input_without_sense_or_bounds_is_refused(here, content, why):
    row = await here.start("")
    with pytest.raises(BadRequest, match=why):
        await here.sessions.send(OWNER, row.id, content)


async def test_input_that_is_too_large_is_refused_with_the_limit(here):
    row = await here.start("")
    image = Media("image", "image/png", Bytes(b"x" * (INPUT_BYTES_MAX + 1)))
    with pytest.raises(TooLarge, match=str(INPUT_BYTES_MAX)):
        await here.sessions.send(OWNER, row.id, [image])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"title": "x" * 301}, "title"),
        ({"model": "x" * 257}, "model"),
        ({"metadata": {str(n): "" for n in range(33)}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"idempotency_key": ""}, "idempotency_key"),
    ],
)
async def test_fields_have_bounds(here, fields, field):
    with pytest.raises(BadRequest) as caught:
        await here.start("", **fields)
    assert caught.value.field == field


async def test_an_id_of_another_shape_is_refused(here):
    with pytest.raises(BadRequest, match="sess_01j"):
        await here.sessions.get(OWNER, "1; DROP TABLE")


async def test_a_cancel_of_what_rests_changes_nothing(here):
    row = await here.start("")
    assert await here.sessions.cancel(OWNER, row.id) == 1
    assert kinds_of(await here.log_of(row.id)) == ["SessionStarted"]


async def test_a_resting_session_can_be_ended_for_good(here):
    row = await here.start("")
    async with here.worker().running():
        await here.sessions.cancel(OWNER, row.id, for_good=True)
        await here.settled(row.id)
        assert (await here.reaches(row.id, lambda one: one.status == "cancelled")).status == "cancelled"
    with pytest.raises(Conflict):
        await here.sessions.send(OWNER, row.id, [Text("hello")])


async def test_what_is_said_and_taken_back_at_once_is_not_answered(here):
    row = await here.start("")
    spoken = UserSpoke(content=(Text("go"),))
    async with here.worker().running():
        await here.sessions.tell(OWNER, row.id, [spoken, CancelRequested()])
        await here.settled(row.id)
    said_after = [type(one.event) for one in (await here.log_of(row.id))[2:]]
    assert said_after == [CancelRequested, TurnFinished], (
        "other tests' sessions may be answered meanwhile, not this one"
    )


async def test_another_model_can_be_named_for_a_session(place):
    held = Held(said("yes"))
    held.go.set()
    async with world(place, in_turn(held)) as here, here.worker().running():
        row = await here.start(model="scripted/other")
        await here.settled(row.id)
        assert here.model.requests[0].model == "other"


async def test_lists_are_by_tenant_newest_first(here):
    rows = [await here.start("", title=f"t{n}") for n in range(3)]
    newest_first = sorted((row.id for row in rows), reverse=True)  # Of one millisecond, in any order.
    page = await here.sessions.list(OWNER, limit=2)
    assert [row.id for row in page.rows] == newest_first[:2]
    with pytest.raises(BadRequest, match="1-200"):
        await here.sessions.list(OWNER, limit=201)
