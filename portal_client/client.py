"""The portal's status API over HTTP; with `connections` and `failures` below it the only importer of requests.

    PUT {API_BASE_URL}/api/external/models/status          {"ModelId", "Status": number, "Message"}
    GET {API_BASE_URL}/api/external/models/{id}/status     {"status": word or number, "message"}

One call is one attempt, plus the fall-back to the other header where the method is auto. Callers decide how often and
when to retry: they know what waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import requests
import urllib3

from portal_client import auth, log_lines, settings
from portal_client.address import PortalAddress, check_model_id
from portal_client.answers import check_accepted, read_status
from portal_client.connections import Attempt, open_session, read_body
from portal_client.errors import (
    NotAcknowledged,
    NotFoundUnexplained,
    PortalError,
    PortalUnauthorized,
    PortalUnavailable,
)
from portal_client.exchange import Answer, Call
from portal_client.failures import failure_of
from portal_client.log_lines import AnyLogger, Wording
from portal_client.messages import portal_message
from portal_client.refusals import known_elsewhere
from portal_client.statuses import ModelStatus, ProcessingStatus
from portal_client.tls import tls_verification
from training_common.redaction import redact

CallObserver = Callable[[str, int | None, PortalError | None, float], None]
"""Called after every call: method, the last HTTP status (None: no answer), the error it ended with, seconds."""

# Models that are asked for again to learn whether a portal without words knows models at all.
_WITNESSES = 2
_Found = TypeVar("_Found")


class PortalClient:
    """Reads and writes model statuses. Thread-safe; connections are pooled and kept.

    base_url:    API_BASE_URL, http(s)://host[:port][/path]
    api_key:     API_KEY; surrounding white space (the line end of a key file) is dropped. Without a key it
                 warns, and every call raises PortalUnauthorized before anything is sent
    auth_method: auto, x-api-key or bearer
    ca_bundle:   file of CA certificates in PEM, instead of the system's. TLS is verified everywhere but on
                 loopback hosts; a bundle turns it on there too
    timeout:     seconds for one whole call, from the look-up of the host's name to the last byte of the answer, the
                 fall-back to the other header included
    pool_size:   connections kept open; more threads than that work, at the price of new connections
    on_call:     see CallObserver; it must not raise
    newer_key:   for a key of one training, which may be exchanged while it runs: called with a key that is refused, it
                 returns the one that has come in its place, or None; that is tried at once
    Raises ValueError, with a sentence that names the setting, for settings that cannot work.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        auth_method: str = auth.AUTO,
        ca_bundle: Path | None = None,
        *,
        timeout: float = 30.0,
        pool_size: int = 16,
        logger: AnyLogger | None = None,
        on_call: CallObserver | None = None,
        newer_key: Callable[[str], str | None] | None = None,
    ) -> None:
        self._address = _checked("API_BASE_URL", PortalAddress.parse, base_url)
        self._api_key = _checked("API_KEY", settings.api_key, api_key.strip()) if api_key.strip() else ""
        self._newer_key = newer_key
        self._auth = auth.AuthChoice(_checked("MODEL_API_AUTH_METHOD", settings.auth_method, auth_method))
        self._verify = tls_verification(self._address, ca_bundle)
        if not timeout > 0:
            raise ValueError(f"The portal's time-out is {timeout} s: expected more than 0")
        self._timeout = timeout
        self._log: AnyLogger = logger if logger is not None else logging.getLogger("portal_client")
        self._session = open_session(pool_size, is_loopback=self._address.is_loopback)
        self._guard = threading.Lock()
        self._known: list[str] = []  # models that the portal has answered for, the latest first
        self._on_call = on_call or (lambda method, status, error, seconds: None)
        self.server_date: str | None = None  # the Date of the newest answer: `dispatcher check` compares clocks
        self._log_settings()

    def get_model_status(self, model_id: str) -> ModelStatus:
        """The model's status and message at the portal now. Raises PortalError."""
        call = Call("GET", self._address.status_url(model_id), f"model {model_id}")
        try:
            found = self._read_status(call, model_id)
        except NotFoundUnexplained as error:
            witness = self._another_known(model_id)
            if witness is None:
                raise
            failure = known_elsewhere(error, call, witness)
        else:
            with self._guard:
                self._known = [model_id, *(known for known in self._known if known != model_id)][:_WITNESSES]
            self._log.info(log_lines.RETRIEVED, model_id, found.status.title)
            return found
        raise failure

    def _read_status(self, call: Call, model_id: str) -> ModelStatus:
        return self._call(call, None, read_status, log_lines.GET, log_lines.NOT_RETRIEVED, model_id)

    def _another_known(self, model_id: str) -> str | None:
        """A model for which the portal answers right now: what it answered before its last roll-out proves nothing."""
        with self._guard:
            known = [known for known in self._known if known != model_id]
        for witness in known:
            with suppress(PortalError):
                self._read_status(Call("GET", self._address.status_url(witness), f"model {witness}"), witness)
                return witness
        return None

    def update_model_status(self, model_id: str, status: ProcessingStatus, message: str) -> None:
        """Sets the model's status. Raises PortalError; `.ambiguous`: it may have been set all the same.

        message: for the portal's users; secrets are redacted, and it is cut at messages.MESSAGE_LIMIT. The end of a
        training (Completed, Failed) is read back where the portal's answer leaves a doubt whether it was taken.
        """
        check_model_id(model_id)
        call = Call("PUT", self._address.update_url, f"model {model_id}", status)
        payload = {
            "ModelId": model_id,
            "Status": int(status),
            "Message": self._clean(portal_message(message)),
        }
        sure = self._call(call, payload, check_accepted, log_lines.PUT, log_lines.NOT_UPDATED, model_id, status.title)
        if status.is_terminal and not sure:
            shown = self.get_model_status(model_id).status
            if shown is not status:
                raise NotAcknowledged(
                    f"The portal took {status.title} for model {model_id} and still shows {shown.title}", ambiguous=True
                )
        self._log.info(log_lines.UPDATED, model_id, status.title)

    def close(self) -> None:
        self._session.close()

    def _call(
        self,
        call: Call,
        payload: Mapping[str, object] | None,
        read: Callable[[Answer, Call, float], _Found],
        wording: Wording,
        *failed: str,
    ) -> _Found:
        """What `read` finds in the portal's answer; logs the call and calls the observer.

        failed: the last line that a failure is logged with, and its arguments.
        """
        self._log.info(log_lines.MAKING_REQUEST, call.method, call.url)
        if payload is not None:
            self._log.info(log_lines.PAYLOAD, payload)
        began = time.monotonic()
        try:
            answer, method = self._exchange(call, payload, began + self._timeout)
            found = read(answer, call, time.time())
        except PortalError as error:
            self._on_call(call.method, error.status_code, error, time.monotonic() - began)
            self._log.warning(wording.error, self._clean(error.detail))
            self._log.warning(*failed)
            raise
        self._on_call(call.method, answer.status, None, time.monotonic() - began)
        if self._auth.is_auto:
            self._log.info(wording.successful_with, auth.SPOKEN[method], answer.status)
        else:
            self._log.info(wording.successful, answer.status)
        return found

    def _exchange(self, call: Call, payload: Mapping[str, object] | None, deadline: float) -> tuple[Answer, str]:
        """The portal's answer, whatever its status, and the authentication method that got it."""
        tried = self._api_key
        if not tried and not self._take_newer(tried):
            self._log.warning(log_lines.KEY_MISSING_WARNING)
            raise PortalUnauthorized(
                "API_KEY not configured: without it the portal answers nobody, so nothing was sent"
            )
        answer, method = self._try_key(call, payload, deadline)
        is_refused = answer.refuses_key(call) or (answer.status == 403 and not answer.is_html)
        if is_refused and self._take_newer(tried):
            answer, method = self._try_key(call, payload, deadline)
        if answer.is_success:
            self._auth.worked(method)
        return answer, method

    def _take_newer(self, refused: str) -> bool:
        """Whether another key than the refused one is there; it is used from now on."""
        newer = self._newer_key(refused) if self._newer_key is not None else None
        if newer is None or newer == refused:
            return False
        with suppress(ValueError):
            if newer != self._api_key:  # else another thread was faster
                self._api_key = settings.api_key(newer)
                self._log.info(log_lines.KEY_CHANGED, len(newer))
        return newer == self._api_key

    def _try_key(self, call: Call, payload: Mapping[str, object] | None, deadline: float) -> tuple[Answer, str]:
        self._log.info(log_lines.USING_METHOD, self._auth.method)
        order = self._auth.order()
        for position, method in enumerate(order):
            spoken = auth.SPOKEN[method]
            self._log.info(log_lines.TRYING, spoken)
            answer = self._send(call, payload, method, deadline)
            self._log.info(log_lines.RESPONSE_CODE, answer.status)
            if not answer.refuses_key(call):
                break
            self._auth.refused(method)
            if self._auth.is_auto:
                self._log.warning(log_lines.AUTH_FAILED, spoken, answer.status)
                if position + 1 < len(order):
                    self._log.warning(log_lines.FALLING_BACK, auth.SPOKEN[order[position + 1]])
        return answer, method

    def _send(self, call: Call, payload: Mapping[str, object] | None, method: str, deadline: float) -> Answer:
        for fresh in (False, True):
            attempt = Attempt(deadline, fresh=fresh)
            try:
                with attempt.running():
                    return self._ask(call, payload, method)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                failure = self._without_answer(error, call)
            if not attempt.may_repeat(reads=not call.writes):
                break
        # Outside the handler: requests' exception holds the request's headers, and is not to be chained.
        raise failure

    def _ask(self, call: Call, payload: Mapping[str, object] | None, method: str) -> Answer:
        with self._session.request(
            call.method,
            call.url,
            json=payload,
            # A status that some cache on the way has kept may be older than our own write.
            headers=None if call.writes else {"Cache-Control": "no-cache", "Pragma": "no-cache"},
            auth=_key_header(*auth.header(method, self._api_key)),
            # The attempt bounds all of it; this is what an error's text quotes.
            timeout=(self._timeout, self._timeout),
            allow_redirects=False,
            stream=True,
            # Given with each request: the session's own value loses against REQUESTS_CA_BUNDLE.
            verify=self._verify,
        ) as response:
            self.server_date = response.headers.get("Date")
            body, too_large = read_body(response)
            return Answer(response.status_code, response.headers, body, too_large, self._clean)

    def _without_answer(self, error: Exception, call: Call) -> PortalUnavailable:
        what, may_have_arrived = failure_of(error, self._address.host, self._timeout)
        return PortalUnavailable(
            f"The portal at {self._address.base_url} {what} ({call})",
            detail=self._clean(" ".join(str(error).split())),
            ambiguous=call.writes and may_have_arrived,
        )

    def _log_settings(self) -> None:
        self._log.info(log_lines.INITIALISED, self._address.base_url)
        if self._api_key:
            self._log.info(log_lines.KEY_CONFIGURED, len(self._api_key))
        else:
            self._log.info(log_lines.KEY_MISSING)
            self._log.warning(log_lines.KEY_MISSING_WARNING)
        self._log.info(log_lines.AUTH_METHOD, self._auth.method)
        if self._api_key and not self._address.is_https and not self._address.is_loopback:
            if self._newer_key is None:
                self._log.warning(log_lines.UNENCRYPTED, self._address.host)
            else:  # the dispatcher's relay, within the cluster
                self._log.info(log_lines.UNENCRYPTED_FOR_ONE_RUN, self._address.host)

    def _clean(self, text: str) -> str:
        return redact(text, (self._api_key,))


def _key_header(name: str, value: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Sends the key as one header. Being an `auth`, it keeps requests from using a .netrc entry instead."""

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers[name] = value
        return request

    return sign


def _checked(name: str, parse: Callable[[str], _Found], value: str) -> _Found:
    """Both images have read their settings with the same parsers; other callers learn which argument is wrong."""
    try:
        return parse(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
