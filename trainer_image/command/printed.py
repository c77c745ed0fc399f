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

from trainer_image.command import printed_tables
from trainer_image.command.last_words import RANK

MOST_CHARACTERS = 1000
MOST_FIGURES = 20

_NUMBER = printed_tables.NUMBER.pattern
_OF = r"\s{0,5}(?:/|of|out of)\s{0,5}(\d{1,12})\b"
_GAP = r"[\s:=#\[(_]{0,12}"
# "Train: 3 [ 50/1251" is timm's.
_EPOCH = re.compile(
    rf"(?:\bep(?:ochs(?=\s{{0,3}}\d{{1,9}}\s{{0,3}}/)|och|\.)?{_GAP}|^train: (?=\d{{1,6}} \[))"
    rf"(\d{{1,9}}(?:\.\d{{1,9}})?)\b(?:{_OF})?",
    re.I,
)
# What scripts put before their lines themselves, and Ray.
_OWN_RANK = re.compile(r"[\[(]?(?:rank|gpu|worker|process)[ :=-]?(\d{1,6})[\])]?:?\s", re.I)
_RAY = re.compile(r"\(\w{1,80} pid=\d{1,9}[^)]{0,80}\)\s")
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
MEASURE = re.compile(
    r"loss|acc(?:uracy)?\b|auc|\bf1|rmse|\bm[as]e\b|mape|\br2\b|perplexity|\bppl|bleu|rouge|\berr(?:or)?\b|precision"
    r"|recall|score|reward|rew_mean|\breturn\b|entropy|\biou|dice|\bmap\b|psnr|ssim|\b[wc]er\b|nll|\bbp[bc]\b|ndcg|elbo",
    re.I,
)
_POSITIONS = frozenset({"epoch", "epochs", "step", "steps", "global step", "global_step", "iter", "iteration", "batch"})
# Transformers tells of how many epochs are done as a share, a whole one too.
_SHARE = re.compile(r"'(?:learning_rate|\w{1,40}_runtime)'")
# Times, sizes and counts that stand beside figures.
_NOISE = re.compile(
    r".*v_num|eta|elapsed|remaining|total_flos|data|total|best|size|max_epochs|cuda|rank|seed|pid|line|dur|initscore|pavg"
    r"|batch[ _]?size|t"
    r"|.*(?:time|timestamp|runtime|per_second|/s|/sec|mem|memory)",
    re.I,
)
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


def of_rank_0(line: str) -> str | None:
    """The line, cut, without what says which process has printed it; None for that of any but rank 0."""
    line = line[:MOST_CHARACTERS].strip()
    if ray := _RAY.match(line):
        line = line[ray.end() :]
    if rank := RANK.match(line) or _OWN_RANK.match(line):
        return None if int(rank[1]) else line[rank.end() :]
    return line


def read(line: str) -> Reading | None:
    """What a line of `of_rank_0` says of progress, None for every other one."""
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
        if alone[0] == "total_timesteps" and alone[1] >= 0:  # Stable-Baselines3's
            return Reading(step=int(alone[1]))
        figures = kept(dict([alone])) if MEASURE.search(alone[0]) else {}
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
    figures = kept({name: float(value) for name, value in written.items()})
    epoch = written.get("epoch")
    step = next((written[name] for name in ("step", "global_step", "iter", "iteration") if name in written), "")
    if epoch and _SHARE.search(text) and "." not in epoch:
        epoch += ".0"
    if epoch is None and not step and figures and (at := _position(line))[0] is not None:
        return Reading(at[0], at[1], figures=figures)
    if epoch is None and not step and not any(map(MEASURE.search, figures)):
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
    if found is None and (epoch is not None or MEASURE.search(line)):
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
        found |= _NAMED.findall(part) or [pair for pair in _TOLD.findall(part) if MEASURE.search(pair[0])]
    if not trusted and not any(MEASURE.search(name) and "." in value for name, value in found.items()):
        return {}
    return kept({name: float(value) for name, value in found.items()})


def kept(found: Mapping[str, float]) -> dict[str, float]:
    """The figures among these numbers: finite ones that are no place and no noise, at most MOST_FIGURES."""
    found = {
        name: value
        for name, value in found.items()
        if math.isfinite(value) and name.lower() not in _POSITIONS and not _NOISE.fullmatch(name)
    }
    return dict(list(found.items())[:MOST_FIGURES])
