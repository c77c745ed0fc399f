"""The codes that a training or a message may end with, for labels of metrics. Pure; held equal to the docs by a test.

A trainer writes its own code into its termination message. An unknown one is counted as OTHER: a container must not
decide the number of series that a Prometheus has to keep.
"""

from __future__ import annotations

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
CAUSES = ("queue", "portal", "cluster", "template")


def label_of(code: str) -> str:
    """An outcome's code as a label's value."""
    return code if code in OUTCOMES else OTHER
