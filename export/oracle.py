"""transformers' own vision tower, built from the checkpoint's tower tensors alone: what every graph is compared with.

The language model is never constructed. The tower is made without storage and its parameters are put in, so loading
costs one float32 copy of the tower.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.card import deepstack_blocks
from contract.errors import BundleError
from contract.preprocessing import ImageProcessing
from edge_runtime.patches import normalised

Outputs = dict[str, NDArray[np.float32]]
Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]  # patches, grid_thw

# family: package in transformers.models, prefix of its class names
CLASSES = {
    "qwen3_vl": "Qwen3VL",
    "qwen3_vl_moe": "Qwen3VLMoe",
    "qwen3_5": "Qwen3_5",
    "qwen3_5_moe": "Qwen3_5Moe",
}


class Oracle:
    """A callable tower in float32, in eval mode."""

    def __init__(
        self,
        config: dict[str, Any],
        image: ImageProcessing,
        names: list[str],
        read: Callable[[str], NDArray[np.float32]],
    ) -> None:
        """
        Args:
            config: config.json of the checkpoint.
            image: how it normalises pixels.
            names, read: the tower-local tensor names, and a reader for one of them.

        Raises:
            BundleError: transformers' tower has other tensors than the checkpoint.
        """
        import torch

        family = config["model_type"]
        package = f"transformers.models.{family}"
        settings = getattr(import_module(f"{package}.configuration_{family}"), f"{CLASSES[family]}VisionConfig")
        modeling = import_module(f"{package}.modeling_{family}")
        vision = settings(**{k: v for k, v in config["vision_config"].items() if k not in ("model_type", "dtype")})
        vision._attn_implementation = "sdpa"
        with torch.device("meta"):
            tower = getattr(modeling, f"{CLASSES[family]}VisionModel")(vision)
        state = {name: torch.from_numpy(read(name)) for name in names}
        try:
            tower.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise BundleError(f"transformers' {family} tower does not take these tensors: {error}") from error
        # Its frequencies are no parameter of the checkpoint: made again, on a real device.
        tower.rotary_pos_emb = getattr(modeling, f"{CLASSES[family]}VisionRotaryEmbedding")(vision)
        self._tower = tower.eval().requires_grad_(False)
        self._mean, self._std = image.mean, image.std
        self._num_first_blocks = 1 + min(deepstack_blocks(config), default=-1)

    def __call__(self, patches: NDArray[np.uint8], grid_thw: NDArray[np.int64]) -> Outputs:
        """patches uint8 (num_patches, width), grid_thw int64 (num_items, 3); one (N, H) array per output."""
        import torch

        pixel_values = torch.from_numpy(normalised(patches, self._mean, self._std))
        with torch.inference_mode():
            out = self._tower(pixel_values, grid_thw=torch.from_numpy(grid_thw))
        levels = {level_name(i): rows.numpy() for i, rows in enumerate(getattr(out, "deepstack_features", ()))}
        return {"image_embeds": out.pooler_output.numpy()} | levels

    def first_level(self, patches: NDArray[np.uint8], grid_thw: NDArray[np.int64]) -> Outputs:
        """The first deepstack level alone, (N, H): the same tower without the blocks behind it."""
        blocks = self._tower.blocks
        self._tower.blocks = blocks[: self._num_first_blocks]
        try:
            return {level_name(0): self(patches, grid_thw)[level_name(0)]}
        finally:
            self._tower.blocks = blocks

    @contextmanager
    def changed(self, compute: Callable[[Any, Any], Any], prefix: str, but: tuple[str, ...] = ()) -> Iterator[None]:
        """Inside the block, linear layers under `prefix` and not under one of `but` answer compute(layer, rows)."""
        import torch

        layers = [
            layer
            for name, layer in self._tower.named_modules()
            if name.startswith(prefix) and not name.startswith(but) and isinstance(layer, torch.nn.Linear)
        ]
        for layer in layers:
            layer.forward = partial(compute, layer)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    def multiply_inputs(self, factors: Mapping[str, NDArray[np.float32]]) -> None:
        """From now on multiply the input channels of these layers, as the graph of a balanced tower does."""
        import torch

        def multiplied(factor: Any) -> Callable[..., Any]:
            return lambda _, inputs: (inputs[0] * factor,)

        for name, factor in factors.items():
            self._tower.get_submodule(name).register_forward_pre_hook(multiplied(torch.from_numpy(factor)))

    def input_peaks(self, layers: list[str], batches: Iterable[Batch]) -> dict[str, NDArray[np.float32]]:
        """Per linear layer the largest magnitude of each input channel over `batches`, float32 (in,)."""
        import torch

        peaks: dict[str, Any] = {}

        def listen(name: str) -> Callable[..., None]:
            def hook(_: Any, inputs: tuple[Any, ...]) -> None:
                peak = inputs[0].reshape(-1, inputs[0].shape[-1]).abs().amax(0)  # (in,)
                peaks[name] = torch.maximum(peaks[name], peak) if name in peaks else peak

            return hook

        handles = [self._tower.get_submodule(name).register_forward_pre_hook(listen(name)) for name in layers]
        for batch in batches:
            self(*batch)
        for handle in handles:
            handle.remove()
        return {name: peaks[name].numpy() for name in layers}


def level_name(level: int) -> str:
    """The name of one deepstack level in a parity report."""
    return f"deepstack_embeds[{level}]"
