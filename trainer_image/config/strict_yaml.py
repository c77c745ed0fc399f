"""YAML text from a stranger → plain Python values, or every reason why not.

The subset is YAML 1.2's core schema without the parts that surprise or attack: no anchors, aliases, tags,
merge keys, duplicate keys or second documents, bounded size and depth. Core schema: `1e-3` is a number,
`no` and `2024-01-01` are text; PyYAML's own rules (YAML 1.1) would read them as text, False and a date.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20


class YamlRefused(ValueError):
    """The text is no YAML that we read; the message says where and why, in one sentence."""


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core schema and without duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own name)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise YamlRefused(f"{_place(key.start_mark)}: a key must be plain text")
            if key.value in seen:
                raise YamlRefused(f"{_place(key.start_mark)}: the key {key.value!r} stands there twice")
            seen.add(key.value)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


def _add(tag: str, pattern: str, first: str) -> None:
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_add("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_add("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789")
_add(
    "float",
    r"^[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$",
    "-+0123456789.",
)
_CoreLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])


def load(text: bytes) -> Any:
    """Plain dicts, lists, str, int, float, bool and None. Raises YamlRefused."""
    if len(text) > MAX_BYTES:
        raise YamlRefused(f"it is {len(text)} bytes long; at most {MAX_BYTES} are read")
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlRefused(f"byte {error.start} is not UTF-8") from None
    try:
        _refuse_features(decoded)
        return yaml.load(decoded, Loader=_CoreLoader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{_place(mark)}: " if mark else ""
        raise YamlRefused(f"{where}{error.problem or error.context or 'not readable as YAML'}") from None
    except yaml.YAMLError as error:
        raise YamlRefused(" ".join(str(error).split())) from None
    except YamlRefused:
        raise
    except ValueError as error:
        raise YamlRefused(f"a number in it cannot be read ({error})") from None


def _refuse_features(text: str) -> None:
    """Looks at the event stream, which is built without recursion and without following aliases."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = _place(event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise YamlRefused(f"{place}: a second document begins; one is read")
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent):
            raise YamlRefused(f"{place}: aliases (*{anchor}) are not accepted; write the value out")
        if anchor:
            raise YamlRefused(f"{place}: anchors (&{anchor}) are not accepted; write the value out")
        if tag:
            raise YamlRefused(f"{place}: tags ({tag}) are not accepted")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise YamlRefused(f"{place}: nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
