"""The Azure Storage Queue: the only importer of azure.storage.queue."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.queue import QueueClient

from dispatcher.queue.messages import (
    MAX_BATCH,
    ConnectionStringInvalid,
    PeekedMessage,
    QueueError,
    QueueForbidden,
    QueueMessage,
    QueueUnavailable,
)
from training_common import azure_identity
from training_common.keep_alive import SOCKET_OPTIONS
from training_common.redaction import redact
from training_common.text import one_line

# What `dispatcher check` sends, and for how many seconds it would exist.
_PROBE = "dispatcher check: this message may be deleted"
_PROBE_SECONDS = 60

# Its INFO lines are every request's headers, its warnings dozens of lines for each token that it does not get: our
# sentence has what matters of them.
logging.getLogger("azure").setLevel(logging.CRITICAL)


class TrainingQueue:
    """One queue. Thread-safe, as the SDK's client is."""

    def __init__(self, name: str, *, connection_string: str = "", account_url: str = "", pool_size: int = 32) -> None:
        self.name = name
        self.server_date: str | None = None  # the Date of the newest answer, for `dispatcher check`
        self._last = threading.local()  # answer: the newest one to this thread
        options: dict[str, Any] = {
            "transport": _transport(pool_size),
            "raw_response_hook": self._look_at,
            "connection_timeout": 10,
            "read_timeout": 30,
            # One prompt retry: the circuit breaker waits out an outage, and the SDK's default of 15 seconds would hold
            # up a launch.
            "retry_total": 1,
            "initial_backoff": 0,
            "random_jitter_range": 1,
        }
        if connection_string:
            try:
                self._client = QueueClient.from_connection_string(connection_string, name, **options)
            except ValueError:
                raise ConnectionStringInvalid(
                    "AZURE_STORAGE_CONNECTION_STRING is no connection string; it begins with "
                    '"DefaultEndpointsProtocol=" and has AccountName and AccountKey'
                ) from None
        else:
            from azure.identity import DefaultAzureCredential

            self._client = QueueClient(account_url, name, credential=DefaultAzureCredential(), **options)

    def receive(self, limit: int, visibility_timeout: float) -> list[QueueMessage]:
        """Up to `limit` (at most 32) messages, hidden from others for `visibility_timeout` seconds. One call."""
        # Counted from before the call: on the safe side of the service's own clock.
        hidden_until = time.monotonic() + visibility_timeout
        limit = min(limit, MAX_BATCH)
        pages = self._client.receive_messages(
            messages_per_page=limit, max_messages=limit, visibility_timeout=int(visibility_timeout)
        ).by_page()
        page = self._call("receive from", lambda: list(next(pages, ())))
        return [
            QueueMessage(
                *_facts(message), pop_receipt=str(message.pop_receipt), hidden_until=hidden_until, queue=self.name
            )
            for message in page
        ]

    def delete(self, message: QueueMessage) -> bool:
        """Delete with the newest pop receipt. False, which is fine: another dispatcher has it, or it is gone."""
        return self._owned("delete from", lambda: self._client.delete_message(message.id, message.pop_receipt))

    def requeue(self, message: QueueMessage, after: float) -> bool:
        """Make the message visible again in `after` seconds. False as for `delete`."""

        def update() -> None:
            updated = self._client.update_message(
                message.id, message.pop_receipt, visibility_timeout=max(0, int(after))
            )
            message.pop_receipt = str(updated.pop_receipt)
            message.hidden_until = time.monotonic() + after

        return self._owned("update in", update)

    def send(self, text: str) -> str:
        """Put a message on the queue that never expires (F42); returns its id."""
        sent = self._call("send to", lambda: self._client.send_message(text, time_to_live=-1))
        return str(sent.id)

    def peek(self, limit: int = MAX_BATCH) -> list[PeekedMessage]:
        """Up to 32 visible messages, untouched."""
        found = self._call("peek into", lambda: self._client.peek_messages(limit))
        return [PeekedMessage(*_facts(message), queue=self.name) for message in found]

    def oldest(self) -> float | None:
        """When the message in front was put on the queue (epoch seconds), None where no message is visible."""
        return next((message.queued_at or None for message in self.peek(1)), None)

    def depth(self) -> int:
        """Approximate number of messages, hidden ones included: for people and metrics, never for decisions (F5)."""
        properties = self._call("ask", self._client.get_queue_properties)
        if properties.approximate_message_count is None:
            raise QueueUnavailable(f"Cannot ask queue {self.name}: the server there is no Azure Storage Queue")
        return int(properties.approximate_message_count)

    def metadata(self) -> Mapping[str, str]:
        """The queue's own, names in whatever case the service keeps them."""
        return dict(self._call("ask", self._client.get_queue_properties).metadata or {})

    def set_metadata(self, metadata: Mapping[str, str]) -> None:
        """In place of all that is there. names: identifiers; values: ASCII."""
        self._call("describe", lambda: self._client.set_queue_metadata(dict(metadata)))

    def try_rights(self) -> None:
        """Send, update and delete a message that nobody can see. Raises QueueError.

        Receiving takes the right of deleting ("process"). A crash between the calls: it is visible for its last second.
        """
        hidden = _PROBE_SECONDS - 1
        sent = self._call(
            "send to",
            lambda: self._client.send_message(_PROBE, visibility_timeout=hidden, time_to_live=_PROBE_SECONDS),
        )
        sent = self._call(
            "update a message in",
            lambda: self._client.update_message(sent.id, sent.pop_receipt, visibility_timeout=hidden),
        )
        self._call("delete from", lambda: self._client.delete_message(sent.id, sent.pop_receipt))

    def create(self) -> None:
        """Create the queue where it is missing."""

        def create() -> None:
            try:
                self._client.create_queue()
            except ResourceExistsError as error:
                if _code(error) == "QueueBeingDeleted":
                    raise

        self._call("create", create)

    def close(self) -> None:
        self._client.close()

    def _look_at(self, response: Any) -> None:
        """Every answer passes here before the SDK reads it: a page for people would read as an empty queue."""
        answer = self._last.answer = response.http_response
        self.server_date = answer.headers.get("Date")
        # A list of messages, or nothing; another service's XML would read as an empty queue, too.
        body = answer.body()[:300]
        if answer.status_code < 400 and not (b"<QueueMessagesList" in body if body else _is_storages(answer)):
            raise _Foreign(answer)

    def _unreadable(self, error: Exception) -> str:
        """By the last answer that this thread has got."""
        answer = getattr(self._last, "answer", None)
        if answer is not None and not _is_storages(answer):
            return str(_Foreign(answer))
        return f"the answer of storage cannot be read ({type(error).__name__}); does a proxy change it on its way?"

    def _owned(self, verb: str, call: Any) -> bool:
        try:
            self._call(verb, call)
        except _Lost:
            return False
        return True

    def _call(self, verb: str, call: Any) -> Any:
        cannot = f"Cannot {verb} queue {self.name}"
        try:
            return call()
        except _Foreign as foreign:
            raise QueueUnavailable(f"{cannot}: {foreign}") from None
        except HttpResponseError as error:
            code, answer = _code(error), error.response
            said = f"{cannot}: {_why(error)}"
            if code in _LOST:
                raise _Lost(said) from None
            if code == "QueueNotFound":
                raise QueueForbidden(f"{cannot}: it does not exist; create it") from None
            if answer is not None and not code and not _is_storages(answer):
                raise QueueUnavailable(f"{cannot}: {_Foreign(answer)}") from None
            if answer is None and isinstance(error, ClientAuthenticationError):
                # Storage was not asked: the identity has no token (yet).
                raise QueueForbidden(f"{cannot}: {azure_identity.no_token(error, os.environ)}") from None
            if isinstance(error, ClientAuthenticationError):
                raise QueueForbidden(f"{said}; check the credentials") from None
            kind = QueueForbidden if error.status_code in (400, 401, 403, 404) else QueueUnavailable
            raise kind(f"{said}; {_HINTS[code]}" if code in _HINTS else said) from None
        except AzureError as error:
            raise QueueUnavailable(f"{cannot}: {_why(error)}") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # The SDK stumbles over what it reads: an error page of a gateway's in Latin-1, a time that is none.
            raise QueueUnavailable(f"{cannot}: {self._unreadable(error)}") from None


def _facts(message: Any) -> tuple[str, str, int, float]:
    """id, text, delivery count and time of a message of the SDK's."""
    queued_at = message.inserted_on.timestamp() if message.inserted_on else 0.0
    return str(message.id), str(message.content or ""), message.dequeue_count or 0, queued_at


def _transport(pool_size: int) -> Any:
    """The SDK's own transport, with a connection for each of our threads; its default of 10 drops connections."""
    transport: Any = RequestsTransport()
    transport.open()
    for adapter in transport.session.adapters.values():
        adapter.init_poolmanager(pool_size, pool_size, socket_options=SOCKET_OPTIONS)
    # Otherwise a ~/.netrc that knows the host would replace our credentials.
    transport.session.auth = lambda request: request
    return transport


def _is_storages(answer: Any) -> bool:
    """Whether a response is an Azure Storage's, which has headers of its own."""
    return any(name.lower().startswith("x-ms-") for name in answer.headers)


class _Lost(QueueError):
    """The message is gone, or another dispatcher has received it."""


# How the service says so.
_LOST = ("MessageNotFound", "PopReceiptMismatch")


class _Foreign(Exception):
    """An answer that is no Azure Storage's: a proxy's, a login page. The text: what answered, and what to look at."""

    def __init__(self, answer: Any) -> None:
        kind = one_line(answer.headers.get("Content-Type", "")).split(";")[0] or "no content type"
        server = one_line(answer.headers.get("Server", "")) or "a server without a name"
        host = redact(answer.request.url).split("?")[0]
        super().__init__(
            f"{server[:80]} answered HTTP {answer.status_code} ({kind[:80]}) at {host}, which is no word of an Azure "
            "Storage Queue; is it the queue endpoint of the account, and does a proxy or a login page answer for it?"
        )


# What to look at where the service's own words do not say it.
_HINTS = {
    "AuthorizationFailure": "look at the account's network rules (firewall, private endpoint), then at the rights",
    "AuthorizationPermissionMismatch": "the role Storage Queue Data Contributor, or more rights in the SAS, would do",
    "AuthorizationSourceIPMismatch": "the SAS is for other addresses than the one that this runs at",
    "KeyBasedAuthenticationNotPermitted": "the account takes no keys: set AZURE_STORAGE_QUEUE_URL and use an identity",
    "QueueBeingDeleted": "somebody has deleted it: create it anew once it is gone, in half a minute or so",
    "ResourceNotFound": "is it the queue endpoint of the account, https://ACCOUNT.queue.core.windows.net?",
}


def _code(error: AzureError) -> str:
    """The service's own code, such as QueueNotFound; the SDK hangs it on the error when the service sent one."""
    code = getattr(error, "error_code", None) or ""
    return str(getattr(code, "value", code))


def _why(error: AzureError) -> str:
    code = _code(error)
    text = redact(one_line(str(error.message or error)))[:300]
    return f"{code}: {text}" if code else text
