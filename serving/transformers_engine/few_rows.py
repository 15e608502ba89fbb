"""float32 products of a few rows on a CPU, the step of a few streams: weights times rows, not rows times weights.

MKL, which computes torch's float32 products, repacks the weights where 4 to 32 rows stand on the left: eight rows then
take three times as long as one. With the weights on the left they take less than twice as long.
"""

from functools import partial
from typing import Any

import torch

FEW = range(4, 33)  # rows; fewer or more are as fast or faster in torch's own order


def weights_first(*models: torch.nn.Module | None) -> None:
    """Give each plain float32 linear layer of these models on a CPU the forward of this module."""
    for model in models:
        for layer in model.modules() if model is not None else ():
            is_plain = type(layer) is torch.nn.Linear
            if is_plain and (layer.weight.dtype, layer.weight.device.type) == (torch.float32, "cpu"):
                layer.forward = partial(_product, layer)


def _product(layer: Any, rows: torch.Tensor) -> torch.Tensor:
    """What the layer gives for rows (..., in): (..., out)."""
    if rows.numel() // rows.shape[-1] not in FEW:
        return torch.nn.functional.linear(rows, layer.weight, layer.bias)
    turned = rows.reshape(-1, rows.shape[-1]).t()  # (in, n)
    if layer.bias is None:
        product = torch.mm(layer.weight, turned)  # (out, n)
    else:
        product = torch.addmm(layer.bias[:, None], layer.weight, turned)
    return product.t().contiguous().view(*rows.shape[:-1], -1)
