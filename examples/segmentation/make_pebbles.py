"""Draws plain and banded pebbles of any colour on sand: python make_pebbles.py pebbles"""

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

PLAIN, BANDED = 1, 2  # a pixel's class in the mask; 0 is the sand
SAND = (170, 140, 100)


def draw(chance: random.Random) -> tuple[Image.Image, Image.Image]:
    """An image and its mask."""
    width, height = chance.randint(44, 60), chance.randint(44, 60)
    dunes = bytes(channel + chance.randint(-30, 30) for _ in range(16) for channel in SAND)
    image = Image.frombytes("RGB", (4, 4), dunes).resize((width, height), Image.Resampling.BICUBIC)
    mask = Image.new("L", (width, height))
    for _ in range(chance.randint(1, 4)):
        kind = chance.choice((PLAIN, BANDED))
        dark, bright = (tuple(chance.randrange(least, least + 90) for _ in range(3)) for least in (0, 166))
        colour, other = chance.sample((dark, bright), 2)
        surface = Image.new("RGB", (width, height), colour)
        if kind == BANDED:
            slant = chance.randint(-height, height)
            for top in range(-height, width + height, 6):
                ImageDraw.Draw(surface).line([(top, 0), (top + slant, height)], fill=other, width=2)
        x, y = chance.uniform(0, width), chance.uniform(0, height)
        long, short = (chance.uniform(6, 14) for _ in range(2))
        pebble = Image.new("L", (width, height))
        ImageDraw.Draw(pebble).ellipse([x - long, y - short, x + long, y + short], fill=255)
        image.paste(surface, mask=pebble)
        mask.paste(kind, mask=pebble)
    grain = Image.frombytes("RGB", (width, height), chance.randbytes(3 * width * height))
    return Image.blend(image, grain, 0.15), mask


def main(folder: Path) -> None:
    chance = random.Random(7)
    for split, count in (("train", 150), ("test", 40)):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = draw(chance)
            image.save(folder / split / "images" / f"{number:03}.jpg", quality=92)
            mask.save(folder / split / "masks" / f"{number:03}.png")


main(Path(sys.argv[1]))
