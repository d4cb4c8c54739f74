"""An event from outside may come at any moment, also before the log says that anybody waits for it."""

from msgspec import structs

from freehold.core.messages import text_of
from freehold.core.outside import Expectation
from freehold.core.resources import Agent, Tool
from freehold.core.session import ModelAnswered, ResultGiven
from freehold.runtime.declared import Declarations
from freehold.runtime.outside import Telling
from freehold.store.outside_events import PostgresExpectedEvents
from freehold.tools.event import KIND
from tests.runtime._world import TENANT, calls, events_of, in_turn, said, world

PAYMENT = Tool(name="payment", type="event", config={"event": "payment.settled"})
CASHIER = Agent(name="clerk", model="scripted/model", tools=("payment",))


class Hasty:
    """As it is, but for a sender that is quicker than the worker: the event comes between the expectation and the log's word of it."""

    def __init__(self, kept: PostgresExpectedEvents, telling: Telling) -> None:
        self._kept = kept
        self._telling = telling
        self.told_early = -1

    async def expect(self, expectation: Expectation) -> None:
        await self._kept.expect(expectation)
        sent = await self._kept.send(TENANT, "payment.settled", "order-1", '"early"')
        assert (sent.received_count, sent.repeated_count) == (1, 0)
        self.told_early = await self._telling.tell()


async def test_an_event_that_comes_too_early_is_kept_and_told(database_url: str) -> None:
    script = in_turn(calls(("payment_wait", '{"correlation": "order-1"}')), said("Paid."))
    async with world(database_url, script, agent=CASHIER, kinds={"event": KIND}, resources=[PAYMENT]) as here:
        kept = here.store.expected_events
        telling = Telling(kept, here.log, here.means.results, Declarations(here.store.resources))
        hasty = Hasty(kept, telling)
        here.means = structs.replace(here.means, expecting=hasty)
        async with here.worker().running():
            session = await here.start()
            await here.reaches(session.id, lambda row: row.status == "waiting")
            async with telling.running():
                await here.reaches(session.id, lambda row: row.status == "idle")
        log = await here.log_of(session.id)
    assert hasty.told_early == 1
    [given] = events_of(log, ResultGiven)
    assert (given.source, text_of(given.content)) == ("event", '"early"')
    assert text_of(events_of(log, ModelAnswered)[-1].content) == "Paid."
