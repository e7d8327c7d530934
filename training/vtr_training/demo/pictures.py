"""The pictures of a generated clip: one shape over a grey textured background, at twelve places, sizes or opacities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .captions import Cell

SIZE = 112  # pixels, square
PICTURES = 12

Plane = NDArray[np.float64]

RGB = {
    "red": (215, 35, 40),
    "orange": (245, 135, 20),
    "yellow": (240, 225, 40),
    "green": (40, 165, 60),
    "cyan": (40, 205, 215),
    "blue": (40, 75, 215),
    "purple": (125, 45, 165),
    "pink": (245, 130, 190),
}


def _circle(x: Plane, y: Plane) -> Plane:
    return np.asarray(np.hypot(x, y) - 1)


def _square(x: Plane, y: Plane) -> Plane:
    return np.asarray(np.maximum(abs(x), abs(y)) - 0.85)


def _triangle(x: Plane, y: Plane) -> Plane:
    return np.asarray(np.maximum(0.87 * abs(x) - 0.5 * y - 0.5, y - 0.7))


def _cross(x: Plane, y: Plane) -> Plane:
    longer, shorter = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    return np.asarray(np.maximum(longer - 1, shorter - 0.3))


def _ring(x: Plane, y: Plane) -> Plane:
    return np.asarray(abs(np.hypot(x, y) - 0.75) - 0.25)


def _star(x: Plane, y: Plane) -> Plane:
    # Five points: within a tenth of the turn the edge is the line from the tip (radius 1.1) to the notch (radius 0.45).
    turn, tip, notch = np.pi / 5, 1.1, 0.45
    angle = abs((np.arctan2(x, -y) + turn) % (2 * turn) - turn)
    edge = tip * notch * np.sin(turn) / (notch * np.sin(turn - angle) + tip * np.sin(angle))
    return np.asarray(0.6 * (np.hypot(x, y) - edge))


def _heart(x: Plane, y: Plane) -> Plane:
    lobes = np.hypot(abs(x) - 0.45, y + 0.35) - 0.5
    point = np.maximum((abs(x) + y - 0.98) / np.sqrt(2), -y - 0.35)
    return np.asarray(np.minimum(lobes, point))


# Signed distance to the outline in units of the radius, negative inside; y points down.
OUTLINES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
    "star": _star,
    "heart": _heart,
}


@dataclass(frozen=True)
class Scene:
    """Where the shape stands in each of the twelve pictures; places and radii as shares of the picture's side."""

    x: Plane
    y: Plane
    radius: Plane
    opacity: Plane


def draw_scene(kind: str, rng: np.random.Generator) -> Scene:
    """The twelve steps of `kind`, and everything else (track, size, place) by chance."""
    steps = np.linspace(0, 1, PICTURES)
    same = np.ones(PICTURES)
    x, y = same * rng.uniform(0.32, 0.68), same * rng.uniform(0.32, 0.68)
    radius, opacity = same * rng.uniform(0.13, 0.18), same
    if kind == "left-right":
        x = _between(rng.uniform(0.15, 0.22), rng.uniform(0.78, 0.85), steps)
    elif kind == "up-down":
        y = _between(rng.uniform(0.78, 0.85), rng.uniform(0.15, 0.22), steps)
    elif kind == "grow-shrink":
        radius = _between(rng.uniform(0.07, 0.09), rng.uniform(0.26, 0.3), steps)
    else:
        opacity = _between(rng.uniform(0.08, 0.15), 1, steps)
    return Scene(x, y, radius, opacity)


def render(cell: Cell, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The twelve pictures [12, SIZE, SIZE, 3] of one group of clips, first the start of the motion "there"."""
    scene = draw_scene(cell.kind, rng)
    background = _background(rng)
    colour = np.clip(np.asarray(RGB[cell.colour]) * rng.uniform(0.9, 1.05), 0, 255)
    column = (np.arange(SIZE) + 0.5) / SIZE
    pictures = np.empty((PICTURES, SIZE, SIZE, 3), np.uint8)
    for i in range(PICTURES):
        x, y = np.meshgrid((column - scene.x[i]) / scene.radius[i], (column - scene.y[i]) / scene.radius[i])
        distance = OUTLINES[cell.shape](x, y) * scene.radius[i] * SIZE  # in pixels
        cover = (np.clip(0.5 - distance, 0, 1) * scene.opacity[i])[..., None]
        pictures[i] = np.rint(background + cover * (colour - background))
    return pictures


def _between(start: float, end: float, steps: Plane) -> Plane:
    return start + (end - start) * steps


def _background(rng: np.random.Generator) -> Plane:
    """Smooth grey patches [SIZE, SIZE, 3] under a light: brighter to the top, warmer to the left.

    So a place is known by what is around it, as in a real scene, and not only by how far the picture's edge is."""
    grid = int(rng.integers(4, 12))
    patches = rng.uniform(-20, 20, (grid, grid)) + rng.uniform(100, 150)
    at = np.linspace(0, grid - 1, SIZE)
    weights = np.maximum(0, 1 - abs(at[:, None] - np.arange(grid)))  # linear interpolation
    fall = np.linspace(1, -1, SIZE)
    grey = weights @ patches @ weights.T + rng.uniform(30, 45) * fall[:, None]
    warmth = rng.uniform(18, 28) * fall[:, None] * np.array([1, 0, -1])
    return np.asarray(grey[..., None] + warmth)
