"""Made-up data for the scripts of this folder: python3 make_flowers.py FOLDER writes train.csv and test.csv there."""

import csv
import random
import sys
from pathlib import Path


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    for name, count in (("train", 120), ("test", 40)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["petal", "sepal", "weight", "label"])
            for _ in range(count):
                label = draw.randrange(2)
                writer.writerow([round(draw.gauss(2 * label, 0.7), 3) for _ in range(3)] + [label])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
