"""transformers' own vision tower, made of the checkpoint's tower tensors alone: the gate compares every graph with it.

Nobody builds the language model. `Oracle` makes the tower without storage and puts the parameters in, so it costs one
float32 copy of the tower.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError
from contract.preprocessing import ImageProcessing
from edge_runtime.items.patches import normalised
from export import families

Outputs = dict[str, NDArray[np.float32]]
Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]  # patches, grid_thw

FIRST_BLOCKS = "image_embeds of the first blocks"  # the name of this output in a parity report


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
            config: config.json of the checkpoint, as its family reads it.
            image: how the checkpoint's processor normalises pixels.
            names: the tower-local names of all tensors.
            read: gives one tensor by its name, float32.

        Raises:
            BundleError: transformers' tower has other tensors than the checkpoint.
        """
        import torch

        family = config["model_type"]
        tower = families.find(family).oracle(config)
        state = {name: torch.from_numpy(read(name)) for name in names}
        try:
            tower.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise BundleError(f"transformers' {family} tower does not take these tensors: {error}") from error
        self._tower = tower.eval().requires_grad_(False)
        self._mean, self._std = image.mean, image.std

    def __call__(self, patches: NDArray[np.uint8], grid_thw: NDArray[np.int64]) -> Outputs:
        """patches uint8 (num_patches, patch_width), grid_thw int64 (num_items, 3); the outputs by name, (N, H)."""
        import torch

        pixel_values = torch.from_numpy(normalised(patches, self._mean, self._std))
        with torch.inference_mode():
            out = self._tower(pixel_values, grid_thw=torch.from_numpy(grid_thw))
        levels = {level_name(i): rows.numpy() for i, rows in enumerate(getattr(out, "deepstack_features", ()))}
        return {"image_embeds": out.pooler_output.numpy()} | levels

    def first_level(self, patches: NDArray[np.uint8], grid_thw: NDArray[np.int64], num_blocks: int) -> Outputs:
        """The first deepstack level alone, (N, H), from the tower without the blocks behind it. A tower without levels
        gives what the merger makes of the first `num_blocks` blocks."""
        blocks = self._tower.blocks
        self._tower.blocks = blocks[:num_blocks]
        try:
            main, *levels = self(patches, grid_thw).values()
            return {level_name(0): levels[0]} if levels else {FIRST_BLOCKS: main}
        finally:
            self._tower.blocks = blocks

    @contextmanager
    def changed(self, compute: Callable[[Any, Any], Any], prefix: str, but: tuple[str, ...] = ()) -> Iterator[None]:
        """Inside the block, linear layers whose names begin with `prefix`, but not with one of `but`, answer
        compute(layer, rows)."""
        import torch

        layers = [
            layer
            for name, layer in self._tower.named_modules()
            if name.startswith(prefix) and not name.startswith(but) and isinstance(layer, torch.nn.Linear)
        ]
        before = [layer.forward for layer in layers]
        for layer in layers:
            layer.forward = partial(compute, layer)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer, forward in zip(layers, before, strict=True):
                layer.forward = forward  # type: ignore[method-assign]

    @contextmanager
    def in_float64(self) -> Iterator[None]:
        """Inside the block the tower computes in float64, so that a measurement does not follow the order in which a
        processor sums. It widens one matrix at a time. transformers' code rounds rotated queries and keys to float32 in
        between."""
        import torch

        def widened(layer: Any, rows: Any) -> Any:
            return torch.nn.functional.linear(rows, layer.weight.double(), layer.bias.double())

        modules = [module for module in self._tower.modules() if not isinstance(module, torch.nn.Linear)]
        parameters = [parameter for module in modules for parameter in module.parameters(recurse=False)]
        rms_norms = [module for module in modules if hasattr(module, "variance_epsilon")]
        for parameter in parameters:
            parameter.data = parameter.data.double()
        rotary = self._tower.rotary_pos_emb
        rotary.forward = partial(_angles_in_float64, rotary)
        for norm in rms_norms:
            norm.forward = partial(_rms_in_float64, norm)
        try:
            with self.changed(widened, ""):
                yield
        finally:
            for module in (rotary, *rms_norms):
                del module.forward
            for parameter in parameters:
                parameter.data = parameter.data.float()

    @contextmanager
    def answered(self, outputs: list[Any]) -> Iterator[None]:
        """Inside the block the tower's first blocks answer `outputs`, from block_outputs, and compute nothing."""
        blocks = self._tower.blocks[: len(outputs)]
        for block, output in zip(blocks, outputs, strict=True):
            block.forward = partial(_answer, output)
        try:
            yield
        finally:
            for block in blocks:
                del block.forward

    def block_outputs(self, batch: Batch) -> tuple[Outputs, list[Any]]:
        """What the tower answers, and what each of its blocks answers on the way."""
        outputs = list[Any]()
        handles = [
            block.register_forward_hook(lambda _block, _inputs, output: outputs.append(output))
            for block in self._tower.blocks
        ]
        answer = self(*batch)
        for handle in handles:
            handle.remove()
        return answer, outputs

    def multiply_inputs(self, factors: Mapping[str, NDArray[np.float32]]) -> None:
        """From now on multiply the input channels of these layers by their factors, float32 (in,), as the graph of a
        balanced tower does."""
        import torch

        def multiplied(factor: Any) -> Callable[..., Any]:
            return lambda _, inputs: (inputs[0] * factor,)

        for name, factor in factors.items():
            self._tower.get_submodule(name).register_forward_pre_hook(multiplied(torch.from_numpy(factor)))

    def input_peaks(self, layers: list[str], batches: Iterable[Batch]) -> dict[str, NDArray[np.float64]]:
        """For each linear layer the largest magnitude of each input channel over `batches`, float64 (in,)."""
        import torch

        peaks: dict[str, Any] = {}

        def listen(name: str) -> Callable[..., None]:
            def hook(_: Any, inputs: tuple[Any, ...]) -> None:
                peak = inputs[0].reshape(-1, inputs[0].shape[-1]).abs().amax(0)  # (in,)
                peaks[name] = torch.maximum(peaks[name], peak) if name in peaks else peak

            return hook

        handles = [self._tower.get_submodule(name).register_forward_pre_hook(listen(name)) for name in layers]
        with self.in_float64():
            for batch in batches:
                self(*batch)
        for handle in handles:
            handle.remove()
        return {name: peaks[name].numpy() for name in layers}


def _angles_in_float64(rotary: Any, _rows: Any, position_ids: Any) -> tuple[Any, Any]:
    """transformers' VisionRotaryEmbedding.forward in float64: in float32 its powers, cosines and sines follow the
    processor."""
    import torch

    count = len(rotary.inv_freq)
    inverse = rotary.config.rope_parameters["rope_theta"] ** (torch.arange(count, dtype=torch.float64) / -count)
    angles = position_ids[..., None].double() * inverse
    cosines, sines = (rotary.recomposition_frequencies(part) for part in (angles.cos(), angles.sin()))
    return cosines, sines


def _rms_in_float64(norm: Any, rows: Any) -> Any:
    """transformers' RMSNorm.forward in float64; the original goes through float32."""
    return norm.weight * rows * (rows.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()


def _answer(output: Any, *_inputs: Any, **_options: Any) -> Any:
    return output


def level_name(level: int) -> str:
    """The name of one deepstack level in a parity report."""
    return f"deepstack_embeds[{level}]"
