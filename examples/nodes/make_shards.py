"""Writes a small dataset in shards: python3 make_shards.py FOLDER"""

from __future__ import annotations

import random
import sys
from pathlib import Path

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
random.seed(0)
for shard in range(8):
    rows = []
    for _ in range(128):
        x, y = random.uniform(-1, 1), random.uniform(-1, 1)
        rows.append(f"{x:.4f},{y:.4f},{x * y + random.gauss(0, 0.01):.4f}")
    (folder / f"train-{shard}.csv").write_text("\n".join(["x,y,product", *rows]) + "\n")
