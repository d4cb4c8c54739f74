"""What calls are charged once prices are agreed: capacity before the book, the book before the list, and records say which."""

from datetime import UTC, datetime

from freehold.core.contracts import BookPrice, Capacity, PriceBook
from freehold.core.messages import Usage
from freehold.core.records import Account, CallRecord, Choice
from freehold.gateway.metering import OK, meter_of
from tests.gateway.conftest import ANN, House, open_house

ENVIRONMENT = {"OPENAI_API_KEY": "sk-x"}
USED = Usage(input_tokens=100, output_tokens=10)
BOOK = PriceBook(name="contract", prices=(BookPrice(models="openai/gpt-4o", input="1", output="2"),))
BOUGHT = Capacity(
    name="reserved",
    models="openai/gpt-4o",
    tokens_per_minute=150,
    hourly="1",
    valid_from=datetime(2020, 1, 1, tzinfo=UTC),
)


async def metered(
    house: House, model: str, usage: Usage = USED, *, choice: Choice | None = None
) -> CallRecord:
    meter = meter_of(house.gateway._clock, house.spool, ANN, wire="openai_chat", requested=model)  # type: ignore[arg-type]
    meter.target = await house.models.resolve(ANN.tenant, model)
    meter.account = Account(team="search", labels={"project": "x"})
    meter.choice = choice or Choice()
    return meter.finish(OK, usage)


async def test_what_is_agreed_counts_from_the_next_call_on() -> None:
    async with open_house(environment=ENVIRONMENT) as house:
        listed = await metered(house, "openai/gpt-4o")
        assert (listed.price_source, listed.priced) == ("list", True)
        house.declared.declare(BOOK)
        agreed = await metered(house, "openai/gpt-4o")
        assert (agreed.price_source, agreed.cost_pico) == ("book:contract", 100 * 10**6 + 10 * 2 * 10**6)
        assert (await metered(house, "openai/gpt-4o-mini")).price_source == "list"
        house.declared.declare(BOUGHT)
        first, second = [await metered(house, "openai/gpt-4o") for _ in range(2)]
        assert (first.price_source, first.cost_pico, first.priced) == ("provisioned:reserved", 0, True)
        assert (second.price_source, second.cost_pico) == ("book:contract", agreed.cost_pico)


async def test_an_answer_that_was_given_before_costs_nothing_and_takes_no_capacity() -> None:
    async with open_house(environment=ENVIRONMENT) as house:
        house.declared.declare(BOUGHT)
        again = await metered(
            house, "openai/gpt-4o", choice=Choice(cached="exact", route="cheap", attempts=0)
        )
        assert (again.cost_pico, again.priced, again.cached, again.route) == (0, True, "exact", "cheap")
        assert (await metered(house, "openai/gpt-4o")).price_source == "provisioned:reserved"


async def test_a_record_says_for_whom_it_was() -> None:
    async with open_house(environment=ENVIRONMENT) as house:
        record = await metered(house, "openai/no-such-model-is-listed")
        assert (record.key_id, record.team, record.labels) == ("key_ann", "search", {"project": "x"})
        assert (record.priced, record.price_source, record.cost_pico) == (False, "", 0)
