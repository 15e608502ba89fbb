"""What the codec klt reaches on the bundled model, by how many pictures teach it.

The pictures and their questions are drawn from the model's own distribution. Three of four teach, the others judge
(export.codec): another picture of the same kinds, never one that taught.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.result import add_out, finish
from export.codec import export_codec
from export.progress import Progress
from tiny_model.pictures import write_pictures

MODEL = Path(__file__).parents[1] / "models" / "tiny"
SEED = 4243


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn klt for the bundled model.")
    parser.add_argument("--pictures", type=int, nargs="+", default=[400, 1600])
    add_out(parser)
    args = parser.parse_args()
    rows = []
    for count in args.pictures:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_pictures(folder / "pictures", count, SEED)
            command = [sys.executable, "-m", "export.vision", str(MODEL), str(folder / "bundle")]
            subprocess.run(command, check=True, capture_output=True)
            learnt = export_codec(str(MODEL), folder / "bundle", folder / "pictures", Progress(sys.stderr))
        rows.append({key: value for key, value in asdict(learnt).items() if key != "bundle"})
    finish({"benchmark": "klt", "machine": machine(), "model": "models/tiny", "rows": rows}, args.out)


if __name__ == "__main__":
    main()
