"""Progress as programs print it: which epoch and step a line says, and its figures. Pure.

    Epoch 2/5 - loss: 0.31 - val_loss: 0.4            12/100 ━━━━ 3s 20ms/step - loss: 0.31       (Keras)
    Epoch 2:  45%|████▌     | 45/100 [00:01<00:01, 40.2it/s, loss=0.31]                 (tqdm, Lightning)
    {'loss': 0.69, 'learning_rate': 5e-05, 'epoch': 0.5}                          (Transformers' Trainer)
    [10]    train-rmse:0.52 validation-rmse:0.61                        (XGBoost, LightGBM; CatBoost alike)
    Train Epoch: 1 [640/60000 (1%)]    Loss: 2.3    step=100 loss=0.3    {"step": 3, "loss": 0.4}
    tables: see printed_tables.py

A line is anybody's: it is cut before it is looked at, and every repetition in the patterns has a bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from portal_client.progress_text import EpochProgress
from trainer_image.command import printed_tables
from trainer_image.command.last_words import RANK

MOST_CHARACTERS = 1000
MOST_FIGURES = 20
# What all that was printed may add up to.
_MOST_STEPS = 10**15

_NUMBER = r"[-+]?(?:\d{1,18}(?:\.\d{0,25})?|\.\d{1,25})(?:[eE][-+]?\d{1,3})?"
_OF = r"\s{0,5}(?:/|of|out of)\s{0,5}(\d{1,12})\b"
_GAP = r"[\s:=#\[(]{0,12}"
# "Train: 3 [ 50/1251" is timm's.
_EPOCH = re.compile(rf"(?:\bep(?:och)?{_GAP}|^train: (?=\d{{1,6}} \[))(\d{{1,9}}(?:\.\d{{1,9}})?)\b(?:{_OF})?", re.I)
# "Best loss at epoch 3" says nothing of where the training is.
_BACK = re.compile(r"\bbest\b", re.I)
# What stands before the place it belongs to: "Loss after iteration 100: 0.3", once the place is a bar.
_AT = re.compile(r"\b(?:at|after|in|of|for)\s{1,3}\|(?:\|)?\s{0,3}(?=[:=])", re.I)
# A test's or a validation's own count: "Test: [ 0/79] Loss: 0.9".
_OTHER = re.compile(r"\W{0,5}(test|val(?:id(?:ation)?)?|eval(?:uation)?)\s{0,3}: ", re.I)
_THOUSANDS = re.compile(r"(?<![\d.,\[(])\d{1,3}(?:,\d{3}){1,5}(?![\d,])")
_STEP = re.compile(
    rf"\b(?:(?:global[ _])?step|iter(?:ation)?|batch|update|round|episode|generation|it){_GAP}"
    rf"(\d{{1,12}})\b(?![.\w])(?:{_OF})?",
    re.I,
)
# The batch or row within an epoch: [ 640/60000 (1%)]
_WITHIN = re.compile(r"[\[(]\s{0,8}(\d{1,12})\s{0,5}/\s{0,5}(\d{1,12})")
# tqdm: what it is called, its counts, what stands behind the time, and behind the bar.
_TQDM = re.compile(
    r"(.{0,200}?)\d{1,3}%\|[^|]{0,300}\|\s{0,5}(\d{1,12}(?:\.\d{1,3})?[kMGT]?)/(\d{1,12}(?:\.\d{1,3})?[kMGT]?)"
    r"(?: \[([^\]]{0,600})\]?)?(.{0,600})"
)
_SCALES = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
# Keras and rich: counts beside a bar; Keras without one: "100/100 - 5s - 20ms/step - loss: 0.3".
_BAR = re.compile(r"━|╸|╺|\[[=>.]")
_COUNTS = re.compile(r"(?:^|\s)(\d{1,12})/(\d{1,12})\s|^(\d{1,12})/(\d{1,12}) - \d")
_ROUND = re.compile(r"\[(\d{1,12})\]\s{1,8}(?=\S)|(\d{1,12}):\s{1,8}(?=learn: )")
# [1,  2000] loss: 2.2
_PAIR = re.compile(r"\[(\d{1,9}),\s{0,8}(\d{1,12})\]")
_WORD = r"(?!(?:nan|inf)\b)[A-Za-z][\w'./@%-]{0,60}"
_NAMED = re.compile(
    rf"(?<![\w./])((?:{_WORD} ){{0,2}}{_WORD})\s{{0,5}}[:=]\s{{0,8}}(?:tensor\(\[?|np\.float\d\d\()?({_NUMBER})"
    r"(?![\w/:])"
)
_NO_NUMBER = re.compile(rf"({_WORD})\s{{0,5}}[:=]?\s{{1,8}}[-+]?(?:nan|inf)\b", re.I)
_TOLD = re.compile(rf"\b((?:[A-Za-z][\w@-]{{0,30}} )?[A-Za-z][\w@-]{{0,30}})\s{{1,4}}({_NUMBER})(?![\w/:])")
_QUOTED = re.compile(rf"""["']([^"']{{1,64}})["']\s{{0,3}}:\s{{0,3}}["']?({_NUMBER})["']?\s{{0,3}}(?=[,}}])""")
# What is measured: without an epoch or a step in its line a figure is believed by its name alone.
_MEASURE = re.compile(
    r"loss|acc(?:uracy)?\b|auc|\bf1|rmse|\bm[as]e\b|mape|\br2\b|perplexity|\bppl|bleu|rouge|\berr(?:or)?\b|precision"
    r"|recall|score|reward|rew_mean|rew_mean|\breturn\b|entropy|\biou|dice|\bmap\b|psnr|ssim|\b[wc]er\b|nll|\bbp[bc]\b|ndcg|elbo",
    re.I,
)
_IMPROVES = re.compile(rf"{_MEASURE.pattern}|deviance|valid|train", re.I)
_POSITIONS = frozenset({"epoch", "epochs", "step", "steps", "global step", "global_step", "iter", "iteration", "batch"})
# Transformers tells of how many epochs are done as a share, a whole one too.
_SHARE = re.compile(r"'(?:learning_rate|\w{1,40}_runtime)'")
# Times, sizes and counts that stand beside figures.
_NOISE = re.compile(
    r".*v_num|eta|elapsed|remaining|total_flos|data|total|best|size|max_epochs|cuda|rank|seed|pid|line|dur|initscore|pavg"
    r"|.*(?:time|timestamp|runtime|per_second|/s|/sec|mem|memory)",
    re.I,
)
_LOSS = ("loss", "Loss", "train_loss", "train loss", "training loss", "total_loss")
# What loggers put before a message: a level; the place in the code (loguru); a letter, time and place (absl).
_BEFORE = re.compile(
    r".{0,80}?\b(?:DEBUG|INFO|WARNING|Info)\b[\]:| -]{0,9}(?:[\w.]{1,80}:[\w<>.]{1,80}:\d{1,6} - )?"
    r"|[IWE]\d{4} [\d:.]{8,20}\s{1,8}\d{1,9} [\w./]{1,80}:\d{1,6}\] "
)


@dataclass(frozen=True)
class Reading:
    """epoch, step: as the line counts them, a share of an epoch as a float; epochs, steps: of how many

    bar: it writes over itself as it goes on; counted_through: its steps are those of all epochs
    """

    epoch: int | float | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    bar: bool = False
    counted_through: bool = False


def read(line: str) -> Reading | None:
    """What a line says of progress, None for every other line, and for those of any process but rank 0."""
    line = line[:MOST_CHARACTERS].strip()
    if rank := RANK.match(line):
        if int(rank[1]):
            return None
        line = line[rank.end() :]
    if line.endswith("}") and (begin := line.find("{")) >= 0:
        return _record(line[begin:], line)
    if "%|" in line:
        found = _TQDM.search(line)
        return _tqdm(*found.groups(default="")) if found else None
    if before := _BEFORE.match(line):
        line = line[before.end() :]
    line = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), line)
    if other := _OTHER.match(line):
        figures = _figures(line[other.end() :], trusted=False)
        return Reading(figures={f"{other[1]} {name}": value for name, value in figures.items()}) if figures else None
    if alone := printed_tables.alone(line):
        if alone[0] == "total_timesteps":  # Stable-Baselines3's
            return Reading(step=int(alone[1]))
        figures = _kept(dict([alone])) if _MEASURE.search(alone[0]) else {}
        return Reading(figures=figures) if figures else None
    epoch, epochs, step, steps, rest = _position(line)
    figures = _figures(rest, trusted=epoch is not None or step is not None)
    bar = _BAR.search(line) is not None
    if bar and "•" in line and isinstance(epoch, int) and epochs is not None:
        epoch, epochs = epoch + 1, epochs + 1  # Lightning's, drawn by rich: "Epoch 0/4" is the first of five
    stands_alone = epoch is not None and (not re.search(r"\w", rest) or _NO_NUMBER.search(rest))
    if figures or (bar and step is not None) or stands_alone:
        return Reading(epoch, epochs, step, steps, figures, bar)
    return None


def _record(text: str, line: str) -> Reading | None:
    """An object as JSON or Python write it. line: that it ends"""
    written = dict(_QUOTED.findall(text))
    figures = _kept({name: float(value) for name, value in written.items()})
    epoch = written.get("epoch")
    step = next((written[name] for name in ("step", "global_step", "iter", "iteration") if name in written), "")
    if epoch and _SHARE.search(text) and "." not in epoch:
        epoch += ".0"
    if epoch is None and not step and figures and (at := _position(line))[0] is not None:
        return Reading(at[0], at[1], figures=figures)
    if epoch is None and not step and not any(map(_MEASURE.search, figures)):
        return None
    return Reading(_epoch(epoch or ""), None, int(step) if re.fullmatch(r"\d{1,12}", step) else None, None, figures)


def _tqdm(called: str, at: str, of: str, inside: str, behind: str) -> Reading | None:
    epoch, epochs, step, _, rest = _position(called)
    name = rest.strip(" :-|").lower()
    figures = _figures(f"{inside.partition(',')[2]}, {behind}, {rest}", trusted=True)
    if re.fullmatch(r"(?:train(?:ing)? )?epochs?", name):
        return Reading(_count(at), _count(of), figures=figures, bar=True)
    if epoch is None and step is None and name and not re.search(r"\btrain|\bfit|\bsteps?\b|\biter|\bbatch", name):
        return None  # of a download, of a validation
    return Reading(epoch, epochs, _count(at), _count(of), figures, True, counted_through=epoch is None)


def _count(text: str) -> int:
    """1.50k is 1500."""
    scale = _SCALES.get(text[-1], 1)
    return round(float(text.rstrip("kMGT")) * scale)


def _epoch(text: str) -> int | float | None:
    return None if not re.fullmatch(r"\d{1,9}(?:\.\d+)?", text) else float(text) if "." in text else int(text)


def _position(line: str) -> tuple[int | float | None, int | None, int | None, int | None, str]:
    """(epoch, of how many, step, of how many, the line without them)"""
    if pair := _PAIR.match(line):
        return int(pair[1]), None, int(pair[2]), None, line[pair.end() :]
    epoch = epochs = None
    if (found := _EPOCH.search(line)) and not _BACK.search(line[: found.start()]):
        epoch, epochs = _epoch(found[1]), int(found[2]) if found[2] else None
        line = f"{line[: found.start()].removesuffix('[')}|{line[found.end() :].lstrip(' ])')}"
    found = _STEP.search(line)
    if found is None and (epoch is not None or _MEASURE.search(line)):
        found = _WITHIN.search(line)
    if found is None and (_BAR.search(line) or " - " in line):
        found = _COUNTS.search(line)
    if found is None and epoch is None:
        found = _ROUND.match(line)
    if found is None:
        return epoch, epochs, None, None, line
    numbers = [int(number) for number in found.groups() if number]
    return epoch, epochs, numbers[0], next(iter(numbers[1:]), None), f"{line[: found.start()]}|{line[found.end() :]}"


def _figures(text: str, *, trusted: bool) -> dict[str, float]:
    """trusted: the line says where the training is. Else a figure needs a name that is known, and a fraction."""
    found: dict[str, str] = {}
    text = _AT.sub("", text)
    for part in re.split(r"[,|\t;•]| - |(?:it/s|s/it|s/step)(?=\s)", text):
        found |= _NAMED.findall(part) or [pair for pair in _TOLD.findall(part) if _MEASURE.search(pair[0])]
    if not trusted and not any(_MEASURE.search(name) and "." in value for name, value in found.items()):
        return {}
    return _kept({name: float(value) for name, value in found.items()})


def _kept(found: Mapping[str, float]) -> dict[str, float]:
    kept = {
        name: value
        for name, value in found.items()
        if math.isfinite(value) and name.lower() not in _POSITIONS and not _NOISE.fullmatch(name)
    }
    return dict(list(kept.items())[:MOST_FIGURES])


class Course:
    """How far a program is, by all that it has printed.

    step: counted through: it goes on where an epoch's steps begin anew; the epoch where no steps are told
    figures: the newest of each name
    """

    def __init__(self, step: int = 0) -> None:
        self.step = self._before = step
        self._last = Reading()
        self._raw: int | None = None
        self._raw_epoch: int | None = None
        self._from_zero = False
        self._whole: int | None = None
        self._header: list[str] | None = None
        self.figures: dict[str, float] = {}

    def read(self, line: str) -> Reading | None:
        """What the line says of progress, also as the row of a table whose header was printed before."""
        if header := printed_tables.header(line[:MOST_CHARACTERS]):
            self._header = header if any(map(_IMPROVES.search, header)) else None
            return None
        found = printed_tables.row(self._header, line[:MOST_CHARACTERS]) if self._header else None
        if found is None or self._header is None:
            return read(line)
        numbers, at, of = found
        step = numbers.pop("#", None)
        figures = dict(list(_kept(numbers).items())[:MOST_FIGURES])
        if self._header[0].lower() in printed_tables.EPOCHS:
            return Reading(at, of, None if step is None else int(step), None, figures)
        return Reading(None, None, at, of, figures)

    def go_on(self, reading: Reading) -> None:
        last = self._last
        if reading.counted_through and last.counted_through and (reading.steps or 0) < (last.steps or 0):
            return  # a bar beside the bar: of an evaluation
        self._from_zero |= last.epoch is None and reading.epoch == 0 and isinstance(reading.epoch, int)
        epoch = last.epoch if reading.epoch is None else reading.epoch
        if reading.step is not None:
            whole = None if reading.counted_through or isinstance(epoch, float) else epoch
            self._count(reading.step, reading.steps, whole)
        elif self._raw is None and isinstance(reading.epoch, int):
            self.step = max(self.step, min(self._from_one(reading.epoch, reading.epochs or last.epochs), _MOST_STEPS))
        elif self._raw is None and reading.figures:
            self.step += 1
        if reading.step is not None:
            at = reading
        elif isinstance(reading.epoch, float) or reading.epoch in (None, last.epoch):
            at = last
        else:  # another epoch begins, or is told of at its end
            at = Reading() if reading.figures or last.steps is None else Reading(step=0, steps=last.steps)
        if isinstance(reading.epoch, float) and reading.epoch >= 0.5 and last.step and last.steps:
            # From the share that is done and the steps of all epochs follows how many epochs there are.
            self._whole = max(1, round(reading.epoch * last.steps / last.step))
        epochs = reading.epochs or last.epochs
        self._last = Reading(epoch, epochs, at.step, at.steps, counted_through=at.counted_through)
        self.figures |= reading.figures

    def _count(self, step: int, steps: int | None, epoch: int | None) -> None:
        if epoch is not None and steps and (through := (epoch + self._from_zero - 1) * steps + step) >= self.step:
            self._before = through - step  # lines may be missing, whole epochs of them
        elif self._raw is not None and (step < self._raw or (step == self._raw and epoch != self._raw_epoch)):
            self._before += self._raw
        elif self._raw is None and step >= self.step:
            self._before = 0  # it was stopped, and counts on
        self._raw, self._raw_epoch = step, epoch
        self.step = min(self._before + step, _MOST_STEPS)

    def __str__(self) -> str:
        """ "Epoch 2 of 5, step 45 of 100, loss 0.31, val_loss 0.4": the status page's form where it can be."""
        figures = dict(self.figures)
        name = next((name for name in _LOSS if name in figures), None)
        loss = figures.pop(name) if name else None
        first = sorted(figures.items(), key=lambda figure: _MEASURE.search(figure[0]) is None)
        more = ", ".join(f"{name} {value:.4g}" for name, value in first[:3])
        epoch, epochs, at = self._place()
        if epoch is not None and epochs:
            step, steps = at or (None, None)
            return str(EpochProgress(epoch, epochs, step, steps, loss, more))
        words = [f"Epoch {epoch}"] if epoch is not None else []
        words += [f"step {at[0]} of {at[1]}"] if at else [f"step {self.step}"] if not words else []
        words += ([] if loss is None else [f"loss {loss:.3g}"]) + ([more] if more else [])
        text = ", ".join(words)
        return text[0].upper() + text[1:]

    def _place(self) -> tuple[int | None, int | None, tuple[int, int] | None]:
        """(epoch from 1, of how many, step and steps within it)"""
        now = self._last
        at = (now.step, now.steps) if now.step is not None and now.steps else None
        if self._whole and at and now.counted_through:
            each = max(1, at[1] // self._whole)
            epoch = min(self._whole, max(0, at[0] - 1) // each + 1)
            return epoch, self._whole, (at[0] - (epoch - 1) * each, each)
        if not isinstance(now.epoch, int):
            return None, None, at
        epoch = self._from_one(now.epoch, now.epochs)
        return epoch, max(epoch, now.epochs) if now.epochs else None, at

    def _from_one(self, epoch: int, epochs: int | None) -> int:
        """A bar that counts the epochs that are done begins at 0 and ends with all of them."""
        return epoch + (self._from_zero and epoch != epochs)
