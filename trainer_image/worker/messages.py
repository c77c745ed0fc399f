"""What supervisor and worker say to each other. What the worker may say is bounded: it may be anybody's by then."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from trainer_image import contract, errors
from trainer_image.config.model_config import Config
from trainer_image.contract import RunInputs, RunResult
from trainer_image.errors import TrainerError, shown
from training_common.text import plain

# Of one message, in bytes: from the worker, and to it (a prompt may have a MiB).
MOST_FROM_WORKER, MOST_TO_WORKER = 1024**2, 16 * 1024**2
_MOST_NAME, _MOST_ENTRIES, _MOST_TEXT, _MOST_PROBLEMS = 200, 1000, 200_000, 50

_Sentence = Annotated[str, Meta(max_length=errors.MOST_CHARACTERS)]
_Name = Annotated[str, Meta(max_length=_MOST_NAME)]
_Step = Annotated[int, Meta(ge=0, le=10**18)]
_Figures = Annotated[dict[_Name, float], Meta(max_length=_MOST_ENTRIES)]
_Path = bytes  # as the file system has it, which need not be text


class Inputs(Struct):
    """RunInputs, but for what is no data. checkpoints: whether there is a store for them"""

    config: bytes
    data: _Path
    output: _Path
    run_id: str
    run_key: str
    dataset_fingerprint: str
    device: str
    limits: dict[str, int]
    checkpoints: bool
    initial: _Path | None
    grace_seconds: float
    gpus: int
    processes: int
    hang_seconds: float
    notes: list[str]
    shown: bytes
    place: contract.Place | None = None
    champion: tuple[str, _Path] | None = None


class Check(Struct, tag=True):
    config: bytes
    limits: dict[str, int]


class Train(Struct, tag=True):
    inputs: Inputs


class Follow(Struct, tag=True):
    """See `trainer_image.engine.training.follow`."""

    inputs: Inputs


class Validate(Struct, tag=True):
    inputs: Inputs


class Predict(Struct, tag=True):
    """See `trainer_image.predict.predict`; what is found is printed."""

    model: _Path
    data: _Path
    out: _Path | None


class Continue(Struct, tag=True):
    """See `trainer_image.predict.write`; text is printed."""

    model: _Path
    prompt: str
    length: int
    temperature: float
    seed: int


class Stop(Struct, tag=True):
    """RunInputs.stop is set."""


class Stored(Struct, tag=True):
    """The answer to Keep."""


class Found(Struct, tag=True):
    """The answer to Newest."""

    folders: list[_Path]


class Freed(Struct, tag=True):
    """The answer to MakeRoom. any: whether anything was removed"""

    any: bool


class Beat(Struct, tag=True):
    """The worker's interpreter is alive."""


class Progress(Struct, tag=True):
    message: _Sentence
    step: _Step


class Keep(Struct, tag=True):
    """A checkpoint is finished. folder: below the folder that the run works in, with / between names"""

    folder: Annotated[str, Meta(pattern=r"^(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}/){1,3}step-[0-9]{1,18}\Z")]


class Newest(Struct, tag=True):
    """Which checkpoints there are."""


class MakeRoom(Struct, tag=True):
    """A disk is full."""


class Failed(Struct, tag=True):
    """A TrainerError; also as the answer to Keep, Newest or MakeRoom. code: that of its class"""

    code: _Name
    sentence: _Sentence
    step: _Step | None = None
    problems: Annotated[list[_Sentence], Meta(max_length=_MOST_PROBLEMS)] = []


class Trained(Struct, tag=True):
    """A RunResult."""

    task: _Name
    metrics: _Figures
    baselines: Annotated[dict[_Name, _Figures], Meta(max_length=_MOST_ENTRIES)]
    steps: _Step
    seconds: float
    accelerator: Annotated[dict[_Name, _Name], Meta(max_length=10)]
    verdict: _Sentence = ""
    beside: _Sentence | None = None
    better: bool | None = None


class Described(Struct, tag=True):
    """What `validate` says of the dataset."""

    text: Annotated[str, Meta(max_length=_MOST_TEXT)]


class Done(Struct, tag=True):
    """An order that has no other answer is carried out."""


Order = Check | Train | Follow | Validate | Predict | Continue
ToWorker = Check | Train | Follow | Validate | Predict | Continue | Stop | Stored | Found | Freed | Failed
End = Failed | Trained | Described | Done
FromWorker = Beat | Progress | Keep | Newest | MakeRoom | Failed | Trained | Described | Done

_to_worker = msgspec.msgpack.Decoder(ToWorker)
_from_worker = msgspec.msgpack.Decoder(FromWorker)
_HEADER = struct.Struct(">I")


class NoMessage(Exception):
    """What came is none of the messages that may come."""


def packed(message: Struct) -> bytes:
    """A frame: four bytes for the length, then the message."""
    content = msgspec.msgpack.encode(message)
    return _HEADER.pack(len(content)) + content


class Frames:
    """Messages out of a stream of bytes. most: the longest one, in bytes"""

    def __init__(self, decoder: msgspec.msgpack.Decoder[Any], most: int) -> None:
        self._decoder, self._most = decoder, most
        self._rest = bytearray()

    @classmethod
    def from_worker(cls) -> Frames:
        return cls(_from_worker, MOST_FROM_WORKER)

    @classmethod
    def to_worker(cls) -> Frames:
        return cls(_to_worker, MOST_TO_WORKER)

    def read(self, content: bytes) -> Iterator[Any]:
        """Those that are whole by now. Raises NoMessage."""
        self._rest += content
        while len(self._rest) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._rest)
            if length > self._most:
                raise NoMessage(f"a message of {length} bytes")
            end = _HEADER.size + length
            if len(self._rest) < end:
                return
            try:
                message = self._decoder.decode(memoryview(self._rest)[_HEADER.size : end])
            except (msgspec.MsgspecError, RecursionError) as error:  # deep in a field that no message has
                raise NoMessage(str(error)) from None
            del self._rest[:end]
            yield message


def config_bytes(config: Config) -> bytes:
    """With what was given alone: which keys these are means something, too."""
    return json.dumps(config.model_dump(mode="json", by_alias=True, exclude_unset=True)).encode()


def config_of(content: bytes) -> Config:
    return Config.model_validate(json.loads(content))


def inputs_for(inputs: RunInputs) -> Inputs:
    return Inputs(
        config=config_bytes(inputs.config),
        data=bytes(inputs.data.absolute()),
        output=bytes(inputs.output.absolute()),
        run_id=inputs.run_id,
        run_key=inputs.run_key,
        dataset_fingerprint=inputs.dataset_fingerprint,
        device=inputs.device,
        limits=asdict(inputs.limits),
        checkpoints=inputs.checkpoints is not None,
        initial=None if inputs.initial is None else bytes(inputs.initial.absolute()),
        grace_seconds=inputs.grace_seconds,
        gpus=inputs.gpus,
        processes=inputs.processes,
        hang_seconds=inputs.hang_seconds,
        notes=list(inputs.notes),
        shown=json.dumps(inputs.shown).encode(),
        place=inputs.place,
        champion=(inputs.champion.run_id, bytes(inputs.champion.folder.absolute())) if inputs.champion else None,
    )


def progress_of(progress: contract.Progress) -> Progress:
    return Progress(shown(progress.message), max(0, progress.step))


def failed(error: TrainerError) -> Failed:
    """As the nearest class of the contract: the supervisor knows none of a plug-in's."""
    kind: type[TrainerError] = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return Failed(
        kind.code, error.sentence, error.step, [shown(problem) for problem in error.problems[:_MOST_PROBLEMS]]
    )


# Of what happens in the supervisor alone: storage, portal, lease. Nobody else is to say that it did.
_NOT_THE_WORKER_S = (
    errors.PermissionDenied,
    errors.Cancelled,
    errors.StatusRefused,
    errors.StatusUnavailable,
    errors.UploadFailed,
    errors.Fenced,
)
_KINDS = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, TrainerError) and kind not in _NOT_THE_WORKER_S
}


def raised(said: Failed) -> TrainerError:
    """The error that was sent."""
    error = _KINDS.get(said.code, TrainerError)(said.sentence, step=said.step)
    if said.problems:
        error.problems = tuple(said.problems)
    return error


def trained(result: RunResult) -> Trained:
    return Trained(
        result.task,
        _figures(result.metrics),
        {_name(name): _figures(figures) for name, figures in list(result.baselines.items())[:_MOST_ENTRIES]},
        result.steps,
        result.seconds if math.isfinite(result.seconds) else 0.0,
        {_name(name): _name(value) for name, value in result.accelerator.items()},
        shown(result.verdict),
        None if result.champion is None else shown(result.champion.sentence),
        None if result.champion is None else result.champion.better,
    )


def result_of(said: Trained) -> RunResult:
    beside = None if said.beside is None else contract.Beside(said.better, said.beside)
    return RunResult(
        said.task, said.metrics, said.baselines, said.steps, said.seconds, said.accelerator, said.verdict, beside
    )


def described(text: str) -> Described:
    return Described(plain(text)[:_MOST_TEXT])


def _figures(figures: Mapping[str, float]) -> dict[str, float]:
    return {_name(name): float(value) for name, value in list(figures.items())[:_MOST_ENTRIES]}


def _name(text: str) -> str:
    return plain(text)[:_MOST_NAME]


def path_of(given: bytes) -> Path:
    return Path(os.fsdecode(given))
