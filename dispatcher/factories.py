"""What the settings mean for each part, in that part's own terms: `app` wires a running dispatcher of it, and the
commands build the one or two parts that they need.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dispatcher.config.parsers import poison_name
from dispatcher.config.settings import Settings
from dispatcher.decisions.fairness import Lane
from dispatcher.decisions.waiting import Limits
from dispatcher.launch import gpus
from dispatcher.launch.job_spec import JobDefaults, shared_credentials
from dispatcher.launch.job_template import load_template, other_secrets
from dispatcher.launch.request import Bounds
from dispatcher.queue.azure import TrainingQueue
from dispatcher.queue.messages import QueuePair
from portal_client.client import CallObserver, PortalClient

if TYPE_CHECKING:
    from dispatcher.storage.azure import AzureSignatures

log = logging.getLogger(__name__)

# Connections that the relay keeps open to the portal.
_RELAY_POOL = 32
# Seconds that one of the status page's calls to the portal may take: it asks again later.
_PAGE_TIMEOUT = 10.0


def bounds_of(settings: Settings, template: Mapping[str, Any] | None = None) -> Bounds:
    """template: where it is not known, what it forbids is only found later."""
    trainer = gpus.trainer_of(template) if template is not None else {}
    by_claims = 0 if gpus.kinds(trainer, settings.gpu_resource) else gpus.claims(trainer)
    return Bounds(
        settings.max_gpus,
        settings.max_time_limit,
        settings.priority_classes,
        by_claims,
        own_datasets=settings.scoped,
        max_nodes=settings.max_nodes,
    )


def defaults_of(settings: Settings) -> JobDefaults:
    """What every trainer gets from the dispatcher's own settings."""
    env = {
        "STATUS_TRACKING": "on" if settings.status_tracking else "off",
        "MODEL_API_AUTH_METHOD": settings.api_auth_method,
        "STATUS_PROGRESS_SECONDS": f"{settings.progress:g}",
    }
    if address := settings.relay_url if settings.scoped else settings.api_base_url:
        env["API_BASE_URL"] = address
    return JobDefaults(
        env, int(settings.max_time_limit), settings.trainer_image, settings.gpu_resource, scoped=settings.scoped
    )


def say_what_is_left_out(settings: Settings, template: Mapping[str, Any]) -> None:
    """In the log, once: what of the template's a training with scoped credentials does without, and what it keeps."""
    if not settings.scoped:
        return
    if left_out := shared_credentials(template):
        mine = "CREDENTIALS=scoped: trainings have credentials of their own, and not the Job template's %s"
        log.info(mine, ", ".join(left_out))
    if kept := other_secrets(template):
        log.warning("CREDENTIALS=scoped, and the Job template hands every training the Secrets %s", ", ".join(kept))


def open_signatures(settings: Settings) -> AzureSignatures:
    """Raises ValueError for a connection string that cannot sign."""
    from dispatcher.storage.azure import AzureSignatures  # only with scoped credentials: it costs memory

    return AzureSignatures(connection_string=settings.storage_connection_string, blob_url=settings.blob_url)


def limits_of(settings: Settings) -> Limits:
    return Limits(
        image_pull=settings.image_pull_grace,
        container_config=settings.container_config_grace,
        unschedulable=settings.unschedulable_limit,
        pod_create=settings.pod_create_grace,
        quota=settings.quota_limit,
        disruptions=settings.max_disruptions,
        lost_node=settings.lost_node_limit,
        team=settings.team_wait,
    )


def lanes_of(settings: Settings) -> list[Lane]:
    """The queues by priority."""
    caps = dict(settings.queue_caps)
    weights = dict(settings.queue_weights)
    return [Lane(name, weights.get(name, 1), caps.get(name)) for name in settings.queues]


def open_queues(settings: Settings) -> list[QueuePair[TrainingQueue]]:
    """Each queue with its poison queue, by priority. Raises ConnectionStringInvalid."""
    return [
        QueuePair(
            name,
            open_queue(settings, name),
            open_queue(settings, poison_name(name)),
            settings.envelope_secret(name),
        )
        for name in settings.queues
    ]


def open_queue(settings: Settings, name: str) -> TrainingQueue:
    return TrainingQueue(
        name,
        connection_string=settings.storage_connection_string,
        account_url=settings.storage_account_url,
        pool_size=settings.launch_concurrency + 2,
    )


def _portal(settings: Settings, **options: Any) -> PortalClient:
    """options: `PortalClient`'s own."""
    return PortalClient(
        settings.api_base_url,
        settings.api_key,
        settings.api_auth_method,
        ca_bundle=settings.api_ca_bundle,
        **options,
    )


def open_portal(settings: Settings, on_call: CallObserver | None = None) -> PortalClient | None:
    """None with STATUS_TRACKING=off."""
    if not settings.status_tracking:
        log.warning("STATUS_TRACKING=off: models are trained without checking or updating their status at the portal")
        return None
    return _portal(settings, pool_size=settings.launch_concurrency + settings.report_concurrency, on_call=on_call)


def open_reading_portal(settings: Settings) -> PortalClient | None:
    """A client for reading alone: one connection, and silent, since its user tells of a failure, or has not to.

    None with STATUS_TRACKING=off or without a key.
    """
    if not settings.status_tracking or not settings.api_key:
        return None
    quiet = logging.getLogger("dispatcher.reading.portal")
    quiet.setLevel(logging.CRITICAL)
    return _portal(settings, timeout=_PAGE_TIMEOUT, pool_size=1, logger=quiet)


def open_relay_portal(settings: Settings, on_call: CallObserver | None = None) -> PortalClient | None:
    """The relay's own client. It logs failures alone: what trainings ask for is many times what the dispatcher does.

    None with STATUS_TRACKING=off, or without a relay.
    """
    if not settings.status_tracking or not settings.relay_listens_on:
        return None
    quiet = logging.getLogger("dispatcher.relay.portal")
    quiet.setLevel(logging.CRITICAL)
    return _portal(settings, pool_size=_RELAY_POOL, logger=quiet, on_call=on_call)


def read_template(settings: Settings) -> dict[str, Any]:
    """The operator's Job template. Raises ValueError with what is wrong with the file, or with the Job in it."""
    try:
        text = settings.job_template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"JOB_TEMPLATE {settings.job_template} cannot be read: {error}") from None
    return load_template(text, settings.trainer_image, settings.gpu_resource, settings.max_nodes)
