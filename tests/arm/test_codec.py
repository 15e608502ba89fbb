"""ecq on emulated Arm processors: streams have the bytes of this machine, and both machines decode each other's."""

import json
from pathlib import Path

import numpy as np
import pytest

from contract.codecs import ecq, native
from tests.arm.machine import ArmMachine
from tests.arm.test_operators import PROCESSORS
from tests.contract.test_codecs import LEVELS, numbers, rows

WIDTH = 256
SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from contract.codecs import ecq, native
from contract.codecs.numbers import read_numbers
from edge_runtime.tower import kernels
folder, said = Path(sys.argv[1]), {}
given = np.load(folder / "given.npz")
levels, stream, steps = given["levels"], given["stream"], given["steps"]
known = read_numbers(folder, levels.shape[2], len(levels) - 1)
for way, library in (("numpy", None), ("kernels", kernels.library())):
    native.load(library)
    assert (native.native() is None) == (way == "numpy")
    found, found_steps = ecq.encode(levels[0], levels[1:], known)
    main, deepstack = ecq.decode(stream, steps, known)
    np.savez(folder / f"{way}.npz", stream=found, steps=found_steps, main=main, deepstack=deepstack)
    said[way] = str(library)
print(json.dumps(said))
"""


@pytest.mark.parametrize(("cpu", "instructions"), PROCESSORS)
def test_streams_have_this_machines_bytes(arm: ArmMachine, tmp_path: Path, cpu: str, instructions: str) -> None:
    known, levels = numbers(1, WIDTH), rows(100, 4, 20, WIDTH)  # loud channels: many values outside the table
    levels[1, 0], levels[2, -1, 5] = 0, 9e6
    known.write(tmp_path)
    native.load(None)
    stream, steps = ecq.encode(levels[0], levels[1:], known)
    main, deepstack = ecq.decode(stream, steps, known)
    np.savez(tmp_path / "given.npz", levels=levels, stream=stream, steps=steps)
    said = json.loads(arm.python(cpu, "-c", SCRIPT, str(tmp_path)))
    assert f".{instructions}." in said["kernels"]
    assert main.shape == (100, WIDTH)
    assert len(deepstack) == LEVELS - 1
    for way in said:
        with np.load(tmp_path / f"{way}.npz") as there:
            expected = {"stream": stream, "steps": steps, "main": main, "deepstack": deepstack}
            for name, value in expected.items():
                np.testing.assert_array_equal(there[name], value, err_msg=f"{way}: {name}")
