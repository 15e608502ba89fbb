"""python -m export.codec MODEL BUNDLE --pictures DIR: learn the codec `klt` for one checkpoint, into its bundle."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from export import command, extra
from export.progress import Progress

if TYPE_CHECKING:
    from export.upload.codec_export import CodecExport


def export_codec(
    model: str, bundle: Path, folder: Path, progress: Progress | None = None, seed: int = 0
) -> "CodecExport":
    """Learn `klt` and write it into a bundle.

    Args:
        model: the whole checkpoint, a folder or hub id.
        bundle: an edge bundle of it, with codec numbers.
        folder: the pictures; NAME.txt beside a picture has its questions, one a line.
        progress: where the export reports; None reports nowhere.
        seed: of the noise in the learning.

    Raises:
        BundleError: the bundle is damaged or has no codec numbers.
        FingerprintMismatch: the bundle belongs to another tower.
        InvalidInput: the folder has no pictures, or one cannot be read.
        MissingExtra: torch or transformers is not installed.
        ParityError: no step passes the gate, or too few answer tokens judge; the bundle is as it was.
        OSError: the disk is full; the bundle is as it was.
    """
    extra.require("export.codec", "torch", "transformers")
    from export.upload.codec_export import write_codec

    return write_codec(model, bundle, folder, progress or Progress(), seed)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code, one of export.command's."""
    arguments = command.parser(
        "export.codec", "Learn the codec klt for a checkpoint.", "BUNDLE", "its edge bundle, which gets the codec"
    )
    arguments.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="needed: pictures like those that will travel; NAME.txt beside NAME.png has questions, one a line")  # fmt: skip
    args = arguments.parse_args(argv)

    def work() -> None:
        result = export_codec(args.model, Path(args.out), args.pictures, Progress(sys.stdout))
        if args.json:
            print(json.dumps(asdict(result)))

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
