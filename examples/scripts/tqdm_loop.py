"""A loop with tqdm's bar, and its loss behind it."""

import argparse
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, default=Path("data"))
parser.add_argument("--save", type=Path, default=Path("out"))
args = parser.parse_args()

table = np.loadtxt(args.data / "train.csv", delimiter=",", skiprows=1)
weights = np.zeros(table.shape[1])
for epoch in range(1, 4):
    bar = tqdm(table, desc=f"Epoch {epoch}/3")
    for row in bar:
        x, y = np.append(row[:-1], 1.0), row[-1]
        p = 1 / (1 + np.exp(-x @ weights))
        weights += 0.05 * (y - p) * x
        bar.set_postfix(loss=float(abs(y - p)))
(args.save / "weights.json").write_text(json.dumps(weights.tolist()))
