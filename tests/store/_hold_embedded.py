"""Run by `test_embedded` as a process of its own: starts the embedded server, says so in one line, and waits to be killed.

python _hold_embedded.py FOLDER
"""

import asyncio
import json
import sys
from pathlib import Path

from freehold.core.errors import FreeholdError
from freehold.store.embedded import embedded


async def main() -> None:
    try:
        async with embedded(Path(sys.argv[1])) as server:
            print(json.dumps({"dsn": server.dsn(), "socket_folder": str(server.socket_folder)}), flush=True)
            await asyncio.to_thread(sys.stdin.read)
    except FreeholdError as error:
        print(json.dumps({"code": error.code, "message": error.message, "detail": error.detail}), flush=True)


asyncio.run(main())
