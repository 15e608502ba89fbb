#!/usr/bin/env bash
# torch: interpolate with antialiasing resizes to one column otherwise than to one row.
#
# A bilinear resize treats its two axes alike: whoever swaps rows and columns before and after it gets the same numbers.
# With antialias=True and an output of one column a CPU gives others. SigLIP 2 (NaFlex) resizes its table of positions
# so, which hits tall and narrow pictures.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6" 1>&2
"$folder/env/bin/python" - <<'PYTHON'
import torch
from torch.nn.functional import interpolate

table = torch.arange(16 * 16, dtype=torch.float32).reshape(1, 1, 16, 16).repeat(1, 64, 1, 1)


def resized(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return interpolate(values, size=size, mode="bilinear", antialias=True, align_corners=False)


def difference(height: int, width: int) -> float:
    """The largest difference between a resize and the same resize with rows and columns swapped."""
    swapped = resized(table.transpose(2, 3), (width, height)).transpose(2, 3)
    return (resized(table, (height, width)) - swapped).abs().max().item()


print(f"torch {torch.__version__}: the largest difference of a resize from the same one with rows and columns swapped")
print("expected: rounding, for every size")
found = {size: difference(*size) for size in ((32, 2), (2, 32), (32, 1))}
for (height, width), far in found.items():
    print(f"16 x 16 to {height} x {width}: {far:.4g}, of values up to 255")
assert found[32, 2] < 1e-3 and found[2, 32] < 1e-3, "several rows and columns changed, too"
assert found[32, 1] > 1, "one column is right now: the workaround can go"
PYTHON
