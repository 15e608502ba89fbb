"""Three pictures in one: latency against accuracy, the roofline of this CPU, and cost against pixels."""

from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.edge.engines import ENGINES

PIXELS = {"256": 256**2, "512": 512**2, "768": 768**2, "1024": 1024**2}
STYLES = {
    "ours": ("o", "-"),
    "OpenVINO": ("s", "--"),
    "llama.cpp": ("^", "--"),
    "transformers": ("v", "--"),
    "torch.compile": ("D", "--"),
}
COLOURS = colormaps["tab20"].colors  # type: ignore[attr-defined]
EXACT = 1e-7  # the lowest loss that the axis shows


def _look(name: str) -> dict[str, Any]:
    """Marker and line by maker, colour by engine."""
    marker, line = STYLES[name.split()[0]]
    return {"marker": marker, "linestyle": line, "color": COLOURS[list(ENGINES).index(name)], "label": name}


def _accuracy(axis: Axes, engines: dict[str, Any], size: str) -> None:
    for name, cells in engines.items():
        if size in cells:
            loss = max(1 - cells[size]["cosine"]["mean"], EXACT)
            axis.plot(cells[size]["wall_ms"], loss, **_look(name))
            if loss > EXACT:  # exact ones would lie over one another; the legend names them
                axis.annotate(name, (cells[size]["wall_ms"], loss), (4, 4), textcoords="offset points", fontsize=7)
    axis.set(xscale="log", yscale="log", xlabel=f"ms at {size}", ylabel="1 - mean cosine, worst level")


def _roofline(axis: Axes, engines: dict[str, Any], result: dict[str, Any]) -> None:
    """Plot speed over operations for each byte of the file, which an engine reads once a picture."""
    edges = []
    for name, cells in engines.items():
        file_bytes = 1e6 * result["engines"][name]["file_mb"]
        points = [(1e12 * result["tflop"][size] / file_bytes, cell["gflops"]) for size, cell in cells.items()]
        axis.plot(*zip(*sorted(points), strict=True) if points else ([], []), markersize=4, **_look(name))
        edges += [x for x, _ in points]
    left, right = result["memory_gb_per_s"] / 10, 2 * max(edges, default=1e4)
    for name, peak in result["peaks_gflops"].items():
        corner = peak / result["memory_gb_per_s"]
        axis.plot([left, corner, right], [left * result["memory_gb_per_s"], peak, peak], "k-", linewidth=0.8)
        axis.annotate(f"peak of {name}", (corner, peak), (2, 3), textcoords="offset points", fontsize=7)
    axis.set(xscale="log", yscale="log", xlabel="FLOP for each byte of weights", ylabel="GFLOP/s")


def _cost(axis: Axes, engines: dict[str, Any]) -> None:
    for name, cells in engines.items():
        points = sorted((PIXELS[size] / 1e6, cell["wall_ms"]) for size, cell in cells.items() if size in PIXELS)
        axis.plot(*zip(*points, strict=True) if points else ([], []), **_look(name))
    axis.set(xscale="log", yscale="log", xlabel="million pixels", ylabel="ms")


def draw(result: dict[str, Any], path: Path) -> None:
    """Write a PNG of what `python -m benchmarks.edge` found."""
    figure = Figure((19, 6), layout="constrained")
    accuracy, roof, cost = figure.subplots(1, 3)
    found = {name: engine.get("sizes", {}) for name, engine in result["engines"].items()}
    timed = {name: {s: c for s, c in cells.items() if "wall_ms" in c} for name, cells in found.items()}
    _accuracy(accuracy, timed, "512" if "512" in result["tflop"] else next(iter(result["tflop"])))
    _roofline(roof, timed, result)
    _cost(cost, timed)
    figure.legend(*cost.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.suptitle(f"{result['machine']}, {result['threads']} threads, {result['depth']} layers of the 2B shape")
    figure.savefig(path, dpi=90, metadata={"Software": None})
