"""One request to the portal and its answer, as data (pure)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from portal_client.fields import Fields
from portal_client.statuses import ProcessingStatus
from training_common.redaction import redact
from training_common.text import one_line

MAX_BODY_BYTES = 64 * 1024
"""More is never read: a proper answer has some hundred bytes."""

_REDIRECTS = {301, 302, 303, 307, 308}
_LOGIN = re.compile(r"log-?_?in|log-?_?on|sign-?_?in|account|oauth|openid|saml|sso", re.IGNORECASE)
# Of somebody else's text more is not looked at; of that, as much is quoted.
_LOOKED_AT, _QUOTED = 4000, 200


@dataclass(frozen=True)
class Call:
    """One request, as far as its answer is read by it. target: "model 123"; sets: the status that a PUT sends."""

    method: str
    url: str
    target: str
    sets: ProcessingStatus | None = None

    @property
    def writes(self) -> bool:
        return self.method == "PUT"

    def __str__(self) -> str:
        return f"{self.method} {self.url}"


@dataclass(frozen=True)
class Answer:
    """status: HTTP status code; headers: case-insensitive; body: at most MAX_BODY_BYTES, too_large if
    there was more; clean: takes secrets, whatever form they have, out of text that is quoted.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    too_large: bool = False
    clean: Callable[[str], str] = redact

    @property
    def is_html(self) -> bool:
        content_type = self.headers.get("Content-Type", "").split(";")[0].strip().lower()
        return content_type in ("text/html", "application/xhtml+xml") or self.body.lstrip()[:1] == b"<"

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def refuses_key(self, call: Call) -> bool:
        """401, or what a portal with a login page for people answers instead: a redirect to it."""
        return self.status == 401 or self._leads_to_a_login(call)

    def document(self) -> object:
        """The JSON in the body, its objects as Fields. Raises ValueError."""
        try:
            return json.loads(self.body.decode("utf-8-sig"), object_pairs_hook=Fields)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error

    def text(self) -> str:
        """The beginning of the body, fit to be looked at and quoted."""
        return self.clean(self.body.decode("utf-8", "replace")[:_LOOKED_AT])

    def _leads_to_a_login(self, call: Call) -> bool:
        """A redirect to another path than the one that was called: the same elsewhere is the portal's new address."""
        location = self.headers.get("Location", "")
        if self.status not in _REDIRECTS or not location:
            return False
        try:
            here, there = urlsplit(call.url), urlsplit(urljoin(call.url, location))
        except ValueError:
            return False
        if there.netloc != here.netloc and _LOGIN.search(there.netloc):
            return True
        # With or without what stands before it in API_BASE_URL.
        api = here.path[here.path.rfind("/api/external/") :].rstrip("/").lower()
        return not there.path.rstrip("/").lower().endswith(api)

    def quoted(self, words: str) -> str:
        """` saying '...'` for a sentence, without secrets; "" for no words."""
        # Cleaned before it is cut: half a secret would not be found.
        words = one_line(self.clean(words[:_LOOKED_AT]))
        return f" saying {words[:_QUOTED]!r}" if words else ""
