"""python -m export.vision MODEL OUT: the edge bundle of a checkpoint.

Reads only the tower, writes the graph, proves it against the original and publishes the folder whole or not at all.
"""

import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError, InvalidInput
from contract.files import published
from contract.fingerprint import GRAPH_VERSION
from contract.manifest import CHAT_TEMPLATE, GRAPH, INTEGERS, PRECISIONS, TOKENIZER, Manifest
from contract.manifest import NAME as MANIFEST
from export import command, extra
from export.place import check_place
from export.progress import WRITE_FLOP, Done, Progress
from export.source.hub import local_folder

if TYPE_CHECKING:
    from export.graph.tower import Tower
    from export.integers.balance import Read
    from export.plan import Plan
    from export.source.checkpoint import Checkpoint

LIBRARIES = ("torch", "transformers", "onnx", "onnxruntime")


@dataclass(frozen=True)
class VisionExport:
    """What an export gave: the folder, its encoder, the graph's size, the seconds of each stage, the worst parity figures."""

    bundle: str
    fingerprint: str
    precision: str
    nodes: int
    seconds: float
    stages: dict[str, float]
    parity: dict[str, Any]


def export_vision(
    model: str,
    out: Path,
    precision: str = PRECISIONS[0],
    progress: Progress | None = None,
    calibration: Path | None = None,
) -> VisionExport:
    """Write the edge bundle of `model`, a folder or hub id, to `out`.

    Args:
        calibration: a folder of pictures for the integer precisions; None takes drawn ones.

    Raises:
        BundleError: the checkpoint is incomplete, damaged or of another family.
        InvalidInput: out must not be replaced or has no room, or calibration holds no pictures or is not used by this
            precision.
        OSError: the disk is full all the same; nothing is left behind.
        ParityError: the graph misses its gate; nothing is published, the rows are in `out` + .parity-failed.json.
        MissingExtra: torch, transformers or onnx is not installed.
    """
    _require_extra()
    from export.gate import parity
    from export.gate.oracle import Oracle
    from export.gate.packs import first_level_packs_for, packs_for
    from export.gate.picture import NAME as PICTURE
    from export.gate.picture import draw_parity
    from export.graph.builder import OPSET
    from export.graph.first_level import first_level_graph
    from export.graph.linear import LINEARS
    from export.graph.loop import write_graph
    from export.integers import balance
    from export.integers import calibration as calibrating
    from export.integers.rotation import Rotation
    from export.integers.sensitivity import kept_layers
    from export.source.checkpoint import HAS_OUTER_VIDEO_WRAPPER

    progress, started = progress or Progress(), time.monotonic()
    is_integer = precision in INTEGERS
    if calibration is not None and not is_integer:
        raise InvalidInput(f"--calibration is for {' and '.join(INTEGERS)}, precision is {precision}")
    checkpoint, tower, plan = _checked(model, out, precision, progress)
    progress.plan(plan.costs)
    with progress.stage("checkpoint") as done:
        template, image, card = checkpoint.chat_template, checkpoint.image, checkpoint.card
        done(plan.costs["checkpoint"], "fingerprint")
    progress.note(f"fingerprint {card.encoder_fingerprint}")

    with published(out) as work:
        packs, largest = packs_for(tower), first_level_packs_for(tower)
        with progress.stage("original") as done:
            oracle = Oracle(checkpoint.config, image, list(checkpoint.tower_shapes), checkpoint.tower_tensor)
            pictures = list(calibrating.batches(calibration, image, card)) if is_integer else []
            peaks = oracle.input_peaks(balance.balanced_layers(tower), pictures) if is_integer else {}
            expected = parity.answers(tower, oracle, packs, done)
            expected_largest = parity.first_level_answers(tower, oracle, largest, done)
            del oracle  # its memory is the next one's
        read: Read = checkpoint.tower_tensor
        factors, kept, quantisation = {}, (), dict[str, Any]()
        if is_integer:
            factors = balance.factors(peaks, read)
            read = balance.divided(Rotation(tower, read), factors)
            prepared = Oracle(checkpoint.config, image, list(checkpoint.tower_shapes), read)
            prepared.multiply_inputs(factors)
            kept = kept_layers(tower, prepared, min(pictures, key=lambda batch: len(batch[0])))
            del prepared
            source = calibrating.describe(calibration, pictures)
            quantisation = {"calibration": source, "kept_fp16": list(kept), "balanced_layers": len(factors)}
            progress.note(f"calibration on {calibration or 'drawn pictures'}; in fp16 stay {', '.join(kept)}")
        with progress.stage("graph") as done:
            num_nodes = write_graph(tower, _counted(read, done), image, work / GRAPH, LINEARS[precision], factors, kept)
        num_bytes = sum(path.stat().st_size for path in work.iterdir())
        progress.note(f"graph       {num_nodes} nodes, {num_bytes / 1e6:.1f} MB, {precision}")
        with progress.stage("parity") as done:
            progress.note(f"parity      against transformers {version('transformers')}\n{parity.HEADER}")

            rows = parity.measure(work / GRAPH, tower, expected, packs, progress.note, done)
            if largest:
                cut = first_level_graph(work / GRAPH, tower.num_first_blocks)
                rows += parity.measure(cut, tower, expected_largest, largest, progress.note, done, folder=work)
        parity.require(rows, precision, out.with_name(out.name + ".parity-failed.json"))
        worst = parity.summary(rows)
        progress.note(f"parity      {worst['rows']} comparisons on {worst['packs']} packs pass")
        draw_parity(rows, precision, work / PICTURE)
        shutil.copyfile(checkpoint.folder / TOKENIZER, work / TOKENIZER)
        (work / CHAT_TEMPLATE).write_text(template, encoding="utf-8")
        Manifest(
            card=card,
            image=image,
            video=checkpoint.video,
            has_outer_video_wrapper=HAS_OUTER_VIDEO_WRAPPER,
            precision=precision,
            opset=OPSET,
            graph_version=GRAPH_VERSION,
            libraries={name: version(name) for name in LIBRARIES},
            parity=[asdict(row) for row in rows],
            quantisation=quantisation,
        ).write(work)
    progress.note(f"published   {out}")
    seconds = round(time.monotonic() - started, 3)
    return VisionExport(str(out), card.encoder_fingerprint, precision, num_nodes, seconds, progress.seconds, worst)


def plan_vision(model: str, out: Path, precision: str = PRECISIONS[0], progress: Progress | None = None) -> "Plan":
    """What `export_vision` would cost; reads configuration and headers, writes nothing.

    Raises:
        as export_vision, for all that can be known without reading the tower.
    """
    _require_extra()
    return _checked(model, out, precision, progress or Progress())[2]


def _counted(read: "Read", done: Done) -> "Read":
    """`read`, telling what each tensor costs to write."""

    def reading(name: str) -> NDArray[np.float32]:
        values = read(name)
        done(WRITE_FLOP * values.nbytes, name)
        return values

    return reading


def _require_extra() -> None:
    extra.require("export.vision", "torch", "transformers", "onnx")


def _checked(model: str, out: Path, precision: str, progress: Progress) -> tuple["Checkpoint", "Tower", "Plan"]:
    """Everything that can be refused before the first tensor is read."""
    from export.graph.tower import Tower
    from export.plan import Plan
    from export.source.checkpoint import Checkpoint, tower_name

    if precision not in PRECISIONS:
        raise BundleError(f"precision is {precision!r}, {', '.join(PRECISIONS)} can be exported")
    checkpoint = Checkpoint(local_folder(model, lambda name: tower_name(name) is not None))
    check_place(out, checkpoint.folder, MANIFEST)
    tower = Tower.from_config(checkpoint.config)
    tower.check(checkpoint.tower_shapes)
    _ = checkpoint.chat_template, checkpoint.image, checkpoint.video  # raise where they are missing
    if not (tokenizer := checkpoint.folder / TOKENIZER).is_file():
        raise BundleError(f"{tokenizer} does not exist: the device needs it")
    plan = Plan.of(tower, precision)
    family = checkpoint.config["model_type"]
    progress.note(f"checkpoint  {checkpoint.folder}: {family}, {len(checkpoint.tower_shapes)} tower tensors\n{plan}")
    plan.require_disk(out)
    return checkpoint, tower, plan


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = command.parser("export.vision", "Write the edge bundle of a Qwen3-VL checkpoint.")
    arguments.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0])
    arguments.add_argument("--calibration", type=Path, metavar="DIR", help="pictures for int8 and int4; default: drawn")
    arguments.add_argument(
        "--dry-run", action="store_true", help="check the checkpoint, print sizes and memory, write nothing"
    )
    args = arguments.parse_args(argv)

    def work() -> None:
        progress, out = Progress(sys.stdout), Path(args.out)
        if args.dry_run:
            result: Plan | VisionExport = plan_vision(args.model, out, args.precision, progress)
        else:
            result = export_vision(args.model, out, args.precision, progress, args.calibration)
        if args.json:
            print(json.dumps(asdict(result)))

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
