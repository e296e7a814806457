"""Icons with transparency, drawn by code: shapes with gradients, stars, rings, pie charts, some with a letter on them."""
import argparse
import colorsys
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans-Bold.ttf"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def colour(rng):
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(rng.random(), *rng.uniform(0.4, 1, 2)))


def corners(rng, n, radius, centre, star):
    "Of a polygon or a star of n points."
    turn, inner = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 0.5)
    radii = [radius * (inner if star and i % 2 else 1) for i in range(2 * n if star else n)]
    angles = turn + 2 * np.pi * np.arange(len(radii)) / len(radii)
    return [(centre[0] + r * np.cos(t), centre[1] + r * np.sin(t)) for r, t in zip(radii, angles)]


def outline(rng, side, radius, centre):
    "A mask: disc, rounded square, polygon, star, pie chart or ring."
    mask = Image.new("L", (side, side), 0)
    draw, kind = ImageDraw.Draw(mask), rng.integers(6)
    def box(r): return [centre[0] - r, centre[1] - r, centre[0] + r, centre[1] + r]
    if kind == 0: draw.ellipse(box(radius), fill=255)
    elif kind == 1: draw.rounded_rectangle(box(radius), radius=radius * rng.uniform(0, 0.6), fill=255)
    elif kind in (2, 3): draw.polygon(corners(rng, int(rng.integers(3, 8)), radius, centre, star=kind == 3), fill=255)
    elif kind == 4: draw.pieslice(box(radius), float(rng.uniform(0, 360)), float(rng.uniform(400, 640)), fill=255)
    else:
        draw.ellipse(box(radius), fill=255)
        draw.ellipse(box(radius * rng.uniform(0.4, 0.7)), fill=0)
    return mask


def icon(rng, side=64):
    "One icon, RGBA, drawn at twice its size."
    large = 2 * side
    radius, centre = rng.uniform(0.25, 0.46) * large, large / 2 + rng.uniform(-0.05, 0.05, 2) * large
    first, second = np.array(colour(rng)), np.array(colour(rng))
    ramp = np.mgrid[:large, :large][rng.integers(2)][..., None] / (large - 1)
    image = Image.fromarray((first + (second - first) * ramp * rng.uniform()).astype(np.uint8)).convert("RGBA")
    image.putalpha(outline(rng, large, radius, centre))
    if rng.random() < 0.6:
        font = ImageFont.truetype(str(FONT), int(radius * rng.uniform(0.9, 1.3)))
        ink = [(255, 255, 255), (20, 20, 20), colour(rng)][rng.integers(3)]
        ImageDraw.Draw(image).text(tuple(centre), LETTERS[rng.integers(26)], font=font, anchor="mm", fill=(*ink, 255))
    return image.resize((side, side), Image.Resampling.LANCZOS)


def icons(n, side=64, seed=0):
    rng = np.random.default_rng(seed)
    return [icon(rng, side) for _ in range(n)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where they go, as PNG files")
    parser.add_argument("--n", type=int, default=4000)
    parser.add_argument("--side", type=int, default=64)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(icons(given.n, given.side)): image.save(given.folder / f"{i:05d}.png")
