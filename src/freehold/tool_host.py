"""What Freehold lends to tools: core.ports.ToolHost. Put together by app.py; a tool reaches nothing else of the house."""

from collections.abc import Mapping, Sequence

from freehold.core.errors import NotFound
from freehold.core.ports import ChildSessions, KeyValues, Objects
from freehold.governance.secrets import Secrets
from freehold.store.databases import DatabaseUrls


class Host:
    def __init__(
        self,
        secrets_of: Secrets,
        urls: Mapping[str, DatabaseUrls],
        key_values: KeyValues,
        objects: Objects,
        sessions: ChildSessions,
        function_folders: Sequence[str],
    ) -> None:
        self._secrets = secrets_of
        self._urls = urls
        self.key_values = key_values
        self.objects = objects
        self.sessions = sessions
        self.function_folders = function_folders

    def secret(self, reference: str) -> str:
        return self._secrets.resolve(reference)

    async def database_url(self, name: str) -> str:
        if name not in self._urls:
            known = ", ".join(sorted(self._urls)) or "none"
            raise NotFound(
                f"Freehold keeps no database {name!r} (configuration: databases); it keeps: {known}"
            )
        return self._urls[name].reader
