"""Small pictures for the report: ROC curves and contact sheets. Pure: arrays in, PIL images out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from sklearn.metrics import roc_curve

COLOURS = ((40, 90, 200), (200, 60, 40), (60, 140, 60), (150, 80, 160))
TRUE_COLOUR, GUESS_COLOUR = (80, 220, 80), (255, 70, 40)
WINDOW_HU = (0.0, 80.0)


def roc_picture(curves: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]], side: int = 360) -> Image.Image:
    """ROC curves of name → (truth, score); false-alarm share to the right, sensitivity upwards."""
    margin, inner = 40, side - 60
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((margin, 20, margin + inner, 20 + inner), outline="black")
    draw.line((margin, 20 + inner, margin + inner, 20), fill=(190, 190, 190))
    for nth, (name, (truth, score)) in enumerate(curves.items()):
        across, up, _ = roc_curve(truth, score)
        points = [(margin + x * inner, 20 + inner - y * inner) for x, y in zip(across, up, strict=True)]
        for a, b in pairwise(points):
            draw.line((*a, *b), fill=COLOURS[nth % 4], width=2)
        draw.text((margin + inner * 0.42, 20 + inner - 20 * (nth + 1)), name, fill=COLOURS[nth % 4])
    draw.text((margin + inner // 3, side - 30), "false-alarm share", fill="black")
    draw.text((4, 4), "sensitivity", fill="black")
    return image


def tile(
    hu: NDArray[np.float32], truth: NDArray[np.bool_] | None, guess: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """One slice in the brain window, the true outline green, the network's red."""
    low, high = WINDOW_HU
    grey = (np.clip((hu - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=2)
    for mask, ink in ((truth, TRUE_COLOUR), (guess, GUESS_COLOUR)):
        if mask is not None:
            colour[mask & ~ndimage.binary_erosion(mask)] = ink
    return colour


def sheet(tiles: list[NDArray[np.uint8]], captions: list[str], across: int = 6) -> Image.Image:
    """Tiles of one size in rows, a caption on each."""
    height, width = tiles[0].shape[:2]
    image = Image.new("RGB", (across * width, -(-len(tiles) // across) * height))
    draw = ImageDraw.Draw(image)
    for nth, (one, caption) in enumerate(zip(tiles, captions, strict=True)):
        x, y = (nth % across) * width, (nth // across) * height
        image.paste(Image.fromarray(one), (x, y))
        draw.text((x + 3, y + 2), caption, fill=(255, 230, 120))
    return image
