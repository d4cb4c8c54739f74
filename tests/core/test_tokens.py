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
    "prose": (PROSE, 0),
    "code": (CODE, 0),
    "compact JSON": (json.dumps(ROWS, separators=(",", ":")), 0),
    "JSON for people": (json.dumps(ROWS, indent=2), 0),
    "Chinese": (CHINESE, 0),
    "Japanese": (JAPANESE, 0),
    "German": (GERMAN, 0),
    "Russian": (RUSSIAN, 0),
    "base64": (base64.b64encode(bytes(n * 37 % 251 for n in range(1500))).decode(), 0),
    "digits": ("31415926535897932384626433832795028841971693993751" * 20, 0),
}
