"""Line charts side by side in one picture, by matplotlib. It saves no date, so the same data give the same file.

A series has one colour in every panel. Both axes start at 0, so that twice as high is twice as much.
"""

from dataclasses import dataclass
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

COLOURS = colormaps["tab10"]


@dataclass(frozen=True)
class Panel:
    """A title with the unit, and the points (x, y) of every series by its name."""

    title: str
    series: dict[str, list[tuple[float, float]]]


def draw_chart(title: str, x_title: str, panels: list[Panel], path: Path) -> None:
    """Write the panels side by side as a PNG file, 560 x 400 pixels each."""
    figure = Figure((5.6 * len(panels), 4), layout="constrained")
    figure.suptitle(title, fontsize=10)
    names = list(dict.fromkeys(name for panel in panels for name in panel.series))
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, points in panel.series.items():
            axis.plot(
                *zip(*points, strict=True), marker="o", markersize=4, label=name, color=COLOURS(names.index(name))
            )
        axis.set(title=panel.title, xlabel=x_title, xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=100, metadata={"Software": None})
