"""The gate compares a written graph with the original tower, every output and deepstack level by itself.

A graph can be wrong without an error: a wrong patch order or a lost level still gives plausible numbers. So the export
runs every graph in onnxruntime, as the device will, and compares it on every pack of export.gate.packs before it
publishes.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from contract.errors import ParityError
from contract.manifest import WEIGHTS
from edge_runtime.tower.mapped_pages import given_back
from edge_runtime.tower.session_options import session_options
from export.gate.bounds import Gate
from export.gate.cores import each_on_a_core, torch_on_one_core
from export.gate.oracle import FIRST_BLOCKS, Oracle, Outputs, level_name
from export.gate.packs import Pack, flop, name, pixels
from export.graph.tower import Tower
from export.progress import Done, quiet

Ask = Callable[[NDArray[np.uint8], NDArray[np.int64]], Outputs]


@dataclass(frozen=True)
class Row:
    """One output on one pack.

    Attributes:
        scale: the root mean square of the original's output on this pack.
        max_abs_error: max |got - expected|; relative_error: the same over `scale`.
        min_cosine, mean_cosine: over the token rows. All four are None where the shape is wrong or a value is not
            finite.
        centred_min_cosine, centred_mean_cosine: the same after both lost the original's mean row; None also where there
            is one row only. A manifest does not hold them.
    """

    pack: str
    output: str
    scale: float
    max_abs_error: float | None
    relative_error: float | None
    min_cosine: float | None
    mean_cosine: float | None
    centred_min_cosine: float | None = None
    centred_mean_cosine: float | None = None

    def passes(self, gate: Gate) -> bool:
        least, mean = self.min_cosine, self.mean_cosine
        if gate.is_centred:
            least, mean = self.centred_min_cosine, self.centred_mean_cosine
        if self.relative_error is None or least is None or mean is None:
            return False
        is_close = gate.max_relative_error is None or self.relative_error <= gate.max_relative_error
        return is_close and least >= gate.min_cosine and mean >= gate.mean_cosine

    def worst_cosine(self, gate: Gate) -> float:
        """The cosine of the worst row, of the gate's kind; below all others where there is none."""
        least = self.centred_min_cosine if gate.is_centred else self.min_cosine
        return -math.inf if least is None else least

    def facts(self) -> dict[str, Any]:
        """What a manifest holds of the row."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("centred_")}


def compare(pack: str, output: str, expected: NDArray[np.float32], got: NDArray[np.float32]) -> Row:
    """Compare two arrays (N, H). A wrong shape or a value that is not finite gives a row that passes no gate."""
    wide = expected.astype(np.float64)
    scale = float(np.sqrt(np.mean(wide**2)))
    if got.shape != expected.shape or not np.isfinite(got).all():
        return Row(pack, output, scale, None, None, None, None)
    other = got.astype(np.float64)
    error = float(np.abs(wide - other).max())
    cosines = _cosines(wide, other)
    relative = error / scale if scale else math.inf
    figures = error, relative, float(cosines.min()), float(cosines.mean())
    if len(wide) == 1:  # its own mean
        return Row(pack, output, scale, *figures)
    mean = wide.mean(0)
    centred = _cosines(wide - mean, other - mean)
    return Row(pack, output, scale, *figures, float(centred.min()), float(centred.mean()))


def _cosines(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cosine of each pair of rows, (N,)."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: NDArray[np.float64] = (left * right).sum(1) / np.maximum(norms, 1e-300)
    return cosines


def answers(tower: Tower, oracle: Ask, packs: tuple[Pack, ...], done: Done = quiet) -> list[Outputs]:
    """What the original answers to every pack, all at once, so that the caller can drop it before it loads the graph.

    Args:
        oracle: takes patches uint8 (num_patches, patch_width) and grid_thw int64 (num_items, 3).
        done: hears of each pack that ends.
    """

    def answer(seed: int) -> Outputs:
        return oracle(pixels(tower, packs[seed], seed), np.array(packs[seed], np.int64))

    costs = [flop(tower, pack) for pack in packs]
    with torch_on_one_core():
        return each_on_a_core(answer, costs, lambda seed, _: done(costs[seed], name(packs[seed])))


def first_level_answers(tower: Tower, oracle: Oracle, packs: tuple[Pack, ...], done: Done = quiet) -> list[Outputs]:
    """`answers` of the first deepstack level alone. These packs are large, so each has all cores."""
    found = []
    for seed, pack in enumerate(packs):
        found.append(oracle.first_level(pixels(tower, pack, seed), np.array(pack, np.int64), tower.num_first_blocks))
        done(flop(tower, pack, tower.num_first_blocks), name(pack))
    return found


def measure(
    graph: Path | onnx.ModelProto,
    tower: Tower,
    expected: list[Outputs],
    packs: tuple[Pack, ...],
    note: Callable[[str], None] = lambda _: None,
    done: Done = quiet,
    folder: Path | None = None,
    use_kernels: bool = False,
) -> list[Row]:
    """Run a graph with onnxruntime on the CPU and compare it with the original's answers to the packs.

    Returns:
        the rows, in the order of the packs.

    Args:
        graph: a file, or a model cut behind its first level, whose weights lie in `folder`.
        expected: the original's outputs for each pack.
        note: takes a line of the table for each pack, in the order in which the packs end.
        done: hears of each pack that ends.
        folder: where the weights of a cut model lie; None for a file.
        use_kernels: run this processor's own operators instead of the functions in the graph.

    Raises:
        ParityError: the graph has another number of deepstack levels than the original.
    """
    import onnxruntime

    is_whole = folder is None
    options = session_options(1 if is_whole else 0, use_kernels=use_kernels)
    source: Path | bytes = graph if isinstance(graph, Path) else graph.SerializeToString()
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    weights = graph.with_name(f"{graph.name}.data") if isinstance(graph, Path) else (folder or Path()) / WEIGHTS
    with given_back(weights):
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names, num_blocks = ["image_embeds", "deepstack_embeds"], None if is_whole else tower.num_first_blocks

    def compared(seed: int) -> list[Row]:
        pack, original = packs[seed], expected[seed]
        feeds = {"patches": pixels(tower, pack, seed), "grid_thw": np.array(pack, np.int64)}
        main, deepstack = session.run(names, feeds)  # (N, H), (L, N, H)
        got = {"image_embeds" if is_whole else FIRST_BLOCKS: main} | {
            level_name(i): rows for i, rows in enumerate(deepstack)
        }
        if is_whole and got.keys() != original.keys():
            raise ParityError(
                f"the graph has {len(got) - 1} deepstack levels, the original {len(original) - 1}. Nothing was published: report it, and name the checkpoint"
            )
        return [compare(name(pack), output, original[output], got[output]) for output in original]

    def told(seed: int, rows: list[Row]) -> None:
        note(line(rows))
        done(costs[seed], name(packs[seed]))

    costs = [flop(tower, pack, num_blocks) for pack in packs]
    if is_whole:
        return sum(each_on_a_core(compared, costs, told), list[Row]())
    found = list[Row]()
    for seed in range(len(packs)):
        told(seed, rows := compared(seed))
        found += rows
    return found


HEADER = f"{'pack':<40} {'rel. error':>11} {'1 - cosine':>11} {'1 - centred':>11}  per output: worst of main and levels"


def line(rows: list[Row]) -> str:
    """The line of one pack in the table under HEADER."""
    errors = [math.inf if row.relative_error is None else row.relative_error for row in rows]
    cosines = [-math.inf if row.min_cosine is None else row.min_cosine for row in rows]
    centred = [row.centred_min_cosine for row in rows if row.centred_min_cosine is not None]
    lost = f"{max(0.0, 1 - min(centred)):.2e}" if centred else "-"
    each = " ".join(f"{error:.1e}" for error in errors)
    return f"{rows[0].pack:<40} {max(errors):>11.2e} {max(0.0, 1 - min(cosines)):>11.2e} {lost:>11}  {each}"


def summary(rows: list[Row]) -> dict[str, Any]:
    """The worst figures of rows that passed, for one line of JSON."""
    return {
        "packs": len({row.pack for row in rows}),
        "rows": len(rows),
        "max_relative_error": max((row.relative_error for row in rows if row.relative_error is not None), default=None),
        "mean_cosine": min((row.mean_cosine for row in rows if row.mean_cosine is not None), default=None),
        "min_cosine": min((row.min_cosine for row in rows if row.min_cosine is not None), default=None),
        "centred_mean_cosine": min(
            (row.centred_mean_cosine for row in rows if row.centred_mean_cosine is not None), default=None
        ),
        "centred_min_cosine": min(
            (row.centred_min_cosine for row in rows if row.centred_min_cosine is not None), default=None
        ),
    }


def require(rows: list[Row], precision: str, gate: Gate, report: Path) -> None:
    """Hold the rows against the gate of a precision.

    Raises:
        ParityError: a row misses the gate; `require` has then written all rows into the file `report`.
    """
    failed = [row for row in rows if not row.passes(gate)]
    if not failed and rows:
        report.unlink(missing_ok=True)
        return
    facts = {"precision": precision, "gate": asdict(gate), "rows": [asdict(row) for row in rows]}
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(facts, indent=2) + "\n")
    worst = min(failed, key=lambda row: row.worst_cosine(gate))
    raise ParityError(
        f"{len(failed)} of {len(rows)} comparisons miss the {precision} gate ({gate}); the "
        f"worst is {worst.output} on {worst.pack}: "
        f"relative error {worst.relative_error}, cosine {worst.min_cosine}, mean {worst.mean_cosine}; centred "
        f"{worst.centred_min_cosine}, mean {worst.centred_mean_cosine}. Nothing was published: read "
        f"{report}, and export with another precision or report it"
    )
