"""Makes up a monthly demand with a trend, and seasons that grow and shrink: python make_data.py > demand.csv"""

import csv
import math
import random
import sys

chance = random.Random(7)
writer = csv.writer(sys.stdout)
writer.writerow(["month", "demand"])
mood = 0.0
for month in range(360):
    mood = 0.9 * mood + chance.gauss(0, 0.25)
    season = math.sin(2 * math.pi * month / 12) + 0.4 * math.cos(4 * math.pi * month / 12)
    level = 100 + 0.15 * month
    demand = level + 12 * season * (1 + math.tanh(mood)) + chance.gauss(0, 1)
    writer.writerow([f"{1995 + month // 12}-{month % 12 + 1:02}-01", f"{demand:.2f}"])
