"""Ours among plain rivals on tables, images and texts that nothing was chosen on: `make quality` ends with it.

python -m benchmarks.ranking                      ours has 20 seconds a set: about half an hour on two quiet cores
python -m benchmarks.ranking --seconds 60         more
python -m benchmarks.ranking --only waves         one set, or one group ("tables, R²"); may be repeated
python -m benchmarks.ranking --resume FILE        goes on from the sets in FILE, and adds each that is finished

Each model is trained once, on the same rows and as many threads; rivals have as long as they take. Prints wins, ties,
losses and mean ranks; exits 1 where ours is not first in mean rank in a group of sets. A rival that takes at most three
seconds and is better in 97.5 % of resamples of the test rows is named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ranking import images, tables, texts
from benchmarks.ranking.places import Ranked, rank
from trainer_image.host.devices import usable_cpus


def every() -> list[Ranked]:
    """All sets."""
    return [*tables.ranked(), *images.ranked(), *texts.ranked()]


def options(parser: argparse.ArgumentParser) -> None:
    """What `make quality` knows, too."""
    parser.add_argument("--seconds", type=float, default=20.0, help="ours has for each ranked set (20)")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="go on from the ranked sets in FILE, and add to it")
    parser.add_argument("--only", action="append", default=[], metavar="SET", help="only this set; may be repeated")


def ranking(only: Sequence[str], seconds: float, kept: Path | None) -> bool:
    """True where ours is first in every group; only: names of sets and groups, all where there are none."""
    chosen = [each for each in every() if not only or each.name in only or each.group in only]
    return not chosen or rank(chosen, seconds, usable_cpus(), kept)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    given = parser.parse_args(arguments)
    known = dict.fromkeys(name for each in every() for name in (each.name, each.group))
    if unknown := [name for name in given.only if name not in known]:
        parser.error(f"no set is named {unknown[0]}; there are {', '.join(known)}")
    return 0 if ranking(given.only, given.seconds, given.resume) else 1


if __name__ == "__main__":
    sys.exit(main())
