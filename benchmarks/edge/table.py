"""The results as Markdown: time, accuracy, and what each engine takes."""

from typing import Any


def _grid(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def _time(cell: dict[str, Any]) -> str:
    if "wall_ms" not in cell:
        return "error" if "error" in cell else "-"
    return f"{cell['wall_ms']:.0f} ({cell['cpu_ms']:.0f})"


def _speed(cell: dict[str, Any]) -> str:
    return f"{cell['gflops']:.0f} ({100 * cell['share_of_peak']:.0f} %)" if "gflops" in cell else "-"


def _accuracy(cell: dict[str, Any]) -> list[str]:
    levels = [f"{level['mean']:.6f}" for level in cell["cosine"]["levels"]]
    return [*levels, f"{cell['cosine']['lowest']:.6f}"]


def table(result: dict[str, Any]) -> str:
    """Markdown of what `python -m benchmarks.edge` found; errors stand below, engine by engine."""
    sizes = list(result["tflop"])
    engines = {name: engine for name, engine in result["engines"].items() if "error" not in engine}
    cells = {name: [engine["sizes"].get(size, {}) for size in sizes] for name, engine in engines.items()}
    compared = next((size for size in ("512", *sizes) if size in sizes), None)
    accuracy = {name: engine["sizes"].get(compared, {}) for name, engine in engines.items()}
    num_levels = max((len(c["cosine"]["levels"]) for c in accuracy.values() if "cosine" in c), default=1)
    peaks = ", ".join(f"{name} {value:.0f}" for name, value in result["peaks_gflops"].items())
    lines = [
        f"{result['machine']}; {result['threads']} threads; {result['depth']} layers of the 2B tower's shape, random "
        "weights with loud channels; a video is 16 frames of 256 x 256.",
        "",
        "Milliseconds, median (of the CPU):",
        "",
        *_grid(["", *sizes], [[name, *map(_time, row)] for name, row in cells.items()]),
        "",
        f"GFLOP/s (share of the peak of its operands: {peaks}):",
        "",
        *_grid(["", *sizes], [[name, *map(_speed, row)] for name, row in cells.items()]),
        "",
        f"Mean cosine against float32 per level, and the lowest of any row, at {compared}:",
        "",
        *_grid(
            ["", "main", *[f"level {number}" for number in range(1, num_levels)], "lowest"],
            [[name, *_accuracy(cell)] for name, cell in accuracy.items() if "cosine" in cell],
        ),
        "",
        "What it takes; peaks are of one call:",
        "",
        *_grid(
            ["", "file, MB", "load, s", "loaded, MiB", *[f"peak at {size}, MiB" for size in sizes], "settings"],
            [
                [name, *(f"{engine[key]:g}" for key in ("file_mb", "load_s", "rss_mib"))]
                + [f"{cell['peak_mib']}" if "peak_mib" in cell else "-" for cell in cells[name]]
                + [engine["settings"]]
                for name, engine in engines.items()
            ],
        ),
    ]
    errors = {name: engine["error"] for name, engine in result["engines"].items() if "error" in engine}
    for name, engine in engines.items():
        errors |= {f"{name}, {size}": row["error"] for size, row in engine["sizes"].items() if "error" in row}
    lines += ["", *(f"- {name}: {error}" for name, error in errors.items())] if errors else []
    for row in result.get("preparation", []):
        lines += ["", f"A JPEG of {row['side']} x {row['side']} decoded, brought to 512 x 512 and cut into patches: "]
        lines[-1] += f"{row['ms']} ms on one core, {100 * row['share']:.1f} % of encoding it in int8."
    if flight := result.get("in_flight"):
        lines += [
            "",
            f"{flight['engine']} at {flight['size']}, pictures a second: {flight['one_process_per_s']} one after",
        ]
        lines[-1] += f" the other on all cores, {flight['process_per_core_per_s']} with a process on each."
    return "\n".join(lines) + "\n"
