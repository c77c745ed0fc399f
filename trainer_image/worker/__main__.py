"""The worker: `python -m trainer_image.worker START`, where START is what child.py says as JSON.

It is confined before it imports anything that a stranger has a hand in, and while it has a single thread: what the
kernel takes from it is gone for all that it starts.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from trainer_image.contract import Champion, RunInputs
from trainer_image.data import reading
from trainer_image.errors import TrainerError
from trainer_image.host import confinement, exhaustion, memory
from trainer_image.limits import Limits
from trainer_image.stop import ENDING
from trainer_image.worker import messages
from trainer_image.worker.desk import Desk, RemoteCheckpoints
from trainer_image.worker.messages import End, Inputs, Order, path_of

log = logging.getLogger(__name__)


def main(start: dict[str, Any]) -> None:
    confinement.die_with(start["parent"])
    os.set_inheritable(start["pipe"], False)
    reading.keep_in(start["notes"])
    os.close(start["notes"])
    # The supervisor stops it. By handlers that do nothing: what is ignored would stay so in a program that it runs.
    for number in ENDING:
        signal.signal(number, lambda number, frame: None)
    faulthandler.enable()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=start["log_level"], force=True)
    hidden = [Path(path) for path in start["hidden"]]
    if (why := confinement.confine(hidden)) is not None:
        level = logging.WARNING if any(map(_may_exist, hidden)) else logging.INFO
        log.log(level, "What trains can read every file that this user can, credentials among them: %s", why)
    desk = Desk(socket.socket(fileno=start["pipe"]))
    kills_before = memory.kills()
    backend: Any = None
    broken: TrainerError | None = None
    try:
        backend = _load(start["kind"])
    except Exception as error:
        broken = _as_failure(error, kills_before)
    while True:
        order = desk.orders.get()
        try:
            if broken is not None:
                raise broken
            end = _carried_out(order, backend, desk)
        except Exception as error:
            end = messages.failed(_as_failure(error, kills_before))
        desk.end(end)


def _may_exist(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True


def _load(kind: str) -> Any:
    """Imports torch, which takes seconds, but for a program."""
    if kind == "command":
        from trainer_image import command

        return command
    if kind == "predict":
        from trainer_image import predict

        return predict
    from trainer_image.engine import training

    return training


def _carried_out(order: Order, backend: Any, desk: Desk) -> End:
    match order:
        case messages.Check(config, limits):
            backend.check_config(messages.config_of(config), Limits(**limits))
        case messages.Train(given):
            return messages.trained(backend.train(_inputs(given, desk)))
        case messages.Follow(given):
            backend.follow(_inputs(given, desk))
        case messages.Validate(given):
            return messages.described(backend.validate_dataset(_inputs(given, desk)))
        case messages.Predict(model, data, out):
            backend.show_predictions(path_of(model), path_of(data), None if out is None else path_of(out))
        case messages.Continue(model, prompt, length, temperature, seed):
            backend.show_continuation(path_of(model), prompt, length, temperature, seed)
    return messages.Done()


def _inputs(given: Inputs, desk: Desk) -> RunInputs:
    output = path_of(given.output)
    return RunInputs(
        config=messages.config_of(given.config),
        data=path_of(given.data),
        output=output,
        run_id=given.run_id,
        run_key=given.run_key,
        dataset_fingerprint=given.dataset_fingerprint,
        device=given.device,
        limits=Limits(**given.limits),
        stop=desk.stop,
        progress=desk.progress,
        checkpoints=RemoteCheckpoints(desk, output.parent) if given.checkpoints else None,
        initial=None if given.initial is None else path_of(given.initial),
        grace_seconds=given.grace_seconds,
        gpus=given.gpus,
        processes=given.processes,
        hang_seconds=given.hang_seconds,
        last_resort=desk.last_resort,
        notes=tuple(given.notes),
        shown=json.loads(given.shown),
        place=given.place,
        champion=given.champion and Champion(given.champion[0], path_of(given.champion[1])),
    )


def _as_failure(error: Exception, kills_before: int) -> TrainerError:
    if lack := exhaustion.found(error, kills_before):
        return lack
    if isinstance(error, TrainerError):
        return error
    log.error("The trainer itself failed", exc_info=error)
    return TrainerError(f"Internal error: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
