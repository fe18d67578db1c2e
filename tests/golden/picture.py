"""The pictures: small PNG files drawn from their own name, `<motif>_<width>x<height>[_<mode>]`."""

import zlib

import numpy as np
from PIL import Image


def _blobs(rng, width, height):
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    image = np.zeros((height, width, 3))
    for _ in range(5):
        cx, cy, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.15, 0.5) * min(width, height)
        image += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * r * r))[..., None] * rng.uniform(40, 255, 3)
    return image


def _stripes(rng, width, height):
    y, x = np.mgrid[0:height, 0:width]
    band = ((x * rng.integers(1, 4) + y * rng.integers(1, 4)) // rng.integers(3, 7)) % 3
    return rng.uniform(0, 255, (3, 3))[band]


def _glyphs(rng, width, height):
    image = np.full((height, width, 3), 245.0)
    for _ in range(9):
        x, y = rng.integers(0, width - 3), rng.integers(0, height - 3)
        w, h = (rng.integers(2, 4), rng.integers(3, 12)) if rng.random() < 0.5 else (rng.integers(3, 12), rng.integers(2, 4))
        image[y : y + h, x : x + w] = rng.uniform(0, 90, 3)
    return image


def _noise(rng, width, height):
    return rng.uniform(0, 255, (height, width, 3))


MOTIFS = {"blobs": _blobs, "stripes": _stripes, "glyphs": _glyphs, "noise": _noise}


def draw(name: str) -> Image.Image:
    """The picture of that name; modes: RGB (none named), L (grey), P (palette), 1 (bilevel)."""
    motif, size, *mode = name.split("_")
    width, height = map(int, size.split("x"))
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    image = Image.fromarray(np.clip(MOTIFS[motif](rng, width, height), 0, 255).astype(np.uint8))
    match mode:
        case []:
            return image
        case ["P"]:
            return image.quantize(16)
        case [mode]:
            return image.convert(mode)
    raise ValueError(name)
