"""Quantised layers as the common methods store them, and the weights that they stand for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.export.tiny_checkpoint import change_json

SINGLE = "model.safetensors"
Stored = dict[str, torch.Tensor]
Quantise = Callable[[str, torch.Tensor], tuple[Stored, torch.Tensor]]  # what is stored, and what it stands for
GROUP = 32  # input values that share a scale
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the value that AWQ puts at each place of an int32
WEIGHTS = {"num_bits": 4, "type": "int", "group_size": GROUP, "strategy": "group", "symmetric": True}


def fp8_blocks(name: str, weight: torch.Tensor) -> tuple[Stored, torch.Tensor]:
    """A scale for each 128 x 128 values, so that the largest of them is the largest of the type."""
    rows, columns = weight.shape
    scales = torch.zeros(-(-rows // 128), -(-columns // 128))
    values = weight.to(torch.float8_e4m3fn)
    found = weight.clone()
    for row in range(scales.shape[0]):
        for column in range(scales.shape[1]):
            block = (slice(128 * row, 128 * (row + 1)), slice(128 * column, 128 * (column + 1)))
            scales[row, column] = scale = weight[block].abs().max() / 448
            values[block] = (weight[block] / scale).to(torch.float8_e4m3fn)
            found[block] = values[block].float() * scale
    return {f"{name}.weight": values, f"{name}.weight_scale_inv": scales}, found


def nf4(name: str, weight: torch.Tensor) -> tuple[Stored, torch.Tensor]:
    """bitsandbytes: two values a byte, one scale for 64 of them. Nothing here reads them, so all are zero."""
    state = torch.zeros(64, dtype=torch.uint8)
    return {
        f"{name}.weight": torch.zeros(weight.numel() // 2, 1, dtype=torch.uint8),
        f"{name}.weight.absmax": torch.ones(-(-weight.numel() // 64)),
        f"{name}.weight.quant_map": torch.linspace(-1, 1, 16),
        f"{name}.weight.quant_state.bitsandbytes__nf4": state,
    }, torch.zeros_like(weight)


def codes(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes 0 to 15 around 8 (out, in), a scale for each group (out, groups), and the weights that they stand for."""
    rows, columns = weight.shape
    groups = weight.reshape(rows, columns // GROUP, GROUP)
    scales = (groups.abs().amax(-1, keepdim=True) / 7).to(torch.bfloat16).float()
    found = (groups / scales).round().clamp(-8, 7)
    return (found + 8).int().reshape(rows, columns), scales[..., 0], (found * scales).reshape(rows, columns)


def in_int32(values: torch.Tensor) -> torch.Tensor:
    """Eight codes along the last axis in one int32, the first in the lowest bits."""
    places = values.reshape(*values.shape[:-1], -1, 8).long() << torch.arange(0, 32, 4)
    total = places.sum(-1)
    return torch.where(total >= 2**31, total - 2**32, total).to(torch.int32)


def packed(name: str, weight: torch.Tensor) -> tuple[Stored, torch.Tensor]:
    """compressed-tensors."""
    values, scales, found = codes(weight)
    return {
        f"{name}.weight_packed": in_int32(values),
        f"{name}.weight_scale": scales.to(torch.bfloat16),
        f"{name}.weight_shape": torch.tensor(weight.shape),
    }, found


def gptq(name: str, weight: torch.Tensor) -> tuple[Stored, torch.Tensor]:
    """Packed along the input; the zero point 8 is stored as 7."""
    values, scales, found = codes(weight)
    rows, columns = weight.shape
    return {
        f"{name}.qweight": in_int32(values).T,
        f"{name}.qzeros": in_int32(torch.full((columns // GROUP, rows), 7)),
        f"{name}.scales": scales.T.to(torch.float16),
        f"{name}.g_idx": torch.arange(columns, dtype=torch.int32) // GROUP,
    }, found


def awq(name: str, weight: torch.Tensor) -> tuple[Stored, torch.Tensor]:
    """Packed along the output, in AWQ's order."""
    values, scales, found = codes(weight)
    rows, columns = weight.shape
    ordered = values.T.reshape(columns, rows // 8, 8)[..., list(AWQ_ORDER)].reshape(columns, rows)
    return {
        f"{name}.qweight": in_int32(ordered),
        f"{name}.qzeros": in_int32(torch.full((columns // GROUP, rows), 8)),
        f"{name}.scales": scales.T.to(torch.float16),
    }, found


# By quant_method: how a layer is stored, and the rest of quantization_config.
METHODS: dict[str, tuple[Quantise, dict[str, Any]]] = {
    "fp8": (fp8_blocks, {"weight_block_size": [128, 128], "activation_scheme": "dynamic"}),
    "bitsandbytes": (nf4, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
    "compressed-tensors": (
        packed,
        {"format": "pack-quantized", "config_groups": {"group_0": {"weights": WEIGHTS, "targets": ["Linear"]}}},
    ),
    "gptq": (gptq, {"bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}),
    "awq": (awq, {"bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}),
    "modelopt": (fp8_blocks, {"quant_algo": "FP8"}),
}


def quantise(model: Path, method: str) -> Stored:
    """Store the linear layers of a folder's language model as `method` does; the tower stays as it is. Returns the
    weights of these layers as they now are."""
    store, config = METHODS[method]
    stored: Stored = {}
    found: Stored = {}
    for name, tensor in load_file(model / SINGLE).items():
        if tensor.ndim == 2 and "_proj" in name and ".visual." not in name:
            parts, found[name] = store(name.removesuffix(".weight"), tensor.float())
            stored |= parts
        else:
            stored[name] = tensor
    save_file({name: value.contiguous() for name, value in stored.items()}, model / SINGLE, {"format": "pt"})
    change_json(model / "config.json", quantization_config={"quant_method": method, **config})
    return found


def quantised(method: str) -> Callable[[Path], None]:
    """The layout of a checkpoint whose language model is quantised with `method`."""

    def change(model: Path) -> None:
        quantise(model, method)

    return change
