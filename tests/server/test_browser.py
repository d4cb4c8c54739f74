"""Event streams in a real browser: Chromium's own EventSource on a page of another origin, as documented, cut and restarted again and again.

The key never reaches the page: it has a token.
"""

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests._waiting import PATIENCE_S, within
from tests.server._chromium import chromium, cutter, page, showing
from tests.server._process import Running, freehold
from tests.server._world import ECHO, World

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "api.md"
KINDS = (
    "user.message",
    "session.status_running",
    "span.model_request_start",
    "span.model_request_end",
    "agent.message",
    "session.status_idle",
)
CUTS_MIN = 4
BYTES_MAX = 1000
"""So few that a connection passes an answer's head and some events, and is mostly cut within one."""

BROWSER_S = 90.0


def html() -> str:
    [program] = re.findall(r"```js\n(async function follow.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return f"""<!doctype html><script>
{program}
const seen = [];
follow(async () => (await fetch("/address")).json(), {list(KINDS)}, (kind, body, id) => seen.push(id));
(async () => {{
  let told = 0;
  for (;;) {{
    const more = seen.slice(told);
    if (more.length) {{
      await fetch("/seen", {{ method: "POST", body: JSON.stringify(more) }});
      told += more.length;
    }}
    await new Promise((later) => setTimeout(later, 20));
  }}
}})();
</script>"""


def asking(server: Running) -> httpx2.AsyncClient:
    headers = {"authorization": f"Bearer {server.key}"}
    return httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=PATIENCE_S, trust_env=False)


async def ids_of(http: httpx2.AsyncClient, session: str, turns: int) -> list[str]:
    """The cursors of the log, once so many turns have ended."""
    async with within(f"{turns} turns to end"):
        while True:
            events = (await http.get(f"{session}/events")).json()["data"]
            if sum(one["type"] == "session.status_idle" for one in events) == turns:
                return [one["freehold"]["cursor"] for one in events]
            await asyncio.sleep(0.05)


async def begun(server: Running) -> tuple[str, str]:
    """A session's address, and that of its stream."""
    async with asking(server) as http:
        await http.post("/v1/templates/apply", json={"template": ECHO})
        made = (await http.post("/v1/sessions", json={"agent": "echo"})).json()
        session = f"/v1/sessions/{made['id']}"
        return session, (await http.post(f"{session}/stream_tokens", json={})).json()["url"]


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_chromium_sees_every_event_once_though_it_is_cut_and_the_server_is_killed(
    tmp_path: Path,
) -> None:
    chromium()
    folder = tmp_path / "data"
    with freehold(folder) as server:
        session, stream = await begun(await asyncio.to_thread(server.ready))
        port = int(server.url.rpartition(":")[2])
        await asyncio.to_thread(server.ended, signal.SIGTERM)
    async with page(html()) as mine, cutter(port, BYTES_MAX) as cutting:
        mine.stream_url = f"http://127.0.0.1:{cutting.port}{stream}"
        async with showing(mine.url):
            for turns, end in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL), 1):
                with freehold(folder, "--port", str(port)) as server:
                    async with asking(await asyncio.to_thread(server.ready)) as http:
                        said = {"events": [{"type": "user.message", "content": "hello"}]}
                        (await http.post(f"{session}/events", json=said)).raise_for_status()
                        await mine.until_seen(await ids_of(http, session, turns), BROWSER_S)
                    await asyncio.to_thread(server.ended, end)
    print(f"{len(mine.seen)} events, each once, {cutting.cuts} cuts, {turns} ends, {mine.asked} addresses")
    assert cutting.cuts >= CUTS_MIN


async def test_a_token_opens_one_sessions_streams_and_nothing_else(shared: World) -> None:
    await shared.apply(ECHO)
    mine, other = [(await shared.json("POST", "/v1/sessions", {"agent": "echo"}))["id"] for _ in range(2)]
    made = await shared.json("POST", f"/v1/sessions/{mine}/stream_tokens", {"expires_in_s": 60})
    token = made["token"]
    async with httpx2.AsyncClient(base_url=shared.url, timeout=PATIENCE_S, trust_env=False) as page_of_theirs:

        async def opened(path: str) -> tuple[int, Any]:
            async with page_of_theirs.stream("GET", path) as answer:
                return answer.status_code, answer.headers.get("access-control-allow-origin")

        [thread] = (await shared.json("GET", f"/v1/sessions/{mine}/threads"))["data"]
        assert await opened(made["url"]) == (200, "*")
        assert await opened(f"/v1/sessions/{mine}/threads/{thread['id']}/stream?token={token}") == (200, "*")
        assert (await opened(f"/v1/sessions/{mine}/events/stream"))[0] == 401
        assert (await opened(f"/v1/sessions/{other}/events/stream?token={token}"))[0] == 401
        assert (await opened(f"/v1/sessions/{mine}?token={token}"))[0] == 401
        assert (await opened(f"/v1/sessions/{mine}/events?token={token}"))[0] == 401
        for broken in (
            token[:-1],
            f"{token[:-1]}{'A' if token[-1] != 'A' else 'B'}",
            "",
            "fht_.",
            "fht_é.é",
            token[4:],
        ):
            assert (await opened(f"/v1/sessions/{mine}/events/stream?token={broken}"))[0] == 401


async def test_a_token_goes_with_its_key_and_its_time(shared: World) -> None:
    await shared.apply(ECHO)
    session_id = (await shared.json("POST", "/v1/sessions", {"agent": "echo"}))["id"]
    path = f"/v1/sessions/{session_id}/stream_tokens"
    key = await shared.json("POST", "/v1/keys", {"name": "page"})
    with_key = {"authorization": f"Bearer {key['key']}"}
    by_key = await shared.json("POST", path, {}, headers=with_key)
    brief = await shared.json("POST", path, {"expires_in_s": 1})

    async def status(url: str) -> int:
        async with (
            httpx2.AsyncClient(base_url=shared.url, timeout=PATIENCE_S, trust_env=False) as theirs,
            theirs.stream("GET", url) as answer,
        ):
            return answer.status_code

    assert await status(by_key["url"]) == 200
    await shared.json("DELETE", f"/v1/keys/{key['id']}")
    assert await status(by_key["url"]) == 401
    async with within("the address to run out"):
        while (found := await status(brief["url"])) != 401:
            assert found == 200
            await asyncio.sleep(0.1)
    for wrong in (0, 86_401, 1.5, "60"):
        refused = await shared.http.post(path, json={"expires_in_s": wrong})
        assert (refused.status_code, "expires_in_s" in refused.text) == (400, True)
