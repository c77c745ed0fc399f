"""YAML that kubectl reads as it was meant. Pure.

kubectl's reader (sigs.k8s.io/yaml) takes more words for numbers, truths and dates than ours does, such as 1e5, 0o17 and
y. Unquoted they would become something else than the text that a label or an environment variable has to be.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

# A word that no reader takes for anything else: none begins so that is not one of these.
_PLAIN = re.compile(r"[A-Za-z/].*", re.ASCII | re.DOTALL)
_SPECIAL = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"})


class _Dumper(yaml.SafeDumper):
    pass


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _SPECIAL
    # Line breaks of Unicode's (U+0085, U+2028) are folded within single quotes, and only escapes keep them.
    quotes = "'" if text.replace("\n", "").isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain and quotes == "'" else quotes)


_Dumper.add_representer(str, _text)


def yaml_for_kubectl(document: dict[str, Any]) -> str:
    """document: of JSON's kinds of values."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
