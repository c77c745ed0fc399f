"""How the time of a training is divided: pure arithmetic, in seconds of training, earlier attempts included."""

from __future__ import annotations

from dataclasses import dataclass, replace

# Of the budget, what is kept for the test and the report; what the test needs, as far as it is known, up to so much.
RESERVE, MOST_RESERVE = 0.05, 0.5
# What candidates may take together of a long budget: so many seconds, and this share; of a short one what the problem
# says.
CANDIDATES_SECONDS, CANDIDATES_SHARE_OF_MORE = 30.0, 0.1
# A schedule grows back only before this share of it is done: later the learning rate has nearly come down.
GROWS_BEFORE = 0.75
# Steps that say nothing of how long the others take: libraries choose their algorithms in them. Of the time, the share
# after which the others have said it.
WARM_UP, SURE_SHARE = 3, 0.1
# A candidate that takes no more than this share of the budget is fitted once more, however late it is.
LITTLE = 0.05
# Time for a refit of the network is set aside only where its search has so large a share of its epochs all the same:
# what has seen its rows a few times gains more by seeing them more often than by a few rows more.
LEAST_BESIDE_REFIT = 0.5
# Forward alone, as in validation, of what a step costs.
FORWARD = 1 / 3
# Less of a refit than this share of its steps is not begun.
LEAST_REFIT = 0.5
# More epochs are begun where time for so large a share of those that are done is left.
LEAST_MORE = 0.25


@dataclass(frozen=True)
class Budget:
    """seconds: that were given (train.time_budget). growth: training and validation rows over training rows; refit:
    whether the network is to be trained once more on both; candidates_share: as `Problem` says it; testing: what the
    test takes, by what validation took."""

    seconds: float
    growth: float
    refit: bool
    candidates_share: float
    testing: float = 0.0

    @property
    def total(self) -> float:
        """When all fits have to be over."""
        return self.seconds - min(max(RESERVE * self.seconds, self.testing), MOST_RESERVE * self.seconds)

    @property
    def candidates(self) -> float:
        """What fitting the candidates may take in all."""
        total = self.total
        return min(self.candidates_share * total, CANDIDATES_SECONDS + CANDIDATES_SHARE_OF_MORE * total)

    def search_ends(self, candidates: float, again: float) -> float:
        """When the network's search has to be over, so that its refit can have as many steps; and the candidates'.

        candidates: seconds that their fits took; again: those of fits that may be done once more
        """
        left = max(0.0, self.total - candidates - again * self.growth)
        return candidates + (left / (1 + self.growth) if self.refit else left)

    def for_network(self, *, candidates: bool, again: bool = True) -> float:
        """What the search of the network has at least, before anything is measured. again: whether fitting the
        candidates once more takes time"""
        spent = self.candidates if candidates else 0.0
        return self.search_ends(spent, spent if again else 0.0) - spent

    def epochs(self, seconds_an_epoch: float, most: int, *, candidates: bool, again: bool = True) -> float:
        """How many epochs, of at most so many, that time holds. There is no refit where it would leave too few."""
        found, seconds_an_epoch = [], max(1e-9, seconds_an_epoch)
        for refit in (True, False)[not self.refit :]:
            budget = replace(self, refit=refit)
            found.append(budget.for_network(candidates=candidates, again=again) / seconds_an_epoch)
        return found[0] if found[0] >= LEAST_BESIDE_REFIT * most else found[-1]


class Pace:
    """How long the steps of one phase take.

    seconds, step: when and with which step of the phase this process began; ends: when the phase has to be over
    """

    def __init__(self, seconds: float, step: int, ends: float) -> None:
        self._since, self._step, self._ends = seconds, step, ends
        self._allowed = max(0.0, ends - seconds)
        self._warm = False

    def until(self, ends: float) -> None:
        """The phase has to be over at another time than was thought."""
        self._ends = ends

    def leave_out(self, seconds: float) -> None:
        """That was no step: compiling, say. The schedule must not become shorter for it."""
        self._since += seconds

    def step(self, seconds: float, step: int) -> float:
        """Seconds of a step, until now."""
        return (seconds - self._since) / max(1, step - self._step)

    def fitting(self, seconds: float, step: int, after: float = 0.0) -> int | None:
        """With how many steps of the phase the time ends; None: it is too early to say. after: what has to be done
        behind them, in steps"""
        if seconds < self._ends:
            if not self._warm and step - self._step == WARM_UP:
                self._since, self._step, self._warm = seconds, step, True
            if seconds - self._since < SURE_SHARE * self._allowed:
                return None
        return step + max(0, int((self._ends - seconds) / max(self.step(seconds, step), 1e-9) - after))


def fitted(done: int, now: int, most: int, fitting: int) -> int:
    """Steps after which a schedule ends. now: as it stands; most: without any budget; fitting: what the time holds

    It becomes shorter at any time, longer only while it is far from its end.
    """
    wanted = min(most, fitting)
    return wanted if wanted < now or done < GROWS_BEFORE * now else now


def more_epochs(done: int, best: int, left: float, an_epoch: float) -> int:
    """Epochs to go on for, at most as many as are done, where the best one is among the last tenth; 0: it is over."""
    if best <= 0.9 * done:
        return 0
    fitting = min(done, int(left / max(an_epoch, 1e-9)))
    return fitting if fitting >= max(1, LEAST_MORE * done) else 0
