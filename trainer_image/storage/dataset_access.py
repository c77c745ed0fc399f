"""Asks the dispatcher's relay for access to a dataset that only config.yaml names.

    POST {API_BASE_URL}/training/dataset   {"container": NAME}   →   200 {"url": "https://…/NAME?SAS"}

with the token of this run. What it refuses it refuses for good, with a sentence; a relay that is away is waited for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import requests

from portal_client import auth
from trainer_image.errors import ConfigInvalid, StorageUnavailable
from trainer_image.host.credentials import API_KEY, CredentialFiles
from trainer_image.storage import untrusted_json
from trainer_image.storage.azure_ranges import only_our_credentials
from training_common.backoff import exponential, jittered
from training_common.redaction import redact
from training_common.text import one_line

log = logging.getLogger(__name__)

# Seconds for which a relay is waited for that is away or has no answer yet: a dispatcher is replaced in less.
PATIENCE = 300.0
_TIMEOUT = 30.0
_MOST_BYTES = 16 * 1024
_REFUSED = (403, 404, 409)


def dataset_url(
    base_url: str | None,
    container: str,
    files: CredentialFiles,
    auth_method: str = auth.AUTO,
    *,
    patience: float = PATIENCE,
    wait: Callable[[float], object] = time.sleep,
) -> str:
    """The dataset's URL with a signature. Raises ConfigInvalid for a refusal, StorageUnavailable, and as `wait`."""
    if not base_url:
        raise ConfigInvalid(
            f"Invalid configuration: dataset: no access to {container}: the request has to name it, because there is no"
            " relay to ask (API_BASE_URL)"
        )
    end = time.monotonic() + patience
    method = auth.BEARER if auth_method == auth.BEARER else auth.X_API_KEY
    failures = 0
    with requests.Session() as session:
        only_our_credentials(session)
        while True:
            token = files.read(API_KEY) or ""
            status, said = _ask(session, f"{base_url}/training/dataset", container, auth.header(method, token))
            if status == 200 and isinstance(url := said.get("url"), str):
                return url
            # Without a sentence it is no answer of the relay's, but of a proxy or mesh on the way, and passes.
            if status in _REFUSED and said.get("detail"):
                sentence = redact(one_line(str(said["detail"])))[:500]
                raise ConfigInvalid(f"Invalid configuration: dataset: no access to {container}: {sentence}")
            failures += 1
            pause = jittered(exponential(failures, 1.0, 15.0))
            why = f"HTTP {status}" if status else "it cannot be reached"
            if time.monotonic() + pause >= end:
                raise StorageUnavailable(
                    f"Failed to download dataset from container: {container} (the dispatcher gives no access: {why})"
                )
            log.warning("The dispatcher gives no access to dataset %s yet: %s", container, why)
            wait(pause)


def _ask(session: requests.Session, url: str, container: str, header: tuple[str, str]) -> tuple[int, dict[str, object]]:
    """(HTTP status, what it said); 0 where there was no answer. No text of the library's: it may quote the header."""
    try:
        with session.post(
            url,
            json={"container": container},
            headers=dict([header]),
            timeout=_TIMEOUT,
            allow_redirects=False,
            stream=True,
        ) as response:
            body = response.raw.read(_MOST_BYTES, decode_content=True)
            status = response.status_code
    except (requests.RequestException, OSError, ValueError):
        return 0, {}
    try:
        said = untrusted_json.loads(body)
    except ValueError:
        return status, {}
    return status, said if isinstance(said, dict) else {}
