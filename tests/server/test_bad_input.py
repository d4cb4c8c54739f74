"""What is wrong with a request is told in the caller's dialect: what was expected, what came, what to do. Never a 5xx."""

from typing import Any

import httpx2
import pytest

from freehold.core.resources import KINDS
from tests.gateway._vendors import OPENAI_TEXT, reply
from tests.server._raw import connected, request
from tests.server._world import World

OPENAI, ANTHROPIC, NATIVE = "/v1/chat/completions", "/v1/messages", "/v1/sessions"
LIMIT = 33_554_432
KNOWN = ", ".join(KINDS)

everywhere = pytest.mark.parametrize("path", [OPENAI, ANTHROPIC, NATIVE])


def told(answer: httpx2.Response | Any, path: str) -> str:
    """The message, out of the dialect's own shape."""
    body = answer.json()
    assert body["error"]["message"]
    assert answer.headers["request-id"].startswith("req_")
    if path == OPENAI:
        assert body.keys() == {"error"}
        assert body["error"].keys() == {"message", "type", "param", "code"}
    else:
        assert body["type"] == "error"
        assert body["request_id"] == answer.headers["request-id"]
    return str(body["error"]["message"])


@everywhere
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON"),
        (b"model=gpt-4o&stream=true", "JSON"),
        (b'{"agent": "x", ', "JSON"),
        (b'{"agent": "x"} and more', "JSON"),
        (b"\xff\xfe\x00", "JSON"),
        (b'{"agent": "x", "model": "\xff"}', ""),
        (b"[]", "object"),
        (b"null", "object"),
        (b'{"agent": ' + b"[" * 100_000 + b"]" * 100_000 + b', "model": "x"}', ""),
        (b"{}", "missing"),
        (b'{"agent": 5, "model": 5}', ", got "),
    ],
)
async def test_a_body_that_is_no_request_is_refused(
    shared: World, path: str, body: bytes, words: str
) -> None:
    answer = await shared.http.post(path, content=body)
    assert answer.status_code == 400, answer.text
    assert words in told(answer, path)
    assert "b'" not in told(answer, path)


@pytest.mark.parametrize("model", ["openai/gpt-4o", "anthropic/claude-sonnet-4-5"])
@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (OPENAI, {"messages": [{"role": "user", "content": "x"}]}, "model"),
        (OPENAI, {"model": 7, "messages": []}, "model"),
        (OPENAI, {"model": "", "messages": []}, "model"),
        (OPENAI, {"model": None, "messages": "hello", "stream": "yes"}, "stream"),
        (ANTHROPIC, {"model": ["x"], "max_tokens": 1, "messages": []}, "model"),
    ],
)
async def test_the_top_of_a_request_is_checked_also_where_bytes_pass_through(
    shared: World, path: str, body: dict[str, Any], field: str, model: str
) -> None:
    if body.get("model", 0) is None:
        body = body | {"model": model}
    answer = await shared.http.post(path, json=body)
    assert answer.status_code == 400
    assert field in told(answer, path)
    if path == OPENAI:
        assert answer.json()["error"]["param"] == field


@pytest.mark.parametrize(
    ("path", "model", "body", "field"),
    [
        (OPENAI, "anthropic/claude-sonnet-4-5", {"messages": "hello"}, "messages"),
        (OPENAI, "anthropic/claude-sonnet-4-5", {"messages": [{"role": "user"}]}, "messages[0].content"),
        (OPENAI, "anthropic/claude-sonnet-4-5", {"messages": [{"role": "usr", "content": "x"}]}, "messages[0]"),
        (ANTHROPIC, "openai/gpt-4o", {"messages": [{"role": "user", "content": "x"}]}, "max_tokens"),
        (ANTHROPIC, "openai/gpt-4o", {"max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "txt"}]}]},
         "messages[0].content[0]"),
    ],
)  # fmt: skip
async def test_a_request_of_the_wrong_shape_names_the_field(
    shared: World, path: str, model: str, body: dict[str, Any], field: str
) -> None:
    answer = await shared.http.post(path, json={"model": model, **body})
    assert answer.status_code == 400
    assert field in told(answer, path)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/sessions", {"agents": "x"}, "agents: unknown field 'agents' (did you mean 'agent'?); known: agent, "),
        ("/v1/sessions", {"agent": "nobody-here"}, "no agent 'nobody-here'"),
        ("/v1/sessions", {"agent": "x", "environment_id": "prod"},
         "environment_id: no environment 'prod'"),
        ("/v1/sessions", {"agent": "x", "vault_ids": ["v"]}, "vault_ids: sessions cannot take these yet"),
        ("/v1/sessions", {"agent": 5}, "agent: expected"),
        ("/v1/agents", {"name": "a"}, "model: required, but missing"),
        ("/v1/agents", {"name": " ", "model": "auto"}, "name: expected 1 to 256 characters, not all of them spaces"),
        ("/v1/agents", {"name": "a", "model": "auto", "freehold": {"tools": ["gone"]}},
         "freehold.tools[0]: there is no tool 'gone'"),
        ("/v1/templates/apply", {"template": "kind: agnet\nname: a"}, "template:1: kind: expected one of"),
        ("/v1/templates/apply", {"template": "x", "varables": {}}, "varables: unknown field 'varables' (did you mean 'variables'?)"),
        ("/v1/keys", {"name": "k", "expires_in_s": -1}, "expires_in_s: expected 1 to"),
        ("/v1/keys", {"name": "k", "policy": {"Statement": [{"Effect": "Allow", "Action": "*", "Condition": {}}]}},
         "policy.Statement[0].Condition: unknown field 'Condition'"),
    ],
)  # fmt: skip
async def test_the_native_api_names_the_field_and_what_is_known(
    shared: World, path: str, body: dict[str, Any], said: str
) -> None:
    answer = await shared.http.post(path, json=body)
    assert answer.status_code in {400, 404}, answer.text
    assert told(answer, path).startswith(said)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/sessions?limitt=3", "limitt: unknown field 'limitt' (did you mean 'limit'?); known: limit, page, agent_id, "),
        ("/v1/sessions?limit=0", "limit: expected 1 to 100, got 0"),
        ("/v1/sessions?limit=many", "limit: expected"),
        ("/v1/sessions?limit=1&limit=2", "limit: expected once, came several times"),
        ("/v1/sessions?statuses=odd", "statuses[0]: expected one of"),
        ("/v1/sessions?page=%00%ff", "listing sessions: the database cannot hold this text"),
        ("/v1/sessions/sess_short/events", "session_id: expected an id like sess_01j…, got 'sess_short'"),
        ("/v1/sessions/sess_01m7xs6x5j0hqa1hz5wtgtb61p/events?page=x", "page: expected an event's cursor like 12.0, got 'x'"),
        ("/v1/resources/agnets/x", f"kind: expected one of {KNOWN}; got 'agnets' (did you mean 'agent'?)"),
        ("/v1/objects/%ff", "key: expected percent-encoded UTF-8, got '%ff'"),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_a_query_or_a_path_is_told(shared: World, path: str, said: str) -> None:
    answer = await shared.http.get(path)
    assert answer.status_code == 400, answer.text
    assert told(answer, path).startswith(said)


@everywhere
async def test_a_body_that_says_it_is_too_large_is_refused_unread(shared: World, path: str) -> None:
    async with connected(shared.url) as raw:
        lines = (f"content-length: {LIMIT + 1}", "expect: 100-continue")
        await raw.send(request("POST", path, *lines, key=shared.key))
        answer = await raw.answer()
    assert answer.status == 413
    assert told(answer, path) == f"a request body may have {LIMIT} bytes at most (server.body_bytes_max)"


@everywhere
async def test_a_body_that_turns_out_too_large_is_refused_while_it_comes(shared: World, path: str) -> None:
    async with connected(shared.url) as raw:
        await raw.send(request("POST", path, "transfer-encoding: chunked", key=shared.key))
        piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        for _ in range(LIMIT // 0x100000 + 1):
            await raw.send(piece)
        answer = await raw.answer()
        await raw.send(b"0\r\n\r\n" + request("GET", "/v1/models", key=shared.key))
        assert (await raw.answer()).status == 200, "the connection goes on"
    assert answer.status == 413
    assert "33554432 bytes at most" in told(answer, path)


@everywhere
async def test_a_wrong_key_is_refused_before_the_body_is_read(shared: World, path: str) -> None:
    async with connected(shared.url) as raw:
        await raw.send(request("POST", path, "content-length: 1000", "expect: 100-continue", key="fh_wrong"))
        answer = await raw.answer()
    assert answer.status == 401
    assert told(answer, path)


async def test_of_a_template_every_problem_is_told_and_nothing_is_kept(shared: World) -> None:
    template = (
        "kind: tool\nname: t1\ntype: sqll\n---\nkind: agent\nname: a1\nmodel: opnai/gpt-4o\ntools: [t1, t2]\n"
    )
    answer = await shared.http.post("/v1/templates/apply", json={"template": template, "source": "shop.yaml"})
    lines = told(answer, "/v1/templates/apply").splitlines()
    assert answer.status_code == 400
    assert lines[0] == (
        "shop.yaml:3: tool t1: type: expected one of agent, client, event, function, http, kv, objects, sql, timer; got 'sqll' (did you mean 'sql'?)"
    )
    assert lines[1].startswith("shop.yaml:8: agent a1: tools[1]: there is no tool 't2'")
    assert lines[2].startswith("shop.yaml:7: agent a1: model: ")
    assert "opnai" in lines[2]
    assert len(lines) == 3
    assert (await shared.http.get("/v1/resources/agent/a1")).status_code == 404


async def test_what_went_wrong_leaves_the_connection_in_order(shared: World) -> None:
    shared.script("openai", reply(OPENAI_TEXT))
    good = b'{"model":"openai/gpt-4o","messages":[]}'
    async with connected(shared.url) as raw:
        for body, status in ((b"{", 400), (good, 200), (b"[]", 400), (good, 200)):
            await raw.send(request("POST", OPENAI, key=shared.key, body=body))
            assert (await raw.answer()).status == status
