"""What the storm requests and the right outcome of each: both are decided before the first message is sent. Pure."""

from __future__ import annotations

import base64
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from portal_client.messages import COMPLETED as TRAINED

MODEL_PREFIX = "model-"
# The cluster has a policy that denies every Job with this in its name.
DENIED = "denied"
# More GPUs than all nodes together have.
TOO_MANY_GPUS = 900
# Seconds, longer than any storm: such a pod runs until something happens to it.
FOR_EVER = 3600.0
# How long the pod of a trainer that reports to the portal itself runs: the seconds it has to get through.
REPORTING_SECONDS = 7.0

COMPLETED, FAILED = "Completed", "Failed"
_INVALID = "Invalid dataset: train.csv: it is empty"
_DIVERGED = "Training diverged: the loss was not a number in epoch 3"
_REJECTED = r"node \S+ refused the training pod"


@dataclass(frozen=True)
class Ending:
    """A terminal status and a regular expression that its message begins with."""

    status: str
    sentence: str


@dataclass(frozen=True)
class Step:
    """How one attempt (one pod) of a Job ends: what an instant image is asked for.

    beside: seconds for which its ordinary second container outlives the trainer.
    """

    code: int = 0
    message: str = ""
    seconds: float = 0.0
    beside: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {"exit": self.code, "message": self.message, "seconds": self.seconds, "beside": self.beside}


@dataclass(frozen=True)
class Kind:
    """A kind of request. weight: the number in each thousand.

    steps: of its Job's attempts; second: of those on its second node, where it has one. action: what is done to it
    while it runs (actors.py). initial: the portal's status at the start, None where it does not know the model. runs:
    how many Jobs may start pods. disrupted: the ending that is right as well if its node was lost. extra: more fields
    of the message. least: of how many requests a storm has to be to have this kind.
    """

    name: str
    weight: int
    steps: tuple[Step, ...] = ()
    ending: Ending | None = None
    action: str = ""
    initial: str | None = "Created"
    runs: int = 1
    disrupted: Ending | None = None
    extra: tuple[tuple[str, Any], ...] = ()
    poison: str = ""
    second: tuple[Step, ...] = ()
    least: int = 0

    @property
    def is_told(self) -> bool:
        """Whether the portal gets an outcome."""
        return self.runs > 0 or (bool(self.poison) and self.ending is not None)


def _ends(message: str, code: str, exit_code: int, seconds: float = 0.0) -> Step:
    return Step(exit_code, json.dumps({"message": message, "code": code, "exit": exit_code}), seconds)


_WELL = _ends(TRAINED, "Completed", 0)
_FOLLOWED = _ends("Node 1 has published the model", "Completed", 0, 4.0)
_LONG = Step(seconds=FOR_EVER)
_COMPLETED = Ending(COMPLETED, TRAINED)
_UNTOUCHED = {status: Ending(status, "as it was") for status in ("Processing", COMPLETED, FAILED)}

KINDS = (
    Kind("completes", 330, (_WELL,), _COMPLETED),
    Kind(
        "completes without a message",
        60,
        (Step(),),
        _COMPLETED,
        disrupted=Ending(FAILED, "The training was stopped before it finished"),
    ),
    Kind(
        "reports to the portal itself", 90, (_ends(TRAINED, "Completed", 0, REPORTING_SECONDS),), _COMPLETED, "report"
    ),
    Kind(
        "reports its failure to the portal",
        50,
        (_ends(_DIVERGED, "TrainingDiverged", 80, REPORTING_SECONDS),),
        Ending(FAILED, _DIVERGED),
        "report",
    ),
    Kind("reports and dies", 30, (Step(137, "", REPORTING_SECONDS), _WELL), _COMPLETED, "report"),
    Kind("fails for good", 80, (_ends(_INVALID, "DatasetInvalid", 65),), Ending(FAILED, _INVALID)),
    Kind(
        "fails without a message",
        40,
        (Step(79, "Traceback\nValueError: broken", 0.5),),
        Ending(FAILED, r"The training ended with exit code 79: Traceback (?:\| )?ValueError: broken"),
    ),
    Kind(
        "fails at every attempt",
        40,
        (_ends("Storage is out of reach", "StorageUnavailable", 201),),
        Ending(FAILED, rf"Storage is out of reach|{_REJECTED}"),
    ),
    Kind(
        "is killed at every attempt",
        20,
        (Step(137),),
        Ending(FAILED, rf"The training process was killed from outside|{_REJECTED}"),
        # Times have whole seconds: killed in the very second in which its node was drained.
        disrupted=Ending(FAILED, "The training pod was deleted before it ended"),
    ),
    Kind("fails, then completes", 60, (_ends("Storage is out of reach", "StorageUnavailable", 201), _WELL), _COMPLETED),
    Kind(
        "runs out of time",
        20,
        (_LONG,),
        Ending(FAILED, "The training did not end within its time limit of 3 seconds"),
        extra=(("time_limit_seconds", 3),),
    ),
    Kind(
        "fits on no node",
        10,
        (_WELL,),
        Ending(FAILED, "No node could take the training for"),
        runs=1,
        extra=(("resources", {"gpus": TOO_MANY_GPUS}),),
    ),
    Kind("its sidecar goes on for a while", 30, (replace(_WELL, beside=5.0),), _COMPLETED),
    Kind(
        "fails, and its sidecar goes on for a while",
        20,
        (
            _ends("Storage is out of reach", "StorageUnavailable", 201),
            replace(_ends(_INVALID, "DatasetInvalid", 65), beside=3.0),
        ),
        Ending(FAILED, _INVALID),
    ),
    # Until the dispatcher stops its Job, a minute later.
    Kind("its sidecar goes on for ever", 10, (replace(_WELL, beside=FOR_EVER),), _COMPLETED, least=1000),
    Kind("trains on two nodes", 40, (replace(_WELL, seconds=2.0),), _COMPLETED, second=(_FOLLOWED,)),
    Kind(
        "its second node fails, and node 1 has published",
        15,
        (_WELL,),
        _COMPLETED,
        second=(_ends("Storage is out of reach", "StorageUnavailable", 201, 2.0), _FOLLOWED),
    ),
    Kind(
        "its second node fails for good",
        25,
        (_LONG,),
        Ending(FAILED, rf"node 2 of 2(?: \(\S+\): {_INVALID}|: kubernetes failed the training job)"),
        second=(_ends(_INVALID, "DatasetInvalid", 65, 1.0),),
    ),
    Kind("its Job is deleted", 30, (_LONG,), Ending(FAILED, "The training job was deleted at"), "delete job"),
    Kind("its pod is deleted", 25, (_LONG, _WELL), _COMPLETED, "delete pod"),
    Kind("its pod vanishes", 25, (_LONG, _WELL), _COMPLETED, "vanish pod"),
    Kind("its pod is evicted by the node", 30, (_LONG, _WELL), _COMPLETED, "evict pod"),
    Kind("its node is drained", 30, (_LONG, _WELL), _COMPLETED, "drain pod"),
    Kind("is reconfigured while it runs", 15, (_LONG,), _COMPLETED, "reconfigure running", runs=2),
    Kind("is reconfigured afterwards", 15, (_WELL,), _COMPLETED, "reconfigure ended", runs=2),
    *(
        Kind(f"is {status} already", 20, (_WELL,), ending, initial=status, runs=0)
        for status, ending in _UNTOUCHED.items()
    ),
    Kind("is not known to the portal", 15, (_WELL,), initial=None, runs=0, poison="ModelUnknown"),
    Kind(
        "is denied by a policy",
        15,
        (_WELL,),
        Ending(FAILED, "The cluster refuses this training"),
        runs=0,
        poison="JobRefused",
    ),
)
# Bad messages, 30 of each thousand: the text ({} stands for something unique) → the poison entry's code.
BAD = (
    ("", "no JSON at all {}", "NotJson"),
    ("", '["{}"]', "NotAnObject"),
    ("", '{"task": "train", "note": "{}"}', "MissingField"),
    ("", '{"task": "deploy", "model_container_name": "model-1", "note": "{}"}', "UnknownTask"),
    ("", '{"task": "train", "model_container_name": "modèle {}"}', "InvalidContainerName"),
    ("", '{"task": "train", "model_container_name": "model-1", "resources": {"gpus": "{}"}}', "InvalidField"),
)
_BAD_WEIGHT = 30
# Of the requests that train: the shares sent more than once, in base64, or at Reconfigure from the start.
_DUPLICATED, _ENCODED, _RECONFIGURED = 0.12, 0.2, 0.1


@dataclass(frozen=True)
class Request:
    """One request. model_id: "" for a bad message. copies: seconds after the first at which the same is sent again."""

    kind: Kind
    number: int
    model_id: str
    text: str
    initial: str | None
    copies: tuple[float, ...] = ()
    ids: list[str] = field(default_factory=list, compare=False)

    @property
    def reports(self) -> Ending | None:
        """What the trainer itself reports to the portal before its pod ends."""
        return self.kind.ending if self.kind.action == "report" else None

    @property
    def messages(self) -> int:
        """Number of its messages, the one after a Reconfigure included."""
        return 1 + len(self.copies) + (1 if self.kind.action.startswith("reconfigure") else 0)


def make_plan(seed: int, count: int) -> list[Request]:
    """`count` requests in their kinds' shares, each kind at least once where there is room; shuffled."""
    chance = random.Random(seed)
    run = f"{chance.getrandbits(24):06x}"
    bad = [Kind(f"a bad message ({code})", 0, poison=code, initial=None, runs=0) for _, _, code in BAD]
    texts = {kind.name: text for kind, (_, text, _) in zip(bad, BAD, strict=True)}
    good = [kind for kind in KINDS if kind.least <= count]
    kinds: list[Kind] = [*good, *bad]
    weights = [*(kind.weight for kind in good), *([_BAD_WEIGHT / len(BAD)] * len(BAD))]
    chosen = list(itertools.islice(_shares(kinds, weights, chance), count))
    chance.shuffle(chosen)
    return [_request(kind, number, run, texts.get(kind.name), chance) for number, kind in enumerate(chosen, 1)]


def second_message(request: Request) -> str:
    """The request that follows a Reconfigure: the same model, and this time it completes at once."""
    return _message(request.model_id, (_WELL,), {})


def _shares(kinds: Sequence[Kind], weights: Sequence[float], chance: random.Random) -> Iterator[Kind]:
    yield from kinds
    while True:
        yield from chance.choices(kinds, weights, k=64)


def _request(kind: Kind, number: int, run: str, bad: str | None, chance: random.Random) -> Request:
    if bad is not None:
        return Request(kind, number, "", bad.replace("{}", f"{run}-{number}"), None)
    model_id = f"{run}-{DENIED}-{number}" if kind.poison == "JobRefused" else f"{run}-{number}"
    steps = kind.steps
    if steps == (_WELL,) and chance.random() < 0.5:
        steps = (Step(0, _WELL.message, round(chance.uniform(0.2, 4.0), 1)),)
    extra = dict(kind.extra)
    if kind.second:
        extra |= {"resources": {"nodes": 2}, "stand-in-2": [step.to_json() for step in kind.second]}
    text = _message(model_id, steps, extra)
    if chance.random() < _ENCODED:
        text = base64.b64encode(text.encode()).decode()
    initial = kind.initial
    if initial == "Created" and chance.random() < _RECONFIGURED:
        initial = "Reconfigure"
    copies: tuple[float, ...] = ()
    # A copy that comes after a Reconfigure would be another request.
    if not kind.action.startswith("reconfigure") and not kind.poison and chance.random() < _DUPLICATED:
        copies = tuple(round(chance.choice((0.0, chance.uniform(0, 20))), 1) for _ in range(chance.choice((1, 1, 2))))
    return Request(kind, number, model_id, text, initial, copies)


def _message(model_id: str, steps: Sequence[Step], extra: dict[str, Any]) -> str:
    body = {"task": "train", "model_container_name": MODEL_PREFIX + model_id, **extra}
    return json.dumps({**body, "stand-in": [step.to_json() for step in steps]})
