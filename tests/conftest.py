"""Fixtures of the whole suite. Each kind has a module of its own; this file only lists them."""

pytest_plugins = [
    "tests._authorities",
    "tests._garbage",
    "tests._postgres",
    "tests._profiles",
    "tests._workers",
]
