"""`python -m benchmarks.device_reports` writes the table of docs/device-reports.md from benchmarks/reports/*.json.

Each file there is what `edge_runtime bench --report` wrote on somebody's device, as it came.
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "benchmarks" / "reports"
PAGE = ROOT / "docs" / "device-reports.md"
BEGIN, END = "<!-- begin table -->\n", "<!-- end table -->\n"
HEAD = (
    "processor", "cores", "kernels", "ran", "precision", "weights", "grid", "encode", "first embedding", "peak memory",
    "of the ceiling", "onnxruntime",
)  # fmt: skip


def row(report: dict[str, Any]) -> list[str]:
    """The cells of one report."""
    kernels = report["own_kernels"] or "none"
    kernels += ", tiles" if report["has_matrix_tiles"] else ""
    memory = report["peak_rss_bytes"]
    return [
        report["processor"],
        f"{report['threads'] or report['cores']} of {report['cores']}",
        kernels + (", bf16" if report["multiplies_bf16"] else ""),
        " and ".join(report["ran"]),
        report["precision"],
        f"{report['weight_bytes'] / 1e6:.0f} MB",
        " x ".join(map(str, report["grid_thw"])),
        f"{report['encode_ms']:.0f} ms",
        f"{report['first_embedding_ms']:.0f} ms",
        "unknown" if memory is None else f"{memory / 2**20:.0f} MiB",
        f"{report['share_of_ceiling']:.2f}",
        report["onnxruntime"],
    ]


def table(reports: list[dict[str, Any]]) -> str:
    """A row a report, in order of processor, weights and grid."""
    order = sorted(reports, key=lambda one: (one["processor"], one["weight_bytes"], one["grid_thw"], one["precision"]))
    lines = [list(HEAD), ["---"] * len(HEAD), *map(row, order)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def page(text: str) -> str:
    """The page's text with the table of today's reports."""
    before, rest = text.split(BEGIN)
    reports = [json.loads(path.read_text()) for path in sorted(REPORTS.glob("*.json"))]
    return f"{before}{BEGIN}\n{table(reports)}\n{END}{rest.split(END)[1]}"


def main() -> None:
    PAGE.write_text(page(PAGE.read_text()))
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
