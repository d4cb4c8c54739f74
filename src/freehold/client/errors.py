"""What can go wrong between us and a server. Apart from the client, so that whoever only catches these loads no HTTP."""


class ApiError(Exception):
    """The server said no. `type` is the error's type in the native dialect, `status` HTTP's."""

    def __init__(self, status: int, type: str, message: str, request_id: str | None) -> None:  # noqa: A002
        super().__init__(message)
        self.status = status
        self.type = type
        self.message = message
        self.request_id = request_id


class ServerAway(Exception):
    """Nobody answers at the address, or what answers isn't Freehold."""
