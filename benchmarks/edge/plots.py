"""Three pictures in one: latency against accuracy, speed against this CPU's peaks, and cost against pixels."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

PIXELS = {"256": 256**2, "512": 512**2, "768": 768**2, "1024": 1024**2}


def draw(result: dict[str, Any], path: Path) -> None:
    """Write a PNG of what `python -m benchmarks.edge` found."""
    figure = Figure((18, 5.2), layout="constrained")
    accuracy, roof, cost = figure.subplots(1, 3)
    size = "512" if "512" in result["tflop"] else next(iter(result["tflop"]))
    for name, engine in result["engines"].items():
        cells = {s: c for s, c in engine.get("sizes", {}).items() if "wall_ms" in c}
        marker = "o" if name.startswith("ours") else "s"
        if size in cells:
            loss = max(1 - cells[size]["cosine"]["mean"], 1e-8)
            accuracy.plot(cells[size]["wall_ms"], loss, marker, label=name)
            accuracy.annotate(name, (cells[size]["wall_ms"], loss), fontsize=8)
        for axis, field in ((roof, "gflops"), (cost, "wall_ms")):
            found = [(PIXELS[s] / 1e6, c[field]) for s, c in cells.items() if s in PIXELS]
            axis.plot(*zip(*sorted(found), strict=True) if found else ([], []), marker=marker, label=name)
    for name, peak in result["peaks_gflops"].items():
        roof.axhline(peak, linestyle="--", linewidth=0.8, color="grey")
        roof.annotate(f"peak of {name}", (0.06, peak), fontsize=8)
    accuracy.set(xscale="log", yscale="log", xlabel=f"ms at {size}", ylabel="1 - mean cosine, worst level")
    roof.set(xscale="log", yscale="log", xlabel="million pixels", ylabel="GFLOP/s")
    cost.set(xscale="log", yscale="log", xlabel="million pixels", ylabel="ms")
    cost.legend(fontsize=8)
    figure.suptitle(f"{result['machine']}, {result['threads']} threads, {result['depth']} layers of the 2B shape")
    figure.savefig(path, dpi=90, metadata={"Software": None})
