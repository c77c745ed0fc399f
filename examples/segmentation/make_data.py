"""Draws discs, squares and triangles of any colour before clouds: python make_data.py shapes"""

import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

# Class of a pixel in the mask, 0 being the background → corners of what is drawn; with forty it looks like a disc.
CORNERS = {1: 40, 2: 4, 3: 3}


def draw(chance: random.Random) -> tuple[Image.Image, Image.Image]:
    """An image and its mask."""
    width, height = chance.randint(56, 80), chance.randint(56, 80)
    clouds = Image.frombytes("RGB", (9, 9), chance.randbytes(243))
    image = clouds.resize((width, height), Image.Resampling.BICUBIC)
    mask = Image.new("L", (width, height))
    for _ in range(chance.randint(1, 4)):
        kind, radius, turn = chance.choice(list(CORNERS)), chance.uniform(8, 14), chance.random()
        x, y = chance.uniform(0, width), chance.uniform(0, height)
        angles = [math.tau * (turn + corner / CORNERS[kind]) for corner in range(CORNERS[kind])]
        outline = [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]
        ImageDraw.Draw(image).polygon(outline, fill=tuple(chance.randbytes(3)))
        ImageDraw.Draw(mask).polygon(outline, fill=kind)
    noise = Image.frombytes("RGB", (width, height), chance.randbytes(3 * width * height))
    return Image.blend(image.filter(ImageFilter.BoxBlur(0.5)), noise, 0.15), mask


def main(folder: Path) -> None:
    chance = random.Random(7)
    for split, count in (("train", 200), ("test", 40)):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = draw(chance)
            image.save(folder / split / "images" / f"{number:03}.jpg", quality=92)
            mask.save(folder / split / "masks" / f"{number:03}.png")


main(Path(sys.argv[1]))
