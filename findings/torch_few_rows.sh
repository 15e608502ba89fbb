#!/usr/bin/env bash
# torch on a CPU: a float32 linear layer takes far longer for 8 rows than for one; the same product turned round does not.
#
# The weights must come from memory either way, so 1 to 8 rows should take nearly the same time: that is what makes a
# server answer eight streams at once. `linear(rows, weight)` takes much longer for 8 rows, and `mm(weight, rows.T)`, which
# computes the same numbers, does not. MKL computes both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6" 1>&2
cd "$folder"
OMP_NUM_THREADS=1 "$folder/env/bin/python" - <<'PYTHON'
import platform
import statistics
import time

import torch

IN, OUT, LAYERS, ROUNDS = 1024, 4096, 24, 9  # 400 MB of weights, so that no cache holds them from one round to the next
torch.manual_seed(0)
weights = [torch.randn(OUT, IN) / 32 for _ in range(LAYERS)]
one, eight = torch.randn(1, IN), torch.randn(8, IN)
ways = {
    "linear, 1 row": lambda weight: torch.nn.functional.linear(one, weight),
    "linear, 8 rows": lambda weight: torch.nn.functional.linear(eight, weight),
    "mm(weight, rows), 8 rows": lambda weight: torch.mm(weight, eight.t()).t(),
}
assert torch.allclose(ways["linear, 8 rows"](weights[0]), ways["mm(weight, rows), 8 rows"](weights[0]), atol=1e-4)
taken = {name: [] for name in ways}
with torch.inference_mode():
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            for weight in weights:
                way(weight)
            taken[name].append(time.perf_counter() - begun)
ms = {name: 1e3 * statistics.median(seconds[1:]) / LAYERS for name, seconds in taken.items()}
pairs = zip(taken["linear, 8 rows"][1:], taken["mm(weight, rows), 8 rows"][1:])
ratio = statistics.median(own / turned for own, turned in pairs)
print(f"torch {torch.__version__}, {platform.machine()}, MKL {torch.backends.mkl.is_available()}, one thread")
for name, value in ms.items():
    print(f"{name:26} {value:.2f} ms a layer of {OUT} x {IN}")
print("expected: nearly the same time for 8 rows, in either order")
print(f"seen: the layer's own order takes {ratio:.2f} times the other's")
assert ratio > 1.2, "torch's own order is as fast here now, or on this processor"
PYTHON
