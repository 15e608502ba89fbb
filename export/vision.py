"""python -m export.vision MODEL OUT: the edge bundle of a checkpoint.

The export reads only the tower, writes the graph, proves it against the original and publishes the folder whole or not
at all.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import InvalidInput, shown
from contract.manifest import PRECISIONS
from export import command, extra
from export.progress import Progress
from export.static.choice import StaticChoice
from export.static.target import EXPORTED

if TYPE_CHECKING:
    from export.edge_bundle import VisionExport
    from export.plan import Plan


def export_vision(
    model: str,
    out: Path,
    precision: str = PRECISIONS[0],
    progress: Progress | None = None,
    calibration: Path | None = None,
    adapter: Path | None = None,
    static: StaticChoice | None = None,
) -> "VisionExport":
    """Write the edge bundle of `model`, a folder or hub id, to `out`. For an embedding model it is the bundle that
    edge_runtime.embedder.Embedder opens.

    Args:
        precision: one of contract.manifest.PRECISIONS.
        progress: where the export reports; None reports nowhere.
        calibration: a folder of pictures for the upload's codecs and the integer precisions; None takes drawn ones. An
            embedding model needs none.
        adapter: a LoRA folder of PEFT's layout, which the export merges into the tower's weights; an embedding model
            ignores it.
        static: the sizes and the accelerator of graphs for one picture size each, which the bundle then holds, too.

    Raises:
        BundleError: the checkpoint is incomplete or damaged, or its family or the precision is unknown; the
            accelerator's compiler would refuse the graph.
        InvalidInput: the export must not replace `out`, the disk has no room, or calibration holds no pictures.
        OSError: the disk is full although the export checked its free space; it leaves nothing behind.
        ParityError: the graph misses its gate. The export publishes nothing and writes the rows to
            `out` + .parity-failed.json.
        MissingExtra: torch, transformers or onnx is not installed, or model is a hub id and huggingface_hub is not.
    """
    _require_extra()
    from export.edge_bundle import write_bundle
    from export.embedder import model_type_of, write_embedder
    from export.families import EMBEDDERS
    from export.precision import precision_named

    if model_type_of(model) in EMBEDDERS:
        _refuse_options(adapter=adapter, calibration=calibration, static=static.sizes if static else None)
        return write_embedder(model, out, precision_named(precision), progress or Progress())
    return write_bundle(model, out, precision_named(precision), progress or Progress(), calibration, adapter, static)


def plan_vision(
    model: str,
    out: Path,
    precision: str = PRECISIONS[0],
    progress: Progress | None = None,
    adapter: Path | None = None,
    static: StaticChoice | None = None,
) -> "Plan":
    """What `export_vision` would cost. It reads configuration and headers, and writes nothing.

    Raises:
        BundleError, InvalidInput, MissingExtra: as export_vision, where the reason shows without the tower's tensors.
    """
    _require_extra()
    from export.checked_source import plan_bundle
    from export.embedder import model_type_of, plan_embedder
    from export.families import EMBEDDERS

    if model_type_of(model) in EMBEDDERS:
        _refuse_options(adapter=adapter, static=static.sizes if static else None)
        return plan_embedder(model, precision)
    return plan_bundle(model, out, precision, progress or Progress(), adapter, static)


def _refuse_options(**given: Path | str | None) -> None:
    """Refuse the options that have no meaning for an embedding model."""
    for name, value in given.items():
        if value is not None:
            raise InvalidInput(
                f"--{name} is {shown(str(value))}, and an embedding model takes none: merge an adapter into the "
                "checkpoint and export that (merge_and_unload, save_pretrained)"
            )


def _require_extra() -> None:
    extra.require("export.vision", "torch", "transformers", "onnx")


def _add_static(arguments: argparse.ArgumentParser) -> None:
    group = arguments.add_argument_group("graphs of one picture size each, for accelerators")
    group.add_argument("--static", metavar="SIZES", help="HEIGHTxWIDTH in pixels: 448x448,672x672")
    group.add_argument("--target", metavar="NAME", help=f"{', '.join(EXPORTED)} (default onnx)")
    group.add_argument("--target-precision", metavar="P", help="how it computes (default: the target's)")
    group.add_argument("--chip", metavar="NAME", help="the one chip that the files are for, where it matters")


def _static_choice(args: argparse.Namespace) -> StaticChoice | None:
    """The choice of the arguments; None without --static.

    Raises:
        InvalidInput: --static is missing, and one of the others says something about it.
    """
    others = {"target": args.target, "target-precision": args.target_precision, "chip": args.chip}
    if args.static is None:
        for name, value in others.items():
            if value is not None:
                raise InvalidInput(
                    f"--{name} is {shown(value)} without --static: give --static the sizes, such as 448x448"
                )
        return None
    return StaticChoice(args.static, args.target or "onnx", args.target_precision, args.chip)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code, one of export.command's."""
    arguments = command.parser("export.vision", "Write the edge bundle of a checkpoint.")
    arguments.add_argument(
        "--precision", choices=PRECISIONS, default=PRECISIONS[0], help="of the tower's weights (default %(default)s)"
    )
    arguments.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="pictures to fit codecs, int8 and int4 to",
    )
    arguments.add_argument("--dry-run", action="store_true", help="check, print sizes and memory, write nothing")
    command.add_adapter(arguments)
    _add_static(arguments)
    args = arguments.parse_args(argv)

    def work() -> None:
        progress, out, static = Progress(sys.stdout), Path(args.out), _static_choice(args)
        if args.dry_run:
            result: Plan | VisionExport = plan_vision(args.model, out, args.precision, progress, args.adapter, static)
        else:
            result = export_vision(args.model, out, args.precision, progress, args.calibration, args.adapter, static)
        if args.json:
            print(json.dumps(asdict(result)))

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
