"""Makes up visitors of a shop: python3 make_shop.py shop writes shop/train.csv and shop/test.csv"""

import csv
import random
import sys
from pathlib import Path

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
chance = random.Random(3)
for name, rows in (("train", 60), ("test", 40)):
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["visits", "minutes", "bought"])
        for _ in range(rows):
            visits, minutes = chance.gauss(0, 1), chance.gauss(0, 1)
            writer.writerow([round(visits, 3), round(minutes, 3), int(visits > minutes)])
