"""python -m export.vision MODEL OUT: the edge bundle of a checkpoint.

Reads only the tower, writes the graph, proves it against the original and publishes the folder whole or not at all.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from contract.errors import BundleError, InvalidInput
from contract.files import published
from contract.fingerprint import GRAPH_VERSION
from contract.manifest import CHAT_TEMPLATE, GRAPH, PRECISIONS, TOKENIZER, Manifest
from contract.manifest import NAME as MANIFEST
from export import command, extra
from export.hub import local_folder
from export.place import check_place

INTEGERS = ("int8", "int4")  # precisions that rotate and balance the tower first
LIBRARIES = ("torch", "transformers", "onnx", "onnxruntime")


@dataclass(frozen=True)
class VisionExport:
    """What an export gave: the folder, its encoder, the graph's size, and the worst parity figures."""

    bundle: str
    fingerprint: str
    precision: str
    nodes: int
    seconds: float
    parity: dict[str, Any]


def export_vision(
    model: str,
    out: Path,
    precision: str = PRECISIONS[0],
    progress: Callable[[str], None] = lambda _: None,
    calibration: Path | None = None,
) -> VisionExport:
    """Write the edge bundle of `model`, a folder or hub id, to `out`.

    Args:
        calibration: a folder of pictures for the integer precisions; None takes drawn ones.

    Raises:
        BundleError: the checkpoint is incomplete, damaged or of another family.
        InvalidInput: out must not be replaced, or calibration holds no pictures or is not used by this precision.
        ParityError: the graph misses its gate; nothing is published, the rows are in `out` + .parity-failed.json.
        MissingExtra: torch, transformers, safetensors or onnx is not installed.
    """
    extra.require("export.vision", "torch", "transformers", "safetensors", "onnx")
    from export import balance, parity
    from export import calibration as calibrating
    from export.builder import OPSET
    from export.checkpoint import HAS_OUTER_VIDEO_WRAPPER, Checkpoint, tower_name
    from export.graph import write_graph
    from export.linear import LINEARS
    from export.oracle import Oracle
    from export.packs import packs_for
    from export.picture import NAME as PICTURE
    from export.picture import draw_parity
    from export.rotation import Rotation
    from export.tower import Tower

    if precision not in PRECISIONS:
        raise BundleError(f"precision is {precision!r}, {', '.join(PRECISIONS)} can be exported")
    is_integer = precision in INTEGERS
    if calibration is not None and not is_integer:
        raise InvalidInput(f"--calibration is for {' and '.join(INTEGERS)}, precision is {precision}")
    started = time.monotonic()
    checkpoint = Checkpoint(local_folder(model, lambda name: tower_name(name) is not None))
    check_place(out, checkpoint.folder, MANIFEST)
    tower = Tower.from_config(checkpoint.config)
    tower.check(checkpoint.tower_shapes)
    template, image, video = checkpoint.chat_template, checkpoint.image, checkpoint.video
    if not (tokenizer := checkpoint.folder / TOKENIZER).is_file():
        raise BundleError(f"{tokenizer} does not exist: the device needs it")
    progress(
        f"checkpoint  {checkpoint.folder}: {checkpoint.config['model_type']}, {len(checkpoint.tower_shapes)} tower tensors"
    )
    card = checkpoint.card
    progress(f"fingerprint {card.encoder_fingerprint}")

    with published(out) as work:
        oracle = Oracle(checkpoint.config, list(checkpoint.tower_shapes), checkpoint.tower_tensor)
        read, factors = checkpoint.tower_tensor, {}
        if is_integer:
            batches = calibrating.batches(calibration, image, card)
            factors = balance.factors(oracle.input_peaks(balance.balanced_layers(tower), batches), read)
            read = balance.divided(Rotation(tower, read), factors)
            progress(f"calibration on {calibration or 'drawn pictures'}, {len(factors)} layers balanced")
        packs = packs_for(tower)
        expected = parity.answers(tower, oracle, packs, progress)
        del oracle  # two towers in memory are enough: the session's weights and their packed copy
        num_nodes = write_graph(tower, read, work / GRAPH, LINEARS[precision], factors)
        num_bytes = sum(path.stat().st_size for path in work.iterdir())
        progress(f"graph       {num_nodes} nodes, {num_bytes / 1e6:.1f} MB, {precision}")
        progress(f"parity      against transformers {version('transformers')}\n{parity.HEADER}")
        rows = parity.measure(work / GRAPH, tower, expected, packs, progress)
        parity.require(rows, precision, out.with_name(out.name + ".parity-failed.json"))
        worst = parity.summary(rows)
        progress(f"parity      {worst['rows']} comparisons on {worst['packs']} packs pass")
        draw_parity(rows, precision, work / PICTURE)
        shutil.copyfile(tokenizer, work / TOKENIZER)
        (work / CHAT_TEMPLATE).write_text(template, encoding="utf-8")
        Manifest(
            card=card,
            image=image,
            video=video,
            has_outer_video_wrapper=HAS_OUTER_VIDEO_WRAPPER,
            precision=precision,
            opset=OPSET,
            graph_version=GRAPH_VERSION,
            libraries={name: version(name) for name in LIBRARIES},
            parity=[asdict(row) for row in rows],
        ).write(work)
    progress(f"published   {out}")
    seconds = round(time.monotonic() - started, 3)
    return VisionExport(str(out), card.encoder_fingerprint, precision, num_nodes, seconds, worst)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = command.parser("export.vision", "Write the edge bundle of a Qwen3-VL checkpoint.")
    arguments.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0])
    arguments.add_argument("--calibration", type=Path, metavar="DIR", help="pictures for int8 and int4; default: drawn")
    args = arguments.parse_args(argv)

    def work() -> None:
        result = export_vision(args.model, Path(args.out), args.precision, command.progress, args.calibration)
        if args.json:
            print(json.dumps(asdict(result)))

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
