"""
A sheet to draw on, measured in pixels from the top left, in Grafana's dark colours.
"""

from __future__ import annotations

import functools

from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import matplotlib as mpl

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image


__all__ = [
    "BACKGROUND",
    "BORDER",
    "COLOURS",
    "FAINT",
    "GRID",
    "LEFT",
    "PANEL",
    "RIGHT",
    "SERIES",
    "TEXT",
    "Align",
    "Sheet",
    "shortened",
    "width_of",
]


BACKGROUND: Final = "#111217"
PANEL: Final = "#181b1f"
BORDER: Final = "#2a2d33"
GRID: Final = "#2b2f35"
TEXT: Final = "#ccccdc"
FAINT: Final = "#8e8e9c"

COLOURS: Final = {
    "green": "#73bf69",
    "yellow": "#fade2a",
    "orange": "#ff9830",
    "red": "#f2495c",
    "dark-red": "#c4162a",
    "blue": "#5794f2",
    "light-blue": "#8ab8ff",
    "purple": "#b877d9",
    "text": TEXT,
}
"""
What Grafana's names of colours look like.
"""

SERIES: Final = (
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a",
    "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477", "#b7dbab", "#f4d598", "#70dbed", "#f9ba8f",
)  # fmt: skip
"""
The colours that Grafana gives to series, one after the other.
"""

_Rgb: TypeAlias = tuple[float, float, float]

Align: TypeAlias = Literal["left", "center", "right"]
LEFT: Final = "left"
RIGHT: Final = "right"

_DPI: Final = 100
_POINT: Final = 72 / _DPI
"""
A pixel in points, which sizes of fonts and lines are told in.
"""


class Sheet:
    """
    A figure of a width and a height in pixels.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=BACKGROUND)
        self._canvas = FigureCanvasAgg(self.figure)

    def axes(self, x: float, y: float, width: float, height: float, *, label: str = "") -> Axes:
        """
        Make a place for something that has axes of its own.
        """
        place = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place, label=label, zorder=2)  # Boxes lie below, texts above.

    def box(self, x: float, y: float, width: float, height: float, colour: str, *, edge: str = "none", alpha: float = 1) -> None:
        """
        Fill a rectangle.
        """
        place = (x / self.width, 1 - (y + height) / self.height)
        self.figure.add_artist(
            Rectangle(place, width / self.width, height / self.height, facecolor=colour, edgecolor=edge, linewidth=_POINT, alpha=alpha)
        )

    def line(self, x: float, y: float, width: float, colour: str = GRID) -> None:
        """
        Draw a line to the right.
        """
        ends = [x / self.width, (x + width) / self.width]
        self.figure.add_artist(Line2D(ends, [1 - y / self.height] * 2, color=colour, linewidth=_POINT))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 11,
        colour: str = TEXT,
        align: Align = LEFT,
        weight: Literal["normal", "bold"] = "normal",
        most: float | None = None,
    ) -> None:
        """
        Write *text* with its middle at the height *y*, shortened to *most* pixels.
        """
        shown = text if most is None else shortened(text, size, most, weight)
        # A dollar is no mathematics here.
        self.figure.text(
            x / self.width, 1 - y / self.height, shown, fontsize=size * _POINT, color=colour, ha=align, va="center_baseline",
            fontweight=weight, parse_math=False,
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """
        Write a small PNG: with a palette, and without a date in it.
        """
        self._canvas.draw()
        size = self._canvas.get_width_height()
        picture = Image.frombuffer("RGBA", size, bytes(self._canvas.buffer_rgba()), "raw", "RGBA", 0, 1).convert("RGB")
        picture.quantize(palette=_palette(), dither=Image.Dither.NONE).save(path, optimize=True)


@functools.lru_cache(maxsize=4096)
def width_of(text: str, size: float, weight: str = "normal") -> float:
    """
    Tell how many pixels wide *text* is.
    """
    with mpl.rc_context({"text.parse_math": False}):
        width, _, _ = _measure().get_text_width_height_descent(text, FontProperties(size=size * _POINT, weight=weight), ismath=False)
    return float(width)


@functools.lru_cache(maxsize=1)
def _measure() -> Any:
    return FigureCanvasAgg(Figure(dpi=_DPI)).get_renderer()


def shortened(text: str, size: float, most: float, weight: str = "normal") -> str:
    """
    Cut *text* to *most* pixels, with an ellipsis where something is missing.
    """
    if width_of(text, size, weight) <= most:
        return text
    for end in range(len(text) - 1, 0, -1):
        if width_of(text[:end] + "…", size, weight) <= most:
            return text[:end] + "…"
    return "…"


@functools.lru_cache(maxsize=1)
def _palette() -> Image.Image:
    """
    Mix what we draw with from what lies below it: a palette that is made for each picture takes rare colours for frequent ones.
    """
    colours = dict.fromkeys([*SERIES, *COLOURS.values()])
    mixed = [_mix(to_rgb(colour), to_rgb(PANEL), part) for colour in colours for part in (1.0, 0.8, 0.6)]
    mixed += [_mix(to_rgb(colour), to_rgb(PANEL), part) for colour in (TEXT, FAINT, GRID, BORDER) for part in (1.0, 0.6, 0.3)]
    flat = [round(255 * channel) for colour in (to_rgb(BACKGROUND), to_rgb(PANEL), *mixed) for channel in colour]
    palette = Image.new("P", (1, 1))
    palette.putpalette(flat[: 3 * 256])
    return palette


def _mix(colour: _Rgb, below: _Rgb, part: float) -> tuple[float, ...]:
    return tuple(part * above + (1 - part) * under for above, under in zip(colour, below, strict=True))
