"""Whether transformers multiplies FP8 weights by the right scales where no GPU does it.

A scale belongs to a block of 128 x 128 values, and the last block of a row or column may be smaller. transformers 5.23
spreads the scales evenly over a weight instead: for 192 rows and two scales it takes blocks of 96 rows, and says nothing
(Fp8Dequantize in integrations/finegrained_fp8.py).
"""

from pathlib import Path

from safetensors import safe_open

from contract.errors import BundleError, shown
from contract.quantisation import quantisation_config, read_config

SCALE = "_scale_inv"  # behind a weight's name


def check_blocks(folder: Path) -> None:
    """Check that whole blocks fill every weight of a checkpoint that has scales.

    Raises:
        BundleError: a weight ends with a part of a block.
    """
    block = (quantisation_config(read_config(folder)) or {}).get("weight_block_size")
    if not isinstance(block, list):
        return  # no FP8, or one scale for a whole weight
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118  it is no mapping
                if not name.endswith(SCALE):
                    continue
                shape = file.get_slice(name.removesuffix(SCALE)).get_shape()
                if any(size % step for size, step in zip(shape[-2:], block, strict=False)):
                    raise BundleError(
                        f"{path}: {shown(name.removesuffix(SCALE))} has shape {shape}, blocks of {list(block)} do not fill "
                        "it, and transformers would give them wrong scales on a CPU: serve it with --engine vllm"
                    )
