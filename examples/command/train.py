"""A training program that knows nothing of the trainer but the names in its environment. Standard library only.

Logistic regression on a table: python3 train.py --target COLUMN, every other column a number, the target 0 or 1.
"""

import argparse
import csv
import json
import math
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

DATA, OUTPUT, SAVED = (Path(os.environ[name]) for name in ("DATASET_DIR", "OUTPUT_DIR", "CHECKPOINT_DIR"))
PROGRESS = Path(os.environ["PROGRESS_FILE"])
DATASET_INVALID, STOPPED = 65, 143


def read(path: Path, target: str) -> list[tuple[list[float], int]]:
    """Rows of (features, label). What is wrong with the data is one sentence and exit code 65."""
    try:
        with path.open(newline="") as file:
            return [
                ([float(value) for name, value in row.items() if name != target], int(row[target]))
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError) as error:
        print(f"{path.name} cannot be trained on: {type(error).__name__}: {error}")
        sys.exit(DATASET_INVALID)


def tell(**what: object) -> None:
    """A line for the portal and for metrics.jsonl."""
    with PROGRESS.open("a") as file:
        file.write(json.dumps(what) + "\n")


def save(state: dict[str, Any]) -> None:
    """Written under a name that begins with a dot, then renamed: what is visible is whole."""
    part = SAVED / ".state.json"
    part.write_text(json.dumps(state))
    part.replace(SAVED / "state.json")


def probability(weights: list[float], features: list[float]) -> float:
    score = weights[-1] + sum(w * x for w, x in zip(weights, features, strict=False))
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each epoch, to watch it work")
    options = parser.parse_args()
    stop: list[int] = []  # on SIGTERM the epoch in hand is finished
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    end = time.monotonic() + float(os.environ["TIME_BUDGET_SECONDS"])

    train, test = read(DATA / "train.csv", options.target), read(DATA / "test.csv", options.target)
    state: dict[str, Any] = {"epoch": 0, "weights": [0.0] * (len(train[0][0]) + 1)}
    if (SAVED / "state.json").exists():
        state = json.loads((SAVED / "state.json").read_text())
        print(f"going on after epoch {state['epoch']}")
    weights = state["weights"]
    while state["epoch"] < options.epochs and not stop and time.monotonic() < end:
        # The order follows from seed and epoch, so that a resumed training ends with the same weights.
        random.Random(f"{os.environ['SEED']}/{state['epoch']}").shuffle(order := list(range(len(train))))
        loss = 0.0
        for index in order:
            features, label = train[index]
            p = probability(weights, features)
            loss -= math.log(max(1e-12, p if label else 1 - p))
            for place, value in enumerate([*features, 1.0]):
                weights[place] += options.lr * (label - p) * value
        state["epoch"] += 1
        save(state)
        loss /= len(train)
        # A message of this form has a bar and a curve on the dispatcher's status page.
        message = f"Epoch {state['epoch']} of {options.epochs}, loss {loss:.3g}"
        tell(message=message, step=state["epoch"], fraction=state["epoch"] / options.epochs, loss=loss)
        time.sleep(options.pause)
    if stop:
        return STOPPED

    right = sum((probability(weights, features) > 0.5) == bool(label) for features, label in test)
    (OUTPUT / "weights.json").write_text(json.dumps(weights))
    (OUTPUT / "metrics.json").write_text(json.dumps({"accuracy": right / len(test)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
