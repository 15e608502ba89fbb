"""transformers' own tower, eager or compiled."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Qwen3VLConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel, Qwen3VLVisionRotaryEmbedding

from benchmarks.edge import weights
from benchmarks.edge.engines import Grid, Patches, Rows, pixel_values

PREFIX = "model.visual."
Item = tuple[torch.Tensor, torch.Tensor]  # pixels (patches, width) in the tower's type, grid (1, 3)


def load_tower(folder: Path, dtype: torch.dtype) -> Qwen3VLVisionModel:
    """The tower of a checkpoint. Its rotary frequencies stay float32, as transformers has them."""
    config = Qwen3VLConfig.from_pretrained(folder).vision_config
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        tower = Qwen3VLVisionModel(config)
    tensors = load_file(folder / "model.safetensors")
    state = {name.removeprefix(PREFIX): rows.to(dtype) for name, rows in tensors.items() if name.startswith(PREFIX)}
    tower.load_state_dict(state, assign=True)
    tower.rotary_pos_emb = Qwen3VLVisionRotaryEmbedding(config)
    return tower.eval().requires_grad_(False)


class Torch:
    """The tower with scaled_dot_product_attention; a variant compiles it block by block, once a size."""

    def __init__(self, folder: Path, threads: int, dtype: torch.dtype, is_compiled: bool) -> None:
        torch.set_num_threads(threads)
        self._dtype, self._tower = dtype, load_tower(folder, dtype)
        self.file_bytes = (folder / "model.safetensors").stat().st_size
        if is_compiled:
            for block in self._tower.blocks:
                block.compile(dynamic=False)

    def lay_out(self, patches: Patches, grid: Grid) -> Item:
        return torch.from_numpy(pixel_values(patches)).to(self._dtype), torch.tensor([grid])

    def __call__(self, item: Item) -> tuple[Rows, Rows]:
        with torch.inference_mode():
            out = self._tower(item[0], grid_thw=item[1])
            levels = torch.stack([level.float() for level in out.deepstack_features])
            return out.pooler_output.float().numpy(), levels.numpy()


def load(cache: Path, depth: int, threads: int, variant: str) -> Torch:
    dtype, _, how = variant.partition(" ")
    return Torch(weights.checkpoint(cache, depth), threads, getattr(torch, dtype), how == "compiled")
