"""What is read of Jobs. Pure. See `objects` for why so little."""

from __future__ import annotations

import msgspec

from dispatcher.cluster import names
from dispatcher.cluster.objects import Condition, Conditioned, Part, Status, plain_number, share, timestamp

# Variables that are read of the trainer's environment; others may hold secrets.
_DATASET, _GPUS, _CREDENTIALS = "DATASET_CONTAINER", "GPUS", "CREDENTIALS_DIR"


class Variable(Part, frozen=True):
    name: str = ""
    value: str | None = None


class TemplateContainer(Part, frozen=True):
    """Of a Job's pod template: read for three of its variables. A request is a variable, too, and may be 64 KiB."""

    name: str = ""
    env: tuple[Variable, ...] = ()

    def __post_init__(self) -> None:
        kept = tuple(variable for variable in self.env if variable.name in (_DATASET, _GPUS, _CREDENTIALS))
        msgspec.structs.force_setattr(self, "env", kept)


class TemplateSpec(Part, frozen=True):
    containers: tuple[TemplateContainer, ...] = ()


class PodTemplate(Part, frozen=True):
    spec: TemplateSpec = TemplateSpec()


class JobSpec(Part, frozen=True):
    suspend: bool = False
    active_deadline_seconds: int | None = None
    backoff_limit: int | None = None
    completion_mode: str | None = None
    completions: int | None = None
    template: PodTemplate = PodTemplate()

    def __post_init__(self) -> None:
        share(self, "completion_mode")


class Uncounted(Part, frozen=True):
    failed: tuple[str, ...] = ()


class JobStatus(Status, frozen=True):
    start_time: str | None = None
    active: int = 0
    failed: int = 0
    succeeded: int = 0
    completed_indexes: str = ""
    uncounted_terminated_pods: Uncounted = Uncounted()


class Job(Conditioned, frozen=True):
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()

    @property
    def is_finished(self) -> bool:
        return self.ended is not None

    @property
    def ended(self) -> Condition | None:
        """Complete or Failed, once it is true."""
        return self.condition("Complete") or self.condition("Failed")

    @property
    def is_suspended(self) -> bool:
        return self.spec.suspend

    @property
    def is_launched(self) -> bool:
        """Whether launch step 5 happened; a suspended Job without it is half-launched, one with it waits for Kueue."""
        return self.annotations.launched_at is not None

    @property
    def is_acknowledged(self) -> bool:
        return self.annotations.acknowledged == "true"

    @property
    def nodes(self) -> int:
        """How many pods train together, each on a node of its own: 1 unless the Job is Indexed."""
        return max(1, self.spec.completions or 1) if self.spec.completion_mode == "Indexed" else 1

    @property
    def done(self) -> set[int]:
        """Indexes that have succeeded, of a Job for several nodes. Their pods may be gone, with a node for instance."""
        found: set[int] = set()
        for part in self.status.completed_indexes.split(",") if self.nodes > 1 else ():
            first, _, last = part.partition("-")
            low, high = plain_number(first), plain_number(last or first)
            if low is not None and high is not None:
                found.update(range(low, min(high + 1, self.nodes)))
        return found

    @property
    def started_at(self) -> float | None:
        """status.startTime (epoch seconds)."""
        return timestamp(self.status.start_time)

    @property
    def is_scoped(self) -> bool:
        """Whether its pods wait for a Secret of its own, as launch/job_spec has written it. It cannot be changed."""
        return self._variable(_CREDENTIALS) is not None

    @property
    def dataset(self) -> str | None:
        """The dataset's container: the message's, or the one that the training has asked for."""
        return self._variable(_DATASET) or self.annotations.dataset

    @property
    def gpus(self) -> int | None:
        """How many each of its pods asks for; None where that is no plain number."""
        return plain_number(self._variable(_GPUS) or "0")

    def _variable(self, name: str) -> str | None:
        containers = self.spec.template.spec.containers
        trainer = (container for container in containers if container.name == names.TRAINER_CONTAINER)
        return next((entry.value for container in trainer for entry in container.env if entry.name == name), None)
