"""Pictures of the testbed: 64x64 procedural scenes whose captions say little about them.

Every scene, in every group, has a dividing line: an inside and an outside, each with a background,
light, unnamed things and its share of the named things, each drawn from a seed of its own. Holding
caption, line and inside fixed while the outside is drawn anew gives a template family; since every
other scene is made the same way, a seam marks no group.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from memattn.testbed.grammar import COLOURS, Caption, draw_caption

SIZE = 64
TEMPLATE_AREA = (0.35, 0.65)  # share of the picture that lies inside the dividing line

Image = NDArray[np.float32]  # [64, 64, 3] in 0..1
Plane = NDArray[Any]  # [64, 64], float32 or float64

_axis = ((np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE) * 2 - 1
_Y, _X = np.meshgrid(_axis, _axis, indexing="ij")  # -1..1, y downwards
_EDGE = 1.5 * 2 / SIZE  # width of an antialiased edge, in units of the -1..1 frame


@dataclass(frozen=True)
class Scene:
    """A caption and the three seeds that fix everything its caption does not say."""

    caption: Caption
    line_seed: int
    inside_seed: int
    outside_seed: int

    def with_outside(self, outside_seed: int, style: str) -> "Scene":
        """Another member of this scene's template family."""
        return replace(self, caption=self.caption.with_style(style), outside_seed=outside_seed)


def draw_scene(rng: Generator, caption: Caption | None = None) -> Scene:
    """Draws a scene, of the given caption or of a new one."""
    caption = caption or draw_caption(rng)
    line, inside, outside = (int(seed) for seed in rng.integers(2**62, size=3))
    return Scene(caption, line, inside, outside)


def inside_mask(scene: Scene) -> NDArray[np.bool_]:
    """Which pixels lie inside the scene's dividing line [64, 64]."""
    rng = default_rng(scene.line_seed)
    angle, wave, phase = rng.uniform(0, 2 * np.pi), rng.uniform(2, 5), rng.uniform(0, 2 * np.pi)
    along = _X * np.cos(angle) + _Y * np.sin(angle)
    across = -_X * np.sin(angle) + _Y * np.cos(angle)
    height = along + 0.12 * np.sin(wave * across + phase)
    mask: NDArray[np.bool_] = height <= np.quantile(height, rng.uniform(*TEMPLATE_AREA))
    return mask


def render(scene: Scene) -> Image:
    """Draws the scene.

    Args:
        scene: What to draw.

    Returns:
        The picture [64, 64, 3], float32 in 0..1.
    """
    inside = inside_mask(scene)
    sides = default_rng(scene.line_seed + 1).random(len(scene.caption.things)) < 0.5
    places: dict[int, tuple[float, float]] = {}
    halves = []
    for seed, region, is_inside in (
        (scene.inside_seed, inside, True),
        (scene.outside_seed, ~inside, False),
    ):
        rng = default_rng(seed)
        image = _background(rng)
        for _ in range(int(rng.integers(2, 4))):
            _unnamed(image, rng)
        for index in np.flatnonzero(sides == is_inside).tolist():
            places[index] = _place(rng, region, index, places, scene.caption.relation)
            thing = scene.caption.things[index]
            _paint(image, _shape(thing.kind, rng, places[index]), _tint(thing.colour, rng))
        halves.append(image)
    return np.where(inside[..., None], halves[0], halves[1]).astype(np.float32)


def to_bytes(scene: Scene) -> NDArray[np.uint8]:
    """Draws the scene as an 8-bit picture [64, 64, 3]."""
    return np.rint(render(scene) * 255).astype(np.uint8)


def _background(rng: Generator) -> Image:
    """A two-colour gradient, one of eight textures, and light from one side."""
    first, second = (_random_colour(rng) for _ in range(2))
    angle, light = rng.uniform(0, 2 * np.pi, size=2)
    blend = 0.5 + 0.5 * np.clip(_X * np.cos(angle) + _Y * np.sin(angle), -1, 1)
    image = first + (second - first) * blend[..., None]
    texture = _TEXTURES[int(rng.integers(len(_TEXTURES)))](rng)
    shade = 1 + rng.uniform(0.1, 0.3) * texture
    shade += rng.uniform(0.1, 0.3) * (_X * np.cos(light) + _Y * np.sin(light))
    return np.clip(image * shade[..., None], 0, 1).astype(np.float32)


def _waves(x: Plane, rng: Generator, low: float, high: float) -> Plane:
    return np.sin(x * rng.uniform(low, high) + rng.uniform(0, 2 * np.pi))


def _turned(rng: Generator) -> tuple[Plane, Plane]:
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    return _X * cos + _Y * sin, _Y * cos - _X * sin


def _stripes(rng: Generator) -> Plane:
    return _waves(_turned(rng)[0], rng, 8, 20)


def _checks(rng: Generator) -> Plane:
    x, y = _turned(rng)
    return np.sign(_waves(x, rng, 8, 16) * _waves(y, rng, 8, 16))


def _dots(rng: Generator) -> Plane:
    x, y = _turned(rng)
    return np.where(_waves(x, rng, 10, 18) * _waves(y, rng, 10, 18) > 0.4, 1.0, -0.4)


def _circles(rng: Generator) -> Plane:
    x, y = rng.uniform(-1, 1, size=2)
    return _waves(np.hypot(_X - x, _Y - y), rng, 10, 22)


def _ripples(rng: Generator) -> Plane:
    x, y = _turned(rng)
    return _waves(x + 0.2 * _waves(y, rng, 4, 9), rng, 8, 16)


def _clouds(rng: Generator) -> Plane:
    planes = [_waves(_turned(rng)[0], rng, 2, 9) for _ in range(5)]
    return np.sum(planes, axis=0) / 2.5


def _rays(rng: Generator) -> Plane:
    x, y = rng.uniform(-1, 1, size=2)
    return np.sin(np.arctan2(_Y - y, _X - x) * int(rng.integers(5, 14)))


def _plain(rng: Generator) -> Plane:
    return np.zeros_like(_X)


_TEXTURES: tuple[Callable[[Generator], Plane], ...] = (
    _stripes,
    _checks,
    _dots,
    _circles,
    _ripples,
    _clouds,
    _rays,
    _plain,
)


def _random_colour(rng: Generator) -> NDArray[np.float32]:
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.25, 0.95))
    return np.array(rgb, np.float32)


def _tint(colour: str, rng: Generator) -> NDArray[np.float32]:
    """A shade of a named colour."""
    return np.clip(np.array(COLOURS[colour]) + rng.uniform(-0.06, 0.06, 3), 0, 1).astype(np.float32)


def _unnamed(image: Image, rng: Generator) -> None:
    """Paints a blob or a stroke that no caption mentions."""
    x, y = rng.uniform(-1, 1, size=2)
    if rng.random() < 0.5:
        lobes, phase, size = rng.integers(2, 7), rng.uniform(0, 2 * np.pi), rng.uniform(0.12, 0.4)
        radius, angle = np.hypot(_X - x, _Y - y), np.arctan2(_Y - y, _X - x)
        distance = radius - size * (1 + rng.uniform(0, 0.5) * np.sin(lobes * angle + phase))
    else:
        angle, length, width = rng.uniform(0, np.pi), rng.uniform(0.3, 1.2), rng.uniform(0.04, 0.12)
        along = (_X - x) * np.cos(angle) + (_Y - y) * np.sin(angle)
        across = (_Y - y) * np.cos(angle) - (_X - x) * np.sin(angle)
        distance = np.hypot(np.maximum(np.abs(along) - length, 0), across) - width
    _paint(image, distance, _random_colour(rng))


def _paint(image: Image, distance: Plane, colour: NDArray[np.float32]) -> None:
    """Fills where the signed distance is negative, with an antialiased edge."""
    cover = np.clip(0.5 - distance / _EDGE, 0, 1)[..., None]
    image += cover * (colour - image)


def _place(
    rng: Generator,
    region: NDArray[np.bool_],
    index: int,
    places: dict[int, tuple[float, float]],
    relation: str | None,
) -> tuple[float, float]:
    """A centre inside the region, away from other things, that honours the relation if it can."""
    rows, columns = np.nonzero(region)
    picks = rng.integers(len(rows), size=48)
    xs, ys = _axis[columns[picks]], _axis[rows[picks]]
    cost = np.maximum(np.abs(xs), np.abs(ys)).clip(0.7) * 4
    for other, (x, y) in places.items():
        cost += 3 * np.maximum(0.6 - np.hypot(xs - x, ys - y), 0)
        if relation and {index, other} == {0, 1}:
            down = (ys - y) if index == 1 else (y - ys)  # how far the second lies below the first
            wanted = {"above": down, "below": -down, "beside": 0.3 - np.abs(down)}[relation]
            cost += 6 * np.maximum(0.25 - wanted, 0)
    best = int(np.argmin(cost))
    return float(xs[best]), float(ys[best])


def _shape(kind: str, rng: Generator, centre: tuple[float, float]) -> Plane:
    """Signed distance (negative inside) of a thing with random size and rotation."""
    size, angle = rng.uniform(0.2, 0.32), rng.uniform(-0.4, 0.4)
    x, y = (_X - centre[0]) / size, (_Y - centre[1]) / size
    cos, sin = np.cos(angle), np.sin(angle)
    return _SHAPES[kind](x * cos + y * sin, y * cos - x * sin) * size


def _polygon(x: Plane, y: Plane, sides: int, apothem: float) -> Plane:
    angles = np.arange(sides) * 2 * np.pi / sides + np.pi / 2
    return np.max([x * np.cos(a) + y * np.sin(a) - apothem for a in angles], axis=0)


# Unit-size shapes: distance of the point (x, y), y downwards.
_SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "disc": lambda x, y: np.hypot(x, y) - 0.9,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.8,
    "triangle": lambda x, y: _polygon(x, y, 3, 0.55),
    "star": lambda x, y: np.hypot(x, y) - 0.65 - 0.35 * np.sin(5 * np.arctan2(y, x) - np.pi / 2),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.75) - 0.22,
    "cross": lambda x, y: np.minimum(
        np.maximum(np.abs(x) - 1, np.abs(y) - 0.3), np.maximum(np.abs(x) - 0.3, np.abs(y) - 1)
    ),
    "heart": lambda x, y: np.hypot(x, y + 0.65 * np.sqrt(np.abs(x) + 1e-3) - 0.35) - 0.85,
    "moon": lambda x, y: np.maximum(np.hypot(x, y) - 0.95, 0.85 - np.hypot(x - 0.5, y)),
    "diamond": lambda x, y: (np.abs(x) * 1.6 + np.abs(y) - 1) / 1.9,
    "hexagon": lambda x, y: _polygon(x, y, 6, 0.8),
    "leaf": lambda x, y: np.maximum(np.hypot(x, y - 0.7), np.hypot(x, y + 0.7)) - 1.15,
    "fan": lambda x, y: np.maximum(np.hypot(x, y - 0.4) - 1.05, y - 0.4),
}
