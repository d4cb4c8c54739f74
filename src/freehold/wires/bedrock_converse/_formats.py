"""Wires, Bedrock Converse: its names of media formats, and MIME types."""

from typing import Final

from freehold.core.messages import MediaKind

_MEDIA_TYPES: Final[dict[MediaKind, dict[str, str]]] = {
    "image": {name: f"image/{name}" for name in ("png", "jpeg", "gif", "webp")},
    "document": {
        "pdf": "application/pdf",
        "csv": "text/csv",
        "doc": "application/msword",
        "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xls": "application/vnd.ms-excel",
        "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "html": "text/html",
        "txt": "text/plain",
        "md": "text/markdown",
    },
    "video": {
        "mkv": "video/x-matroska",
        "mov": "video/quicktime",
        "mp4": "video/mp4",
        "webm": "video/webm",
        "flv": "video/x-flv",
        "mpeg": "video/mpeg",
        "wmv": "video/x-ms-wmv",
        "three_gp": "video/3gpp",
    },
    "audio": {
        "mp3": "audio/mpeg",
        "wav": "audio/wav",
        "aac": "audio/aac",
        "flac": "audio/flac",
        "ogg": "audio/ogg",
        "opus": "audio/opus",
        "m4a": "audio/mp4",
        "webm": "audio/webm",
        "pcm": "audio/pcm",
    },
}
_FORMATS: Final = {
    kind: {media_type: name for name, media_type in known.items()} for kind, known in _MEDIA_TYPES.items()
}
_TEXT_FORMAT: Final = "txt"


def media_type_of(kind: MediaKind, name: str | None) -> str:
    """A format that has no MIME type of its own here becomes one that `format_of` knows again."""
    return "" if name is None else _MEDIA_TYPES[kind].get(name, f"{kind}/{name}")


def format_of(kind: MediaKind, media_type: str) -> str | None:
    """None where nothing is known of the type."""
    plain = media_type.partition(";")[0].strip().lower()
    if not plain:
        return None
    name = _FORMATS[kind].get(plain)
    if name is not None:
        return name
    if kind == "document":
        return _TEXT_FORMAT if plain.startswith("text/") or plain == "application/json" else None
    family, _, rest = plain.partition("/")
    return rest.removeprefix("x-") if family == kind else None
