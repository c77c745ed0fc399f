"""What the files of this project leave for the operator to fill in, where it is still there. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dispatcher.config.settings import Settings
from training_common.settings import settings_of

# As they stand in manifests/, config.env.example and docs/: domains that nobody can have (RFC 2606), words in capitals.
# A dollar sign begins a variable, such as $ACCOUNT, that the shell would have filled in.
_PLACEHOLDER = re.compile(
    r"(?<![a-z0-9.-])(?:[a-z0-9-]+\.)*example\.(?:com|net|org)(?!\.?[a-z0-9-])|(?<![A-Za-z0-9$])ACCOUNT(?![A-Za-z0-9])|(?<=AccountKey=)KEY\b"
    r"|your_api_key_here|\b0{8}-0{4}-0{4}-0{4}-0{12}\b|^\.\.\.$"
)
# Of the identity, which the libraries of Azure read by themselves.
_OF_AN_IDENTITY = ("AZURE_CLIENT_ID", "AZURE_TENANT_ID")


def placeholders(settings: Settings, environ: Mapping[str, str], template: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each setting, and for the Job template, that still has one. It holds the placeholder alone."""
    named = {said.env: str(getattr(settings, name) or "") for name, said in settings_of(Settings).items()}
    named |= {name: environ.get(name, "") for name in _OF_AN_IDENTITY}
    named["JOB_TEMPLATE"] = json.dumps(template)
    for name, value in named.items():
        if found := _PLACEHOLDER.search(value):
            yield f"{name} still has the placeholder {found[0]}: fill it in"
