"""Wires, Google: names of fields. The vendor reads them in camelCase and in snake_case, and writes the first."""


def camel(name: str) -> str:
    if "_" not in name:
        return name
    head, *tail = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in tail)
