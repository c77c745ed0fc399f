"""Every way a training ends badly, as exceptions that know their exit code.

TrainerError
├── permanent: exit codes up to 127, podFailurePolicy fails the Job at once
└── retryable: exit codes from 128, counted by the Job's backoffLimit

The table is the one of the trainer's contract (docs/trainer-authors.md): codes are stable, sentences are for
users.
"""

from __future__ import annotations

from collections.abc import Iterator

EXIT_COMPLETED = 0
EXIT_USAGE = 64
EXIT_CANCELLED = 83
EXIT_TERMINATED = 143


class TrainerError(Exception):
    """A training that ends without a model.

    `code` is the stable word for machines, `exit_code` the process's exit status, the message a sentence that
    says what happened, where, and what would be right. Never put a credential or a URL with a query into the
    sentence.
    """

    code = "InternalError"
    exit_code = 70

    def __init__(self, sentence: str, *, step: int | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.step = step

    @property
    def retryable(self) -> bool:
        return self.exit_code > 127


class UsageError(TrainerError):
    """Wrong flags or environment."""

    code = "UsageError"
    exit_code = EXIT_USAGE


class DatasetInvalid(TrainerError):
    """The dataset is there but cannot be trained on: `Invalid dataset: {file}: {why}`."""

    code = "DatasetInvalid"
    exit_code = 65


def invalid(file: str, why: str) -> DatasetInvalid:
    """The sentence of the trainer's contract for a dataset that cannot be used."""
    return DatasetInvalid(f"Invalid dataset: {file}: {why}")


class DatasetMissing(TrainerError):
    """No such container, or nothing in it: `Failed to download dataset from container: {c}`."""

    code = "DatasetMissing"
    exit_code = 66


class PermissionDenied(TrainerError):
    """Storage refused our identity."""

    code = "PermissionDenied"
    exit_code = 77


class ConfigInvalid(TrainerError):
    """`Invalid configuration: {path}: {why}` or `Failed to read configuration from container: {c}`."""

    code = "ConfigInvalid"
    exit_code = 78


class UserCodeFailed(TrainerError):
    """A custom task's own code raised, or a program ended with an exit code up to 127."""

    code = "UserCodeFailed"
    exit_code = 79


class TrainingDiverged(TrainerError):
    """`Training diverged at step {n}`."""

    code = "TrainingDiverged"
    exit_code = 80


class GpuOutOfMemory(TrainerError):
    """`Out of GPU memory at batch size {b}`, at the smallest batch."""

    code = "GpuOutOfMemory"
    exit_code = 81


class LimitExceeded(TrainerError):
    """A limit of the operator's (bytes, files, pixels, disk) is exceeded."""

    code = "LimitExceeded"
    exit_code = 82


class Cancelled(TrainerError):
    """The portal moved the model away from Processing while it trained, or it was Failed before we began."""

    code = "Cancelled"
    exit_code = EXIT_CANCELLED


class StatusRefused(TrainerError):
    """Standalone only: the portal's status does not allow a training to start; nothing is reported."""

    code = "StatusRefused"
    exit_code = 84


class OutOfMemory(TrainerError):
    """A process of the training was killed for the container's memory limit, or got no memory; not the GPU's."""

    code = "OutOfMemory"
    exit_code = 137


class Terminated(TrainerError):
    """SIGTERM: the state is saved where a checkpoint was possible; the Job starts another pod."""

    code = "Terminated"
    exit_code = EXIT_TERMINATED


class StorageUnavailable(TrainerError):
    """Storage throttled or unreachable after its own retries."""

    code = "StorageUnavailable"
    exit_code = 201


class UploadFailed(TrainerError):
    """`Failed to upload model to container: {c}`: what is missing there can come back, so the Job retries."""

    code = "UploadFailed"
    exit_code = 201


class StatusUnavailable(TrainerError):
    """Standalone only: the portal could not be asked whether the training may start; nothing is reported."""

    code = "StatusUnavailable"
    exit_code = 202


class GpuFault(TrainerError):
    """GPU fault, no GPU although one was asked for, or a hang seen by the watchdog."""

    code = "GpuFault"
    exit_code = 203


class UserCodeKilled(TrainerError):
    """The user's program was killed by a signal, or asked to be tried again by an exit code from 128 on."""

    code = "UserCodeKilled"
    exit_code = 205


class Fenced(TrainerError):
    """Another pod owns this run."""

    code = "Fenced"
    exit_code = 204


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, the latest first: user code and libraries wrap what they met."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
