"""Providers: how long Anthropic's models may answer where nobody said it. Their own wire wants to be told, wherever they live.

Not here: Bedrock's Converse, which takes a request without a limit and gives what the model can.
"""

from typing import Final

from msgspec import structs

from freehold.catalog.models import facts
from freehold.core.messages import ModelRequest

MAKER: Final = "anthropic"
"""Under whose price list the limits of the models stand, for hosts that have another."""

TOKENS_STREAMED_MAX: Final = 64_000
TOKENS_WHOLE_MAX: Final = 16_384
"""Of an answer, where nobody said how long it may be. More than this takes longer to wait for than connections last.

https://docs.anthropic.com/en/api/errors#long-requests
"""


def limited(request: ModelRequest, known_by: str = MAKER) -> ModelRequest:
    """`known_by` is the price list under which the models' limits are found, empty where nothing is known of them. Where nobody set a limit, it is what the model can give: up to a bound besides what is for thinking, and the wire's own default
    where that is not known.
    """
    if request.tokens_max is not None:
        return request
    known = facts().find(known_by, request.model)
    most = None if known is None else known.output_tokens_max
    if most is None:
        return request
    setting = request.reasoning
    thinking = (setting.budget_tokens or 0) if setting is not None else 0
    bound = TOKENS_STREAMED_MAX if request.stream else TOKENS_WHOLE_MAX
    return structs.replace(request, tokens_max=min(most, bound + thinking))
