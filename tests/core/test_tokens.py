"""The estimate of tokens, held against counts that OpenAI's o200k vocabulary gives for the same texts."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core import tokens
from freehold.core.messages import (
    JsonOutput,
    Media,
    Message,
    ModelRequest,
    Text,
    ToolCall,
    ToolResult,
    ToolSpec,
    VendorFile,
    raw,
)

ROWS = [
    {"sku": f"WJ-{4400 + place}", "name": "Winter jacket, blue", "price": 89.5 + place, "in_stock": place % 3 == 0}
    for place in range(40)
]  # fmt: skip
PROSE = (
    "The harbour was quiet when the last ferry left. Two fishermen mended their nets under the lamp and spoke about "
    "the weather, as they had done every evening for thirty years. Nobody expected the storm that night, least of all "
    "the keeper of the lighthouse, who had promised his daughter that he would be home before midnight. When the wind "
    "turned he lit the second lamp, wrote one line into his book, and waited for the ships that did not come."
)
CODE = '''
class Inventory:
    """Stock by article and place."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reserved: dict[str, int] = {}

    async def reserve(self, sku: str, quantity: int) -> bool:
        row = await self._connection.fetchrow("SELECT on_hand FROM stock WHERE sku = $1", sku)
        if row is None or row["on_hand"] - self._reserved.get(sku, 0) < quantity:
            return False
        self._reserved[sku] = self._reserved.get(sku, 0) + quantity
        return True
'''
CHINESE = (
    "港口在最后一班渡轮离开后安静了下来。两个渔夫在灯下修补渔网,像三十年来的每个晚上一样谈论着天气。"
    "那天夜里没有人预料到暴风雨,尤其是灯塔的看守人,他答应过女儿午夜之前一定会回家。风向改变的时候,"
    "他点亮了第二盏灯,在本子上写下一行字,然后等待那些没有来的船。"
)
JAPANESE = (
    "最後のフェリーが出たあと、港は静かになった。二人の漁師が灯りの下で網を直しながら、三十年間毎晩そうしてきたように"
    "天気の話をしていた。その夜に嵐が来るとは誰も思っていなかった。灯台守は真夜中までに帰ると娘に約束していた。"
)
GERMAN = (
    "Der Hafen war still, als die letzte Fähre abgelegt hatte. Zwei Fischer flickten unter der Lampe ihre Netze und "
    "sprachen über das Wetter, wie an jedem Abend seit dreißig Jahren. Niemand hatte in dieser Nacht mit dem Sturm "
    "gerechnet, am wenigsten der Leuchtturmwärter, der seiner Tochter versprochen hatte, vor Mitternacht zu Hause zu sein."
)
RUSSIAN = (
    "Гавань затихла, когда ушёл последний паром. Два рыбака чинили сети под лампой и говорили о погоде, как и каждый "
    "вечер последние тридцать лет. Никто не ждал бури в ту ночь, и меньше всех смотритель маяка, который обещал дочери "
    "вернуться домой до полуночи."
)

COUNTED = {
    "prose": (PROSE, 91),
    "code": (CODE, 139),
    "compact JSON": (json.dumps(ROWS, separators=(",", ":")), 1042),
    "JSON for people": (json.dumps(ROWS, indent=2), 1642),
    "Chinese": (CHINESE, 109),
    "Japanese": (JAPANESE, 91),
    "German": (GERMAN, 79),
    "Russian": (RUSSIAN, 76),
    "base64": (base64.b64encode(bytes(n * 37 % 251 for n in range(1500))).decode(), 1383),
    "digits": ("31415926535897932384626433832795028841971693993751" * 20, 334),
}
"""Texts, and how many tokens tiktoken's `o200k_base` makes of them."""


@pytest.mark.parametrize("kind", COUNTED)
def test_an_estimate_is_within_15_percent(kind: str) -> None:
    text, counted = COUNTED[kind]
    assert tokens.estimate(text) == pytest.approx(counted, rel=0.15)


def test_bytes_and_text_count_the_same() -> None:
    for text, _ in COUNTED.values():
        assert tokens.estimate(text.encode()) == tokens.estimate(text)


def test_a_long_text_is_sampled_and_comes_out_as_its_parts_do() -> None:
    whole = (PROSE + CODE + CHINESE) * 200
    assert len(whole.encode()) > tokens.SAMPLED_BYTES_MAX
    assert tokens.estimate(whole) == pytest.approx(200 * tokens.estimate(PROSE + CODE + CHINESE), rel=0.05)


@given(st.text())
def test_anything_can_be_estimated_and_only_nothing_is_nothing(text: str) -> None:
    assert (tokens.estimate(text) == 0) == (text == "")


@given(st.binary(), st.binary())
def test_more_text_is_never_much_less(first: bytes, more: bytes) -> None:
    """What joins at the seam (a word, a number) may save a few tokens, no more."""
    assert tokens.estimate(first + more) >= tokens.estimate(first) - 3


def test_lone_surrogates_are_no_obstacle() -> None:
    assert tokens.estimate("a\ud800b") > 0


def test_a_request_counts_all_that_a_model_reads() -> None:
    def size(**more: object) -> int:
        asked = {"model": "m", "messages": (Message("user", (Text(PROSE),)),)} | more
        return tokens.of_request(ModelRequest(**asked))  # type: ignore[arg-type]

    plain = size()
    image = Media("image", "image/png", VendorFile("openai_chat", "f"))
    assert plain == pytest.approx(tokens.estimate(PROSE), abs=tokens.MESSAGE_TOKENS)
    assert size(instructions=(Text(PROSE),)) == plain + tokens.estimate(PROSE)
    assert size(output=JsonOutput(schema=raw({"type": "object"}))) > plain
    assert size(tools=(ToolSpec("stock", "How many there are", raw({"type": "object"})),)) > plain + 10
    assert size(messages=(Message("user", (Text(PROSE), image)),)) == plain + tokens.MEDIA_TOKENS
    called = Message("assistant", (ToolCall("1", "stock", '{"sku":"4482"}'),))
    answered = Message("tool", (ToolResult("1", (Text(PROSE),)),))
    assert size(messages=(called, answered)) > tokens.estimate(PROSE) + 10


def test_no_text_has_more_tokens_than_bytes() -> None:
    assert tokens.estimate("x1" * 20_000) == 40_000
