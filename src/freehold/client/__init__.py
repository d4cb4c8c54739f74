"""The one synchronous face of Freehold: what the command line talks with. Speaks HTTP only; knows nothing of the rooms behind."""

from freehold.client.client import ApiError, Client, ServerAway, StreamedEvent

__all__ = ["ApiError", "Client", "ServerAway", "StreamedEvent"]
