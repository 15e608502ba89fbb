"""Half-precision weights stay halves on a plain Armv8 processor: a tower of 107 million parameters, emulated.

The emulator's own memory is in the figures, so what a process holds for itself is compared with what it held before.
"""

import json
from pathlib import Path

import pytest

from benchmarks.edge_memory import write_bundle
from benchmarks.random_checkpoint import COMMON, SHAPES, write_checkpoint
from tests.arm.machine import ArmMachine
from tests.conftest import CHECKPOINT

SHAPE = COMMON | {"depth": 4, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [1], "out_hidden_size": 2048}  # fmt: skip
SCRIPT = """
import json, re, sys
import numpy as np
from edge_runtime import Encoder
from edge_runtime.items.item import Item

def own_bytes():  # pages that are no file's
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

before = own_bytes()
encoder = Encoder.from_bundle(sys.argv[1], threads=1)
loaded = own_bytes()
rows = encoder.encode([Item(np.zeros((16, encoder.bundle.manifest.card.patch_width), np.uint8), (1, 4, 4))]).image_embeds
print(json.dumps({"load": loaded - before, "encode": own_bytes() - before, "rows": len(rows)}))
"""


def test_half_precision_weights_are_read_where_they_lie(
    arm: ArmMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies in float32 would be twice the weights."""
    monkeypatch.setitem(SHAPES, "some", SHAPE)
    write_checkpoint(tmp_path / "model", CHECKPOINT, "some")
    weight_bytes = write_bundle(tmp_path / "model", tmp_path / "bundle", "fp16")
    assert weight_bytes > 200e6
    told = json.loads(arm.python("cortex-a72", "-c", SCRIPT, tmp_path / "bundle"))
    assert told["rows"] == 4
    assert max(told["load"], told["encode"]) < weight_bytes / 2, told
