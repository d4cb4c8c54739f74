"""What the wires cost: microseconds of CPU per operation, best of several rounds, on one core.

python bench/wires.py
"""

import json
import time
import timeit

from freehold.core.messages import ModelRequest
from freehold.core.ports import Wire
from freehold.core.stream import fold, unfold
from freehold.wires import named

ROUNDS = 7


def openai_body(turns: int, text: str) -> bytes:
    messages = [{"role": "system", "content": "You keep the stock."}]
    for turn in range(turns):
        call = {
            "id": f"call_{turn}",
            "type": "function",
            "function": {"name": "stock", "arguments": '{"sku": 4482}'},
        }
        messages += [
            {"role": "user", "content": text},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{turn}", "content": text},
            {"role": "assistant", "content": text},
        ]
    tools = [
        {
            "type": "function",
            "function": {"name": f"tool_{n}", "description": "A tool.", "parameters": SCHEMA},
        }
        for n in range(5)
    ]
    return json.dumps({"model": "m", "messages": messages, "tools": tools, "stream": True}).encode()


SCHEMA = {"type": "object", "properties": {"sku": {"type": "integer"}, "center": {"type": "string"}}}


def anthropic_body(body: bytes) -> bytes:
    return named("anthropic_messages").encode_request(named("openai_chat").decode_request(body), provider="p")


def micros(call, number: int) -> float:
    return min(timeit.repeat(call, number=number, repeat=ROUNDS, timer=time.process_time)) / number * 1e6


def requests(name: str, bodies: dict[str, bytes]) -> None:
    wire = named(name)
    for label, body in bodies.items():
        request = wire.decode_request(body)
        number = max(20, 4_000_000 // (len(body) + 2_000))
        decode = micros(lambda body=body: wire.decode_request(body), number)
        encode = micros(lambda request=request: wire.encode_request(request, provider="p"), number)
        print(f"{name:20} {label:8} {len(body):8} B  decode {decode:7.1f} us  encode {encode:7.1f} us")


def streams(name: str) -> None:
    wire = named(name)
    words = 500
    answer = wire.decode_response(ANSWERS[name], provider="p")
    events = list(unfold(answer))
    started, text, rest = events[:2], events[2], events[3:]
    many = [*started, *[type(text)(0, " word")] * words, *rest]
    chunks = _encoded(wire, many)
    data = b"".join(chunks)
    decode = micros(lambda: _decoded(wire, chunks), 20) / len(many)
    one = micros(lambda: _decoded(wire, [data]), 20) / len(many)
    encode = micros(lambda: _encoded(wire, many), 20) / len(many)
    tap = micros(lambda: _tapped(wire, chunks), 20) / len(many)
    print(
        f"{name:20} chunk    decode {decode:5.2f} us ({one:5.2f} when they come together)  encode {encode:5.2f}  tap {tap:5.2f}"
    )
    assert fold(_decoded(wire, chunks)).text() == " word" * words


def _decoded(wire: Wire, chunks):
    decoder = wire.stream_decoder(provider="p")
    events = []
    for chunk in chunks:
        events += decoder.feed(chunk)
    events += decoder.end()
    return events


def _encoded(wire: Wire, events) -> list[bytes]:
    encoder = wire.stream_encoder(ModelRequest(model="m", messages=()), created=1)
    return [*map(encoder.encode, events), encoder.end()]


def _tapped(wire: Wire, chunks) -> None:
    tap = wire.usage_tap()
    for chunk in chunks:
        tap.feed(chunk)


ANSWERS = {
    "openai_chat": json.dumps({
        "id": "chatcmpl-1",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }).encode(),
    "anthropic_messages": json.dumps({
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "x"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }).encode(),
}


def main() -> None:
    bodies = {
        "short": openai_body(0, "")[:-1] + b"}",
        "60 msgs": openai_body(15, "How many of them are on their way? " * 16),
        "117 KB": openai_body(15, "How many of them are on their way? " * 68),
    }
    requests("openai_chat", bodies)
    requests("anthropic_messages", {label: anthropic_body(body) for label, body in bodies.items()})
    for name in ANSWERS:
        streams(name)


if __name__ == "__main__":
    main()
