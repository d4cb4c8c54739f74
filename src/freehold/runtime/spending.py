"""Runtime: what the next call to a model may cost, by the money limits of the turn and of the session, as far as they are declared. Pure."""

from msgspec import Struct, structs

from freehold.core.messages import ModelRequest
from freehold.core.session_state import SessionState
from freehold.gateway.bounds import most_of_request
from freehold.gateway.spending import Spending
from freehold.runtime.decide import Plan, cost_left_pico, money_limit


class Purse(Struct, frozen=True):
    """`limit` names the one that leaves least."""

    limit: str
    spending: Spending


def purse(state: SessionState, plan: Plan, request: ModelRequest | None) -> Purse | None:
    """None where no limit says. `request` is the conversation as it goes on; None: something else is asked, which only its bytes bound.

    What the vendor counted of the conversation before, it will count again; what is new has as many tokens as bytes at most, and so have, to
    be safe, the tools, which may have been declared anew.
    """
    limit = money_limit(state, plan)
    if limit is None or (left := cost_left_pico(state, plan)) is None:
        return None
    if request is None or not state.measured_tokens:
        return Purse(limit, Spending(cost_max_pico=left))
    old = len(state.messages)
    while old and state.message_seqs[old - 1] > state.measured_seq:
        old -= 1
    count = len(state.messages) - old + len(state.queued)
    new = structs.replace(request, messages=request.messages[max(0, len(request.messages) - count) :])
    counted = state.measured_tokens + most_of_request(new, None).input_tokens
    return Purse(limit, Spending(cost_max_pico=left, counted_by=state.measured_by, counted_tokens=counted))
