"""The codes that a training or a message may end with, for labels of metrics. Pure; held equal to the docs by a test.

A trainer writes its own code into its termination message. An unknown one is counted as OTHER: a container must not
decide the number of series that a Prometheus has to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

OTHER = "Other"

COMPLETED = "Completed"
# The trainer's exit codes, by the trainer's contract; a test holds it equal to trainer_image.errors.
EXIT_CODES = {
    64: "UsageError",
    65: "DatasetInvalid",
    66: "DatasetMissing",
    70: "InternalError",
    77: "PermissionDenied",
    78: "ConfigInvalid",
    79: "UserCodeFailed",
    80: "TrainingDiverged",
    81: "GpuOutOfMemory",
    82: "LimitExceeded",
    83: "Cancelled",
    84: "StatusRefused",
    137: "OutOfMemory",
    143: "Terminated",
    201: "StorageUnavailable",
    202: "StatusUnavailable",
    203: "GpuFault",
    204: "Fenced",
    205: "UserCodeKilled",
    206: "PeerLost",
}
# Exit codes up to this one are permanent by the trainer's contract: the first pod that ends with one fails the Job.
LAST_PERMANENT = 127
# UploadFailed ends with the exit code of StorageUnavailable.
REPORTED_BY_TRAINER = (*EXIT_CODES.values(), "UploadFailed")
READ_FROM_KUBERNETES = (
    "CommandNotFound",
    "ContainerConfig",
    "ContainerLost",
    "Disrupted",
    "Drained",
    "Evicted",
    "GpuRuntimeFailed",
    "ImagePull",
    "InitFailed",
    "Interrupted",
    "JobDeleted",
    "JobFailed",
    "Killed",
    "NodeLost",
    "NodeRejected",
    "NodeShutdown",
    "PodCreateDenied",
    "PodDeleted",
    "PodLost",
    "Preempted",
    "RuntimeFailed",
    "TeamIncomplete",
    "Timeout",
    "TrainerFailed",
    "Unschedulable",
    "WebhookUnavailable",
)
# No other node and no other try changes what the image holds.
PERMANENT = frozenset({"CommandNotFound"})
OUTCOMES = (COMPLETED, *REPORTED_BY_TRAINER, *READ_FROM_KUBERNETES, OTHER)

POISON = (
    "InternalError",
    "InvalidContainerName",
    "InvalidField",
    "JobRefused",
    "MessageTooLarge",
    "MissingField",
    "ModelUnknown",
    "NameTaken",
    "NotAnObject",
    "NotJson",
    "PortalRefused",
    "StatusUnreadable",
    "UnknownTask",
)

# Why the intake pauses: who is out of reach, or a Job template that the API server refuses.
QUEUE = "queue"
CAUSES = (QUEUE, "portal", "cluster", "storage", "template")


class Fault(StrEnum):
    """Who can mend what a training or a message ended by; NONE of a success."""

    NONE = "none"
    USER = "user"  # who asked for the training: the request, the data, the program
    OPERATOR = "operator"  # who runs the dispatcher: settings, the Job template, rights, quotas
    CLUSTER = "cluster"  # who runs the nodes and the API server
    PORTAL = "portal"
    STORAGE = "storage"


_CODES_OF: Mapping[Fault, tuple[str, ...]] = {
    Fault.NONE: (COMPLETED,),
    Fault.USER: (
        "Cancelled",
        "ConfigInvalid",
        "DatasetInvalid",
        "DatasetMissing",
        "GpuOutOfMemory",
        "Interrupted",
        "InvalidContainerName",
        "InvalidField",
        "JobRefused",
        "Killed",
        "LimitExceeded",
        "MessageTooLarge",
        "MissingField",
        "ModelUnknown",
        "NotAnObject",
        "NotJson",
        OTHER,
        "OutOfMemory",
        "StatusRefused",
        "Timeout",
        "TrainerFailed",
        "TrainingDiverged",
        "UnknownTask",
        "UserCodeFailed",
        "UserCodeKilled",
    ),
    Fault.OPERATOR: (
        "CommandNotFound",
        "ContainerConfig",
        "Evicted",
        "ImagePull",
        "InitFailed",
        "InternalError",
        "JobDeleted",
        "NameTaken",
        "PermissionDenied",
        "PodCreateDenied",
        "PodDeleted",
        "TeamIncomplete",
        "Unschedulable",
        "UsageError",
    ),
    Fault.CLUSTER: (
        "ContainerLost",
        "Disrupted",
        "Drained",
        "Fenced",
        "GpuFault",
        "GpuRuntimeFailed",
        "JobFailed",
        "NodeLost",
        "NodeRejected",
        "NodeShutdown",
        "PeerLost",
        "PodLost",
        "Preempted",
        "RuntimeFailed",
        "Terminated",
        "WebhookUnavailable",
    ),
    Fault.PORTAL: (
        "PortalRefused",
        "StatusUnavailable",
        "StatusUnreadable",
    ),
    Fault.STORAGE: (
        "StorageUnavailable",
        "UploadFailed",
    ),
}
FAULTS: Mapping[str, Fault] = {code: fault for fault, found in _CODES_OF.items() for code in found}
"""Whose fault each code is, of outcomes and of the poison queue alike."""


def label_of(code: str) -> str:
    """An outcome's code as a label's value."""
    return code if code in OUTCOMES else OTHER
