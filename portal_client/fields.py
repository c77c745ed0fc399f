"""JSON objects as they came: names in any letter case, one name perhaps several times (pure)."""

from __future__ import annotations

_EXPLANATIONS = ("detail", "message", "error", "title", "errors", "reason", "description")


class Fields:
    """One JSON object, as `object_pairs_hook` of the json module makes it. Names are compared in lower case."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        self.pairs = [(name.lower(), value) for name, value in pairs]

    def all(self, name: str) -> list[object]:
        """Every value that stands under the name, in order."""
        return [value for found, value in self.pairs if found == name]


def words_of(document: object) -> str:
    """What a refusal says in words: of a string, or in the fields that APIs put them into; "" where there are none.

    {"detail": "..."}, {"error": {"message": "..."}}, {"title": "...", "errors": {"Message": ["..."]}}
    """
    if isinstance(document, str):
        return document.strip()
    if isinstance(document, list):
        return next((words for entry in document if (words := words_of(entry))), "")
    if not isinstance(document, Fields):
        return ""
    parts: list[str] = []
    for name in _EXPLANATIONS:
        for value in document.all(name):
            # Validation errors stand under the names of the request's fields.
            named = [entry for _, entry in value.pairs] if name == "errors" and isinstance(value, Fields) else value
            if (words := words_of(named)) and (not parts or name == "errors"):
                parts.append(words)
    return ": ".join(parts)
