"""The two optimizers of a training run, and the learning rate that both follow."""

import math

import torch


class Optimizers:
    """Muon for the matrices inside the blocks, AdamW for the rest, under one warm-up and cosine."""

    def __init__(self, named: list[tuple[str, torch.nn.Parameter]], lr: float, muon_lr: float) -> None:
        matrices, others = [], []
        for name, parameter in named:
            is_inner = parameter.ndim == 2 and "embed" not in name and "dense_head" not in name
            (matrices if is_inner else others).append(parameter)
        self.optimizers = [
            torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.peaks = (muon_lr, lr)
        self.parameters = [p for _, p in named]

    def step(self, loss: torch.Tensor, step: int, progress: float) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        factor = min(step / 100, 1.0) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
