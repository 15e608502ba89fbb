"""`make npu`: what accelerators cost in answers, on the bundled model: each target's toolchain answers the pictures in
its emulator, its simulator or on this processor.

It measures no speed: none of them is the chip.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.answers import MODEL, Answers, Rows
from benchmarks.machine import machine
from contract.static_graph import WEIGHTS
from export.gate import parity
from export.graph.data_file import DataFile
from export.graph.tower import Read
from export.integers.rotation import Rotation
from export.source.checkpoint import Checkpoint
from export.static import pictures, proof
from export.static.graph import write_static_graph
from export.static.grid import Grid, grids_of
from export.static.publication import INTEGERS
from export.static.target import BY_NAME
from export.targets.conversion import ToolchainError, convert
from export.targets.environment import REQUIREMENTS
from tiny_model.batches import Item, draw_item

SIDE = 128
CAPTION = "| target | precision | chip | 1 - centred cosine, mean | worst row | gate | bytes | changed tokens / 1000 | changed answers / 1000 |"  # fmt: skip


def as_rows(outputs: Sequence[NDArray[np.float32]]) -> Rows:
    """Main (N, H) and levels (L, N, H) of a static graph's outputs."""
    main, *levels = (rows[0] for rows in outputs)
    return main, np.stack(levels)


class Source:
    """The bundled model's tower at one size, and the folder of its graphs."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint, self.folder = Checkpoint(MODEL), folder
        self.tower = self.checkpoint.family.tower(self.checkpoint.facts)
        (self.grid,) = grids_of(f"{SIDE}x{SIDE}", self.tower)
        found = pictures.grid_pictures(None, self.checkpoint.image, self.checkpoint.card, self.grid)
        self.calibration = found.calibrating

    def graph(self, name: str, read: Read) -> Path:
        """Write a float graph of the tower's tensors, or of rotated ones."""
        place = self.folder / name
        place.mkdir()
        path, grid = place / f"static_{self.grid}.onnx", self.grid
        with DataFile(place / WEIGHTS) as data:
            write_static_graph(self.checkpoint.family, self.tower, read, self.checkpoint.image, grid, path, data)
        return path


def drawn_items(count: int, grid: Grid) -> list[Item]:
    """Pictures of the size with their questions."""
    random = Random(20_261_130)
    items = [draw_item(random, ("shapes", "text")[i % 2], SIDE, SIDE) for i in range(count)]
    assert all(item.grid == (1, grid.height, grid.width) for item in items)
    return items


def measured(
    source: Source,
    graphs: dict[bool, Path],
    asked: list[NDArray[np.uint8]],
    expected: list[list[NDArray[np.float32]]],
    answers: Answers,
    target: str,
    precision: str,
) -> dict[str, Any]:
    """One row of the table, for the target's first chip."""
    chip = next(iter(BY_NAME[target].chips), "")
    facts: dict[str, Any] = {"target": target, "precision": precision, "chip": chip}
    graph, names = graphs[precision in INTEGERS], proof.output_names(source.tower)
    calibrating = source.calibration if precision in INTEGERS else []
    first = len(calibrating)
    place = source.folder / f"{target}_{precision}_{chip}"
    place.mkdir()
    try:
        made = convert(
            target, graph, [*calibrating, *asked], names, precision, chip, place, print, num_calibration=first
        )
    except ToolchainError as error:
        return facts | {"error": str(error)}
    compared = proof.against_float(precision, expected, made.answers[first:])
    worst = parity.summary(compared)
    files = [*place.iterdir()] if made.file else [*graph.parent.iterdir()]
    return facts | {
        "toolchain": made.toolchain,
        "centred_mean_cosine": worst["centred_mean_cosine"],
        "centred_min_cosine": worst["centred_min_cosine"],
        "passes": all(row.passes(proof.GATES[precision]) for row in compared),
        "bytes": sum(path.stat().st_size for path in files),
        **asdict(answers.cost([as_rows(outputs) for outputs in made.answers[first:]])),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    lines = [CAPTION, "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        head = f"| {row['target']} | {row['precision']} | {row['chip'] or 'any'} |"
        if "error" in row:
            lines.append(f"{head} failed | | | | | |")
            continue
        lines.append(
            f"{head} {1 - row['centred_mean_cosine']:.1e} | {1 - row['centred_min_cosine']:.1e} | "
            f"{'passes' if row['passes'] else 'misses'} | {row['bytes']:,} | {row['changed_per_thousand']} | "
            f"{row['answers_changed_per_thousand']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy of accelerators on the bundled model.")
    parser.add_argument("--targets", nargs="+", default=sorted(REQUIREMENTS), choices=sorted(REQUIREMENTS))
    parser.add_argument("--pictures", type=int, default=10, help="pictures with their questions")
    parser.add_argument("--out", type=Path, help="also write the JSON here, and the table beside it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        source = Source(Path(name))
        items = drawn_items(args.pictures, source.grid)
        read = source.tower.reader(source.checkpoint.tower_tensor)
        graphs = {False: source.graph("float", read), True: source.graph("rotated", Rotation(source.tower, read))}
        asked = [item.patches for item in items]
        expected = proof.static_answers(graphs[False], asked)
        answers = Answers(items, [as_rows(outputs) for outputs in expected])
        largest = proof.largest_residual(graphs[False], source.tower, asked)
        rows = [
            measured(source, graphs, asked, expected, answers, target, precision)
            for target in args.targets
            for precision in BY_NAME[target].precisions
        ]
    result = {
        "benchmark": "npu",
        "model": MODEL.name,
        "machine": machine(),
        "size": f"{SIDE}x{SIDE}",
        "items": len(items),
        "answer_tokens": answers.num_tokens,
        "largest_residual": round(largest, 1),
        "rows": rows,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")
        args.out.with_suffix(".md").write_text(table(rows) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
