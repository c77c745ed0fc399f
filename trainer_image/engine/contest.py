"""Candidates beside the network: fitted within their share of the time, judged on validation, kept in checkpoints.

Rank 0 alone fits them; the other processes of a team wait for its next command meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property

import torch
from torch import Tensor, nn

from trainer_image import raised
from trainer_image.contract import Progress, RunInputs
from trainer_image.engine import blend, fits, folds
from trainer_image.engine.budget import Budget
from trainer_image.engine.checkpoint import CheckpointInvalid, Snapshot
from trainer_image.engine.fits import Fits
from trainer_image.engine.folds import Folded
from trainer_image.engine.plan import Plan
from trainer_image.engine.published import NETWORK, Member
from trainer_image.engine.steps.evaluation import evaluate
from trainer_image.engine.steps.position import Entry, Position
from trainer_image.engine.steps.pretrained import Pretrained
from trainer_image.engine.steps.state import finite
from trainer_image.engine.watchdog import Watchdog
from trainer_image.errors import ConfigInvalid, TrainerError
from trainer_image.host.devices import usable_cpus
from trainer_image.tasks import hooks
from trainer_image.tasks.base import Json, Outputs, Problem, joined, restored, rows_in, scored, take
from trainer_image.tasks.calibration import UNCALIBRATED, Calibration
from trainer_image.tasks.candidates import Allowance, Candidate
from trainer_image.tasks.tensors import each

log = logging.getLogger(__name__)

ALL_ROWS = ("train", "validation")
# Of what is left of the budget, the share that candidates may take where their own share of it all would be more.
MOST_SHARE = 0.5
# What metrics.jsonl has of a candidate.
SAID = ("name", "validation", "seconds", "note")


def wanted(problem: Problem, names: Sequence[str] | str) -> tuple[list[Candidate], bool]:
    """Those of the problem's candidates that model.candidates names ("auto": all), and whether the network is to train.

    Raises ConfigInvalid for a name that is none.
    """
    offered = list(problem.candidates())
    if names == "auto":
        return offered, True
    known = [NETWORK, *(candidate.name for candidate in offered)]
    if unknown := [name for name in names if name not in known]:
        raise ConfigInvalid(
            f"Invalid configuration: model.candidates: has '{unknown[0]}', which this training does not have:"
            f" {', '.join(known)} would be right"
        )
    return [candidate for candidate in offered if candidate.name in names], NETWORK in names


class Contest:
    """The candidates of one training. What is found goes into the position, so that a resumed training has it, too."""

    def __init__(
        self,
        problem: Problem,
        plan: Plan,
        inputs: RunInputs,
        watchdog: Watchdog,
        record: Callable[[Json], None],
        save: Callable[[], None],
        terminate: Callable[[], None],
    ) -> None:
        """save: a checkpoint where one is due; terminate: saves the state where it can, and raises Terminated"""
        self._problem, self._plan, self._inputs, self._watchdog = problem, plan, inputs, watchdog
        self._record, self._save, self._terminate = record, save, terminate
        self.candidates, self.network = wanted(problem, inputs.config.model.candidates)
        self._fits = Fits()
        self._outputs: dict[str, Outputs] = {}
        # What asking each model about the validation split took; and what the network said there at its best.
        self._asked: dict[str, float] = {}
        self.best: Outputs | None = None
        # Seconds that comparing models by folds took.
        self.comparing = 0.0

    def search(self, at: Position, budget: Budget, left: float) -> None:
        """Fits all that the position does not know yet, on the training rows. Raises Terminated.

        left: seconds of the budget
        """
        known = {entry["name"] for entry in at.candidates}
        unknown = [candidate for candidate in self.candidates if candidate.name not in known]
        # What was measured before them on a busy machine may have taken most of the budget.
        share = max(MOST_SHARE, budget.candidates_share)
        until = time.monotonic() + max(0.0, min(budget.candidates - self.seconds(at), share * left))
        for number, candidate in enumerate(unknown):
            # The cheap ones come first, and leave what they do not need to those after them.
            share = candidate.share / sum(each.share for each in unknown[number:])
            seconds = max(0.0, until - time.monotonic()) * share
            entry = Entry(candidate.name)
            if not seconds:
                entry.note = "No time was left for it."
            elif (module := self._fit(candidate, entry, ("train",), seconds, None)) is not None:
                self._fits.keep(entry.name, module)
                self._judge(entry)
            if entry.chosen is not None and candidate.again == 0:
                # It takes no time as long as the candidate remembers its first fit, which no resumed training's does.
                ready = self._fit(candidate, entry, ALL_ROWS, seconds, entry.chosen)
                if ready is not None:
                    self._fits.keep_ready(entry.name, ready)
            at.candidates.append(asdict(entry))
            self.tell(entry)
            self._saved()
        if not self.network and not self._fits.modules:
            self.network = True
            at.notes.append("No candidate of model.candidates was fitted: the network is trained instead.")

    def weights(self, at: Position, network: nn.Module | None, fold: Callable[[Tensor], Folded | None]) -> None:
        """Chooses who is published, on the validation split, and what their probabilities are worth there.

        network: with its best weights; None: it did not train; fold: fits it anew by folds (rows,), None without time
        """
        problem = self._problem
        split, predictor = problem.splits["validation"], problem.predictor
        outputs = {name: self._of(name) for name in self._fits.modules}
        if network is not None:
            outputs[NETWORK] = self.ask(NETWORK, network) if self.best is None else self.best
            self.best = None
        began = time.monotonic()
        unseen = self._unseen(at)
        self.comparing = time.monotonic() - began
        folded = self._folded(fold) if unseen and network is not None else None
        self.comparing = time.monotonic() - began
        if self._inputs.stop.is_set():
            self._terminate()
        if unseen:
            rows = joined(problem.splits["train"], split)
            known, among = outputs, split
            if folded:
                known = {name: take(found, folded.rows) for name, found in unseen.items()}
                known[NETWORK], among = folded.outputs, take(rows, folded.rows)
            at.weights = blend.with_more_rows(
                predictor, known, among, unseen, rows, problem.selection, flattered=folded is None
            )
        else:
            at.weights = blend.choose(predictor, outputs, split, problem.selection)
        mixed = blend.blended(predictor, outputs, at.weights)
        at.calibration = hooks.calibration_of(problem, mixed)
        self._use(at.calibration)
        shown = ", ".join(f"{name} {weight:.2f}" for name, weight in at.weights.items())
        log.info("Published will be: %s", shown)

    def refit(self, at: Position, until: float) -> None:
        """Fits those once more that the position says, on training and validation rows. until: of `time.monotonic`"""
        for number, given in enumerate(at.candidates):
            entry = Entry(**given)
            if entry.name not in at.again or entry.refitted:
                continue
            [candidate] = [candidate for candidate in self.candidates if candidate.name == entry.name]
            # Nothing is left to be chosen, so that more time than the first fit took, and some, changes nothing.
            seconds = max(until - time.monotonic(), 2 * entry.seconds)
            module = self._fits.ready(entry.name) or self._fit(candidate, entry, ALL_ROWS, seconds, entry.chosen)
            if module is not None:
                self._fits.keep(entry.name, module)
                entry.refitted = True
            else:
                at.again.remove(entry.name)
                at.notes.append(f"The {entry.name} candidate stays as it was fitted on the training rows: {entry.note}")
            at.candidates[number] = asdict(entry)
            self._saved()

    def members(self, at: Position, network: nn.Module, pretrained: Pretrained) -> list[Member]:
        """What is published, in evaluation mode, the network as it is given. pretrained: what of it is not stored"""
        chosen = {entry["name"]: entry["chosen"] or {} for entry in at.candidates}
        return [
            Member(name, weight, network.eval(), {}, pretrained)
            if name == NETWORK
            else Member(name, weight, self._fits.modules[name].eval(), chosen[name])
            for name, weight in at.weights.items()
        ]

    def tell(self, entry: Entry) -> None:
        """For metrics.jsonl."""
        self._record({"phase": "candidate", **{key: value for key, value in asdict(entry).items() if key in SAID}})

    @staticmethod
    def seconds(at: Position) -> float:
        """What all fits have taken."""
        return float(sum(entry["seconds"] for entry in at.candidates))

    @staticmethod
    def again(at: Position) -> float:
        """What those that left a model would take, fitted once more to as many rows."""
        return float(sum(entry["again"] for entry in at.candidates if entry["chosen"] is not None))

    @cached_property
    def fold_of(self) -> Tensor | None:
        """The fold of each training and validation row, where models are compared by them."""
        return self._problem.folds(self._plan.seed)

    def folding(self, at: Position) -> float:
        """Seconds that comparing the candidates by folds takes; 0: they are not."""
        if self.fold_of is None:
            return 0.0
        return folds.seconds(int(self.fold_of.max()) + 1, at, self._plan.time_budget)

    def _unseen(self, at: Position) -> dict[str, Outputs]:
        allowance = self._allowance(folds.PATIENCE * self.folding(at))
        if self.fold_of is None or not allowance.seconds:
            return {}
        with self._apart(allowance.threads):
            return folds.unseen(self.candidates, at, self._problem.predictor, allowance, self.fold_of)

    def _folded(self, fold: Callable[[Tensor], Folded | None]) -> Folded | None:
        assert self.fold_of is not None
        with self._apart(torch.get_num_threads()):
            try:
                return fold(self.fold_of)
            except Exception as error:  # a part of the rows may lack what it needs: the validation split has to do
                log.warning("The network was not compared by folds", exc_info=error)
                return None

    # In checkpoints.

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps; nothing changes them any more."""
        return self._fits.tensors

    @property
    def size(self) -> int:
        """Bytes of the tensors."""
        return self._fits.size

    def check(self, snapshot: Snapshot) -> None:
        """CheckpointInvalid unless `load` can take it. The position in it was looked at before."""
        self._read(snapshot)
        try:
            self._use(snapshot.scalars["position"]["calibration"])
        except ValueError as error:
            raise CheckpointInvalid(
                f"the checkpoint at step {snapshot.step} has another calibration: {error}"
            ) from None
        finally:
            self._problem.predictor.use(UNCALIBRATED)

    def load(self, snapshot: Snapshot) -> None:
        """Continues with the candidates of a snapshot that `check` accepted."""
        self._fits, self._outputs, self.best = self._read(snapshot), {}, None
        self._use(snapshot.scalars["position"]["calibration"])
        if snapshot.scalars["position"]["candidates"] and not self._fits.modules:
            self.network = True

    def _read(self, snapshot: Snapshot) -> Fits:
        return fits.read(snapshot, {candidate.name for candidate in self.candidates}, self._problem.predictor)

    def _use(self, calibration: Json) -> None:
        if calibration:
            self._problem.predictor.use(restored(Calibration, calibration))

    # Fitting one.

    def _saved(self) -> None:
        """After each fit: it was chosen by the clock, too, and a killed training goes on with it. Raises Terminated."""
        if self._inputs.stop.is_set():
            self._terminate()
        self._save()

    def _fit(
        self, candidate: Candidate, entry: Entry, fit_on: tuple[str, ...], seconds: float, chosen: Json | None
    ) -> nn.Module | None:
        """The module; None: it sits out. Raises Terminated; what goes wrong, memory included, becomes the entry's note:
        there are others."""
        name, began = candidate.name, time.monotonic()
        self._inputs.progress(Progress(f"Fitting a candidate: {name}", 0))
        allowance = self._allowance(seconds)
        candidate.note, candidate.again, fitted = "", None, None
        try:
            with self._apart(allowance.threads):
                fitted = hooks.fit_of(candidate, fit_on, allowance, chosen)
        except TrainerError:
            raise
        except Exception as error:
            log.warning("The candidate %s failed", name, exc_info=error)
            package = (self._inputs.config.custom.entry_point or "").partition(".")[0].partition(":")[0]
            candidate.note = f"It failed ({raised.sentence(raised.of(error), raised.last_in_package(package))})."
        finally:
            took = time.monotonic() - began
            entry.seconds = round(entry.seconds + took, 3)
            entry.again = round(took if candidate.again is None else min(took, candidate.again), 3)
        if fitted is None and self._inputs.stop.is_set():
            self._terminate()
        entry.note = candidate.note or ("" if fitted else "It sat out.")
        if fitted is None:
            return None
        module, entry.chosen = fitted
        return module

    def _allowance(self, seconds: float) -> Allowance:
        return Allowance(seconds, usable_cpus(), self._plan.seed, self._inputs.stop, self._watchdog.beat)

    @contextmanager
    def _apart(self, threads: int) -> Iterator[None]:
        """The network's training draws the same numbers whether or not there are candidates."""
        before = torch.get_num_threads()
        try:
            with self._watchdog, torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._plan.seed)
                torch.set_num_threads(threads)
                yield
        finally:
            torch.set_num_threads(before)

    def _judge(self, entry: Entry) -> None:
        """Its figure on the validation split; what predicts no numbers sits out."""
        outputs = self._of(entry.name)
        if all(map(finite, each(outputs))):
            figures = scored(self._problem.predictor, outputs, self._problem.splits["validation"])
            entry.validation = figures.get(self._problem.selection.name)
            return
        entry.chosen, entry.note = None, "It predicts what is no number."
        del self._outputs[entry.name]
        self._fits.remove(entry.name)

    def _of(self, name: str) -> Outputs:
        """Outputs on the validation split, of its first fit."""
        if name not in self._outputs:
            self._outputs[name] = self.ask(name, self._fits.modules[name].to(self._plan.device))
        return self._outputs[name]

    def ask(self, name: str, module: nn.Module) -> Outputs:
        """What the model of this name predicts for the validation split."""
        began, split = time.monotonic(), self._problem.splits["validation"]
        outputs = evaluate(self._problem.predictor, module, split, self._plan.device, self._watchdog.beat)
        self._asked[name] = time.monotonic() - began
        return outputs

    def testing(self, names: Collection[str] | None = None) -> float:
        """Seconds that asking these models, None: all that are known, about the test split will take."""
        rows = {split: rows_in(self._problem.splits[split]) for split in ("validation", "test")}
        took = sum(seconds for name, seconds in self._asked.items() if names is None or name in names)
        return took * rows["test"] / max(1, rows["validation"])
