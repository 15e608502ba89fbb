"""`python -m benchmarks.pictures` draws every committed picture from its JSON, and the bars of docs/performance.md."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks import load
from benchmarks.edge import plots
from benchmarks.perf_analyzer import Load

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BARS = ROOT / "docs" / "images" / "encode.png"
PROCESSORS = {
    "Zen 3: AVX2": "edge_amd_epyc_avx2",
    "Cascade Lake: AVX-512, VNNI": "edge_intel_xeon_processor_2.50ghz_family_6_model_85_avx512",
    "Zen 5: BF16 too": "edge_amd_epyc_family_26_model_2_avx512",
    "Xeon, model 207: AMX": "edge_intel_xeon_processor_family_6_model_207_avx512",
}
CODECS = ROOT / "docs" / "images" / "codecs.png"
JPEG_BYTES = 128  # a row: the bundled model's pictures as JPEG of quality 90
SIZE, OURS, OTHERS = "512", "#d62728", "#9aa5b8"


def milliseconds(result: dict[str, Any]) -> dict[str, float]:
    """The median of every engine at SIZE, the fastest first."""
    cells = {name: engine.get("sizes", {}).get(SIZE, {}) for name, engine in result["engines"].items()}
    found = {name: cell["wall_ms"] for name, cell in cells.items() if "wall_ms" in cell}
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def draw_bars(results: dict[str, dict[str, Any]], path: Path) -> None:
    """One panel a processor, one bar an engine, ours in colour."""
    figure = Figure((20, 4.6), layout="constrained")
    for axis, (title, result) in zip(figure.subplots(1, len(results)), results.items(), strict=True):
        times = milliseconds(result)
        colours = [OURS if name.startswith("ours") else OTHERS for name in times]
        bars = axis.barh(list(times), list(times.values()), color=colours)
        axis.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.set(title=title, xlabel=f"ms, one picture of {SIZE} x {SIZE}, two threads")
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def draw_codecs(result: dict[str, Any], path: Path) -> None:
    """Bytes a row against answers changed, one point a codec, and the JPEG's bytes."""
    figure = Figure((7, 4.6), layout="constrained")
    axis = figure.subplots()
    axis.set_xscale("log")
    names: dict[tuple[float, float], list[str]] = {}
    for name, row in result["precisions"].items():
        if "bytes_a_row" in row:
            place = row["bytes_a_row"], row["answers_changed_per_thousand"]
            names.setdefault(place, []).append(name.removeprefix("fp32, sent as "))
    for place, same in names.items():
        axis.plot(*place, "o", color=OURS)
        axis.annotate(", ".join(same), place, (0, 7), textcoords="offset points", fontsize=8, rotation=60)
    axis.set_xticks([200, 400, 800, 1600], ["200", "400", "800", "1600"])
    axis.minorticks_off()
    axis.margins(x=0.08, y=0.15)
    axis.axvline(JPEG_BYTES, color=OTHERS, linestyle="--")
    axis.annotate("its JPEG", (JPEG_BYTES, 0.5), (4, 0), textcoords="offset points", fontsize=8, color=OTHERS)
    axis.set(
        xlabel="bytes a row of the bundled model",
        ylabel="answers changed per thousand",
        title=f"{result['answer_tokens']} answer tokens",
    )
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def main() -> None:
    for path in sorted(RESULTS.glob("edge_*.png")):
        result = json.loads(path.with_suffix(".json").read_text())
        if "memory_gb_per_s" in result:  # the first runs did not keep what their roofline needs
            plots.draw(result, path)
    served = json.loads((RESULTS / "load.json").read_text())
    title = load.title(served["grid"], served["max_tokens"])
    load.draw([Load(**row) for row in served["rows"]], title, RESULTS / "load.png")
    draw_codecs(json.loads((RESULTS / "precisions.json").read_text()), CODECS)
    draw_bars({title: json.loads((RESULTS / f"{name}.json").read_text()) for title, name in PROCESSORS.items()}, BARS)


if __name__ == "__main__":
    main()
