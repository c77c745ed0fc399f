"""Settings of what is around the dispatcher: queues, storage, portal, cluster, and the Job template."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dispatcher.config import parsers
from dispatcher.config.parsers import Numbered
from portal_client import settings as portal
from training_common.parsers import choice, file, matching, switch, text, url
from training_common.settings import setting


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Part of `Settings`."""

    queue_name: str = setting(
        "QUEUE_NAME",
        parsers.queue_name,
        "Azure Storage Queue with the training requests",
        empty="",
        example="training-requests",
    )
    queue_weights: tuple[Numbered, ...] = setting(
        "QUEUE_NAMES",
        parsers.queue_weights,
        "In place of `QUEUE_NAME`: several queues, the first comes first, such as urgent,normal; with weights, such as "
        "urgent:4,normal:1, each has its share of what is received while the others wait, too",
        empty=(),
    )
    queue_caps: tuple[Numbered, ...] = setting(
        "QUEUE_MAX_ACTIVE_JOBS",
        parsers.queue_caps,
        "With `QUEUE_NAMES`: unfinished Jobs of a queue at which receiving from it pauses, such as urgent:20,normal:80",
        empty=(),
    )
    storage_connection_string: str = setting(
        "AZURE_STORAGE_CONNECTION_STRING",
        text,
        "Connection string of the storage account",
        secret=True,
        empty="",
        example="DefaultEndpointsProtocol=https;AccountName=ACCOUNT;AccountKey=KEY;EndpointSuffix=core.windows.net",
    )
    storage_account_url: str = setting(
        "AZURE_STORAGE_QUEUE_URL",
        url("https://ACCOUNT.queue.core.windows.net"),
        "Queue endpoint such as https://ACCOUNT.queue.core.windows.net, to use azure-identity instead",
        empty="",
    )
    credentials: str = setting(
        "CREDENTIALS",
        choice("shared", "scoped"),
        "scoped: a training gets credentials for its own model, run and dataset alone, in a Secret of its Job; shared: "
        "it has whatever the Job template gives it",
        "shared",
    )
    storage_blob_url: str = setting(
        "AZURE_STORAGE_BLOB_URL",
        url("https://ACCOUNT.blob.core.windows.net"),
        "Blob endpoint of the same account, for `CREDENTIALS=scoped`; empty: `AZURE_STORAGE_QUEUE_URL` with `blob` in "
        "place of `queue`",
        empty="",
    )
    api_base_url: str = setting(
        "API_BASE_URL", portal.portal_url, "Base URL of the portal's API", empty="", example="https://localhost:44302"
    )
    api_key: str = setting(
        "API_KEY", portal.api_key, "Key of the portal's API", secret=True, empty="", example="your_api_key_here"
    )
    api_auth_method: str = setting("MODEL_API_AUTH_METHOD", portal.auth_method, "Header that carries the key", "auto")
    api_ca_bundle: Path | None = setting(
        "API_CA_BUNDLE",
        file,
        "PEM file with the certificate authorities that the portal's certificate is checked against",
    )
    status_tracking: bool = setting(
        "STATUS_TRACKING",
        switch,
        "off launches without checking or updating the model's status: for debugging only",
        "on",
    )
    namespace: str = setting(
        "NAMESPACE",
        matching(
            r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "a Kubernetes namespace: lower-case letters, digits and hyphens"
        ),
        "Namespace of the training Jobs; in a pod its own, else the kubeconfig's",
        empty="",
    )
    job_template: Path = setting(
        "JOB_TEMPLATE",
        file,
        "The operator's Job template, a batch/v1 Job in YAML",
        required=True,
        example="manifests/base/job-template.yaml",
    )
    trainer_image: str = setting(
        "TRAINER_IMAGE", text, "Image of the trainer container, where the template names none", empty=""
    )
    gpu_resource: str = setting(
        "GPU_RESOURCE",
        matching(
            r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
            "an extended resource such as nvidia.com/gpu",
        ),
        "Extended resource that `resources.gpus` of a request asks for where the template has no GPU of its own",
        "nvidia.com/gpu",
    )
    kueue_queue: str = setting(
        "KUEUE_QUEUE",
        matching(
            r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?",
            "the name of a LocalQueue: lower-case letters, digits, hyphens and dots",
        ),
        "LocalQueue of Kueue; when set, Kueue alone resumes the Jobs",
        empty="",
    )
