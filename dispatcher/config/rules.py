"""What settings must be together: each rule takes those that it names, and yields a sentence for each problem."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dispatcher.config.parsers import Numbered


def _queues_to_read(queue_name: str, queue_weights: tuple[Numbered, ...]) -> Iterator[str]:
    if queue_name and queue_weights:
        yield "QUEUE_NAME and QUEUE_NAMES are both set: keep QUEUE_NAME for one queue, or QUEUE_NAMES for several"
    if not queue_name and not queue_weights:
        yield "QUEUE_NAME is not set: Azure Storage Queue with the training requests; or QUEUE_NAMES for several"


def _caps_of_known_queues(queue_weights: tuple[Numbered, ...], queue_caps: tuple[Numbered, ...]) -> Iterator[str]:
    if queue_caps and not queue_weights:
        yield "QUEUE_MAX_ACTIVE_JOBS is set without QUEUE_NAMES: for one queue set MAX_ACTIVE_JOBS"
        return
    known = {queue.name for queue in queue_weights}
    for cap in queue_caps:
        if cap.name not in known:
            yield f"QUEUE_MAX_ACTIVE_JOBS names {cap.name}, which QUEUE_NAMES does not"


def _one_way_into_storage(storage_connection_string: str, storage_account_url: str) -> Iterator[str]:
    if storage_connection_string and storage_account_url:
        yield "AZURE_STORAGE_CONNECTION_STRING and AZURE_STORAGE_QUEUE_URL are both set: keep one"
    if not storage_connection_string and not storage_account_url:
        yield "AZURE_STORAGE_CONNECTION_STRING is not set: set it, or AZURE_STORAGE_QUEUE_URL to use azure-identity"


def _signatures_can_be_made(
    credentials: str, storage_connection_string: str, storage_account_url: str, storage_blob_url: str
) -> Iterator[str]:
    if credentials != "scoped":
        return
    if storage_connection_string and not re.search(r"(^|;)AccountKey=", storage_connection_string, re.IGNORECASE):
        yield "AZURE_STORAGE_CONNECTION_STRING has no AccountKey, which CREDENTIALS=scoped signs with"
    if storage_account_url and not storage_blob_url and ".queue." not in storage_account_url:
        yield "AZURE_STORAGE_BLOB_URL is not set, and cannot be told from AZURE_STORAGE_QUEUE_URL (CREDENTIALS=scoped)"


def _a_portal_to_track_at(status_tracking: bool, api_base_url: str) -> Iterator[str]:
    if status_tracking and not api_base_url:
        yield "API_BASE_URL is not set: set it, or STATUS_TRACKING=off to launch without the portal"


def _a_way_for_trainings(
    credentials: str, status_tracking: bool, relay_url: str, relay_port: int | None
) -> Iterator[str]:
    if credentials != "scoped" or not status_tracking:
        return
    if not relay_url:
        yield (
            "RELAY_URL is not set: with CREDENTIALS=scoped it is what trainings call the dispatcher's relay, such as "
            "http://training-relay.training-system.svc:8082"
        )
    if relay_port == 0:
        yield "RELAY_PORT is 0: with CREDENTIALS=scoped trainings have no other way to the portal than the relay"


def _a_key_for_tokens(
    credentials: str, status_tracking: bool, relay_key: str, api_key: str, storage_connection_string: str
) -> Iterator[str]:
    if credentials == "scoped" and not (status_tracking or relay_key or api_key or storage_connection_string):
        yield "RELAY_KEY is not set: with CREDENTIALS=scoped and without an API_KEY it signs the trainings' tokens"


def _pauses_in_order(poll_min: float, poll_max: float) -> Iterator[str]:
    if poll_min > poll_max:
        yield "POLL_MIN_SECONDS is larger than POLL_MAX_SECONDS"


def _job_outlives_its_message(ttl_after_report: int, visibility_timeout: float) -> Iterator[str]:
    if ttl_after_report < visibility_timeout:
        yield (
            "TTL_AFTER_REPORT_SECONDS is shorter than VISIBILITY_TIMEOUT_SECONDS: a Job must outlive its message, "
            "or a late delivery could train its model twice"
        )


ALL = (
    _queues_to_read,
    _caps_of_known_queues,
    _one_way_into_storage,
    _signatures_can_be_made,
    _a_portal_to_track_at,
    _a_way_for_trainings,
    _a_key_for_tokens,
    _pauses_in_order,
    _job_outlives_its_message,
)
