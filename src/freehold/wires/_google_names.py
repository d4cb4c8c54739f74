"""Wires, Google: names that its wires share."""

from collections.abc import Mapping
from typing import Final

from freehold.core.embeddings import EmbeddingTask

TASKS: Final[Mapping[EmbeddingTask, str]] = {
    "search_query": "RETRIEVAL_QUERY",
    "search_document": "RETRIEVAL_DOCUMENT",
    "similarity": "SEMANTIC_SIMILARITY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
    "question_answering": "QUESTION_ANSWERING",
    "fact_verification": "FACT_VERIFICATION",
    "code_query": "CODE_RETRIEVAL_QUERY",
}
TASK_OF: Final[Mapping[str, EmbeddingTask]] = {word: task for task, word in TASKS.items()}
ANY_TASK: Final = "TASK_TYPE_UNSPECIFIED"


def camel(name: str) -> str:
    """Google reads fields in camelCase and in snake_case, and writes the first."""
    if "_" not in name:
        return name
    head, *tail = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in tail)
