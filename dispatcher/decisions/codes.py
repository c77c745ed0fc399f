"""The codes that a training or a message may end with, for labels of metrics. Pure; held equal to the docs by a test.

A trainer writes its own code into its termination message. An unknown one is counted as OTHER: a container must not
decide the number of series that a Prometheus has to keep.
"""

from __future__ import annotations

OTHER = "Other"

COMPLETED = "Completed"
SAID_BY_TRAINER = (
    "Cancelled",
    "ConfigInvalid",
    "DatasetInvalid",
    "DatasetMissing",
    "Fenced",
    "GpuFault",
    "GpuOutOfMemory",
    "InternalError",
    "LimitExceeded",
    "OutOfMemory",
    "PermissionDenied",
    "StatusRefused",
    "StatusUnavailable",
    "StorageUnavailable",
    "Terminated",
    "TrainingDiverged",
    "UploadFailed",
    "UsageError",
    "UserCodeFailed",
    "UserCodeKilled",
)
READ_FROM_KUBERNETES = (
    "ContainerConfig",
    "Disrupted",
    "Drained",
    "Evicted",
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
    "Timeout",
    "TrainerFailed",
    "Unschedulable",
)
OUTCOMES = (COMPLETED, *SAID_BY_TRAINER, *READ_FROM_KUBERNETES, OTHER)

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
