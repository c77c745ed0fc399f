"""The portal's status API over HTTP; with `connections` below it the only importer of requests.

    PUT {API_BASE_URL}/api/external/models/status          {"ModelId", "Status": number, "Message"}
    GET {API_BASE_URL}/api/external/models/{id}/status     {"status": word or number, "message"}

One call is one attempt, plus the fall-back to the other header where the method is auto. Callers decide how often and
when to retry: they know what waits.
"""

from __future__ import annotations

import logging
import ssl
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TypeVar

import requests
import urllib3

from portal_client import auth, log_lines, settings
from portal_client.address import PortalAddress, check_model_id
from portal_client.answers import MAX_BODY_BYTES, Answer, Call, check_accepted, read_status
from portal_client.connections import Attempt, BoundedAdapter
from portal_client.errors import PortalError, PortalUnauthorized, PortalUnavailable
from portal_client.log_lines import AnyLogger, Wording
from portal_client.messages import portal_message
from portal_client.statuses import ModelStatus, ProcessingStatus
from portal_client.tls import MISMATCH_REASONS, tls_verification
from training_common.redaction import MIN_SECRET_LENGTH, REDACTED, redact

CallObserver = Callable[[str, int | None, PortalError | None, float], None]
"""Called after every call: method, the last HTTP status (None: no answer), the error it ended with, seconds."""

_CHUNK_BYTES = 1024
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
    ) -> None:
        self._address = _checked("API_BASE_URL", PortalAddress.parse, base_url)
        self._api_key = _checked("API_KEY", settings.api_key, api_key.strip()) if api_key.strip() else ""
        self._auth = auth.AuthChoice(_checked("MODEL_API_AUTH_METHOD", settings.auth_method, auth_method))
        self._verify = tls_verification(self._address, ca_bundle)
        if not timeout > 0:
            raise ValueError(f"The portal's time-out is {timeout} s: expected more than 0")
        self._timeout = timeout
        self._log: AnyLogger = logger if logger is not None else logging.getLogger("portal_client")
        self._session = _session(self._address, pool_size)
        self._on_call = on_call or (lambda method, status, error, seconds: None)
        self.server_date: str | None = None  # the Date of the newest answer: `dispatcher check` compares clocks
        self._log_settings()

    def get_model_status(self, model_id: str) -> ModelStatus:
        """The model's status and message at the portal now. Raises PortalError."""
        call = Call("GET", self._address.status_url(model_id), f"model {model_id}")
        found = self._call(call, None, read_status, log_lines.GET, log_lines.NOT_RETRIEVED, model_id)
        self._log.info(log_lines.RETRIEVED, model_id, found.status.title)
        return found

    def update_model_status(self, model_id: str, status: ProcessingStatus, message: str) -> None:
        """Sets the model's status. Raises PortalError; `.ambiguous`: it may have been set all the same.

        message: for the portal's users; secrets are redacted, and it is cut at messages.MESSAGE_LIMIT.
        """
        check_model_id(model_id)
        call = Call("PUT", self._address.update_url, f"model {model_id}")
        payload = {
            "ModelId": model_id,
            "Status": int(status),
            "Message": self._clean(portal_message(message)),
        }
        self._call(call, payload, check_accepted, log_lines.PUT, log_lines.NOT_UPDATED, model_id, status.title)
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
        if not self._api_key:
            self._log.warning(log_lines.KEY_MISSING_WARNING)
            raise PortalUnauthorized(
                "API_KEY not configured: without it the portal answers nobody, so nothing was sent"
            )
        self._log.info(log_lines.USING_METHOD, self._auth.method)
        order = self._auth.order()
        for position, method in enumerate(order):
            spoken = auth.SPOKEN[method]
            if self._auth.is_auto:
                self._log.info(log_lines.TRYING, spoken)
            answer = self._send(call, payload, method, deadline)
            self._log.info(log_lines.RESPONSE_CODE, answer.status)
            if answer.status != 401:
                break
            self._auth.refused(method)
            if self._auth.is_auto:
                self._log.warning(log_lines.AUTH_FAILED, spoken)
                if position + 1 < len(order):
                    self._log.warning(log_lines.FALLING_BACK, auth.SPOKEN[order[position + 1]])
        if answer.is_success:
            self._auth.worked(method)
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
            auth=_key_header(*auth.header(method, self._api_key)),
            # The attempt bounds all of it; this is what an error's text quotes.
            timeout=(self._timeout, self._timeout),
            allow_redirects=False,
            stream=True,
            # Given with each request: the session's own value loses against REQUESTS_CA_BUNDLE.
            verify=self._verify,
        ) as response:
            self.server_date = response.headers.get("Date")
            body, too_large = _read(response)
            return Answer(response.status_code, response.headers, self._without_key(body), too_large)

    def _without_key(self, body: bytes) -> bytes:
        """A portal that repeats the key in its answer must not bring it into sentences and logs."""
        if len(self._api_key) < MIN_SECRET_LENGTH:
            return body
        return body.replace(self._api_key.encode(), REDACTED.encode())

    def _without_answer(self, error: Exception, call: Call) -> PortalUnavailable:
        what, may_have_arrived = _failure(error, self._address.host, self._timeout)
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
            self._log.warning(log_lines.UNENCRYPTED, self._address.host)

    def _clean(self, text: str) -> str:
        return redact(text, (self._api_key,))


class _Session(requests.Session):
    """Looks at no redirect: requests would read the whole body of one, and trip over a Location that is no URL."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


def _read(response: requests.Response) -> tuple[bytes, bool]:
    """At most MAX_BODY_BYTES of the body, and whether there was more."""
    body = b""
    # What one read of the socket brings: waiting for a full chunk of a drip would take all the time there is.
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return body[:MAX_BODY_BYTES], True
    return body, False


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


def _session(address: PortalAddress, pool_size: int) -> requests.Session:
    session = _Session()
    adapter = BoundedAdapter(pool_connections=1, pool_maxsize=pool_size)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers["Accept"] = "application/json"
    session.headers["Accept-Encoding"] = "identity"
    # The key alone says who calls; a load balancer's cookie would tie all threads to one back end.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    if address.is_loopback:
        # A proxy of the environment cannot reach our own loopback.
        session.trust_env = False
        # urllib3 warns at every unverified request. Only these hosts' warning is muted.
        warnings.filterwarnings(
            "ignore",
            message=r"Unverified HTTPS request is being made to host '(localhost|127\.[0-9.]+|\[?::1\]?)'",
            category=urllib3.exceptions.InsecureRequestWarning,
        )
    return session


def _failure(error: Exception, host: str, timeout: float) -> tuple[str, bool]:
    """What happened, as the end of a sentence about the portal, and whether the portal may have got the call."""
    causes = list(_causes(error))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if isinstance(tls, ssl.SSLCertVerificationError):
        why = tls.verify_message or tls.reason
        remedy = "put the CA that signed it into API_CA_BUNDLE, and use the host name it is made out to"
        return f"does not show a trusted certificate ({why}): {remedy}", False
    if tls is not None and tls.reason in MISMATCH_REASONS:
        return f"does not speak TLS as expected ({tls.reason}): check https and the port in API_BASE_URL", False
    if not isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
        # Network failures come wrapped; this one is of our own machine, e.g. a CA file that has gone.
        return f"cannot be called from here: {error}", False
    # InvalidSchema: a proxy that speaks SOCKS.
    if isinstance(error, requests.exceptions.ProxyError | requests.exceptions.InvalidSchema):
        return "cannot be reached through the environment's proxy: check HTTPS_PROXY and NO_PROXY", False
    if isinstance(error, requests.ConnectTimeout):
        return f"did not take a connection within {timeout:g} s: check the network and API_BASE_URL", False
    if isinstance(error, requests.ReadTimeout) or _has(causes, TimeoutError, urllib3.exceptions.ReadTimeoutError):
        return f"did not answer within {timeout:g} s: it will be tried again", True
    if _has(causes, urllib3.exceptions.NameResolutionError):
        return f"has a host name that cannot be resolved ({host}): check API_BASE_URL and DNS", False
    if _has(causes, urllib3.exceptions.NewConnectionError):
        return "cannot be connected to: check that the portal runs, and API_BASE_URL", False
    return "cut the connection before its answer was complete: it will be tried again", True


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it wraps: requests and urllib3 keep that in args, `reason` or the chain."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop(0)
        if not isinstance(current, BaseException) or any(current is known for known in seen):
            continue
        seen.append(current)
        yield current
        waiting += [*current.args, getattr(current, "reason", None), current.__cause__, current.__context__]


def _has(causes: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(cause, kinds) for cause in causes)
