"""Every way a training ends badly, as exceptions that know their exit code.

TrainerError
├── permanent: exit codes up to 127, podFailurePolicy fails the Job at once
└── retryable: exit codes from 128, counted by the Job's backoffLimit

The table is the one of the trainer's contract (docs/trainer-authors.md): codes are stable, sentences are for
users.
"""

from __future__ import annotations

from collections.abc import Iterator

from training_common.text import plain

EXIT_TERMINATED = 143


# What a person reads of it, and less than Kubernetes keeps.
MOST_CHARACTERS = 3000


def shown(sentence: str) -> str:
    """The sentence as one line that can be printed: names, cells and labels in it come from strangers."""
    line = plain(sentence).replace("\n", " ").replace("\t", " ")
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…"


class TrainerError(Exception):
    """A training that ends without a model.

    `code` is the stable word for machines, the name of the class that has an `exit_code` of its own: the process's exit
    status. The sentence is for users: what happened, where, and what would be right. Never put a credential or a URL
    with a query into it. `problems` holds a sentence for each of several, where the sentence is all of them.
    """

    code = "InternalError"
    exit_code = 70
    problems: tuple[str, ...] = ()

    def __init_subclass__(cls, *, exit_code: int | None = None) -> None:
        """A subclass of a plug-in's, without an exit code, is reported as its base class."""
        super().__init_subclass__()
        if exit_code is not None:
            cls.code, cls.exit_code = cls.__name__, exit_code

    def __init__(self, sentence: str, *, step: int | None = None) -> None:
        self.sentence = shown(sentence)
        super().__init__(self.sentence)
        self.step = step

    @property
    def retryable(self) -> bool:
        return self.exit_code > 127


class UsageError(TrainerError, exit_code=64):
    """Wrong flags or environment."""


class DatasetInvalid(TrainerError, exit_code=65):
    """The dataset is there but cannot be trained on: `Invalid dataset: {file}: {why}`."""


def invalid(file: str, why: str) -> DatasetInvalid:
    """The sentence of the trainer's contract for a dataset that cannot be used."""
    return DatasetInvalid(f"Invalid dataset: {file}: {why}")


class DatasetMissing(TrainerError, exit_code=66):
    """No such container, or nothing in it: `Failed to download dataset from container: {c}`."""


class PermissionDenied(TrainerError, exit_code=77):
    """Storage refused our identity."""


class ConfigInvalid(TrainerError, exit_code=78):
    """`Invalid configuration: {path}: {why}` or `Failed to read configuration from container: {c}`."""


class UserCodeFailed(TrainerError, exit_code=79):
    """A custom task's own code raised, or a program ended with an exit code up to 127."""


class TrainingDiverged(TrainerError, exit_code=80):
    """`Training diverged at step {n}`."""


class GpuOutOfMemory(TrainerError, exit_code=81):
    """`Out of GPU memory at batch size {b}`, at the smallest batch."""


class LimitExceeded(TrainerError, exit_code=82):
    """A limit of the operator's (bytes, files, pixels, disk) is exceeded."""


class Cancelled(TrainerError, exit_code=83):
    """The portal moved the model away from Processing while it trained, or it was Failed before we began."""


class StatusRefused(TrainerError, exit_code=84):
    """Standalone only: the portal's status does not allow a training to start; nothing is reported."""


class OutOfMemory(TrainerError, exit_code=137):
    """A process of the training was killed for the container's memory limit, or got no memory; not the GPU's."""


class Terminated(TrainerError, exit_code=EXIT_TERMINATED):
    """SIGTERM: the state is saved where a checkpoint was possible; the Job starts another pod."""


class StorageUnavailable(TrainerError, exit_code=201):
    """Storage throttled or unreachable after its own retries."""


class UploadFailed(TrainerError, exit_code=201):
    """`Failed to upload model to container: {c}`: what is missing there can come back, so the Job retries."""


class StatusUnavailable(TrainerError, exit_code=202):
    """Standalone only: the portal could not be asked whether the training may start; nothing is reported.

    The exit code is also that of a training whose model is published while the portal was not told (run/outcome).
    """


class GpuFault(TrainerError, exit_code=203):
    """GPU fault, no GPU although one was asked for, or a hang seen by the watchdog."""


class UserCodeKilled(TrainerError, exit_code=205):
    """The user's program was killed by a signal, or asked to be tried again by an exit code from 128 on."""


class Fenced(TrainerError, exit_code=204):
    """Another pod owns this run."""


class PeerLost(TrainerError, exit_code=206):
    """Another process or node of the training is gone or out of reach: why is for that one to say."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, the latest first: user code and libraries wrap what they met."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
