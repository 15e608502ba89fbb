"""A LoRA adapter in PEFT's layout; the export merges it into each base weight that it reads: W + scale * B A.

The merge needs no PEFT; a test compares every merged tensor with PEFT's merge_and_unload. The export refuses by name
what the sum above does not say: DoRA, biases, saved modules, weights that PEFT changes when it loads an adapter.
Source: peft 0.21.2, tuners/lora/layer.py (`update_layer`, `get_delta_weight`) and utils/other.py (`get_pattern_key`).
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import BundleError
from contract.files import read_text, sha256
from export.source.shards import BLOCK_BYTES, ITEM_BYTES, Stored, read_shard, stored_bytes

ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
WRAPPED = "base_model.model."  # how PEFT names the tensors of a model that it wraps
FACTORS = (".lora_A.weight", ".lora_B.weight")
COPY = ".base_layer.weight"  # PEFT saves the output projection, as it was, beside its factors
# Keys that say nothing about the merged weights, or that this file reads. `config` refuses any other key with a value.
FOLLOWED = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "eva_config", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout",
    "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config",
    "target_modules", "task_type", "use_rslora",
}  # fmt: skip
KEEP_THE_BASE = (True, False, None, "gaussian", "orthogonal", "eva")  # other ways to begin change the base weights
MERGE_FIRST = "merge it with PEFT (merge_and_unload, then save_pretrained) and export that"


@dataclass(frozen=True)
class Merged(Stored):
    """A tensor (out, in) with its adapter's change: `down` is A (rank, in), `up` is B (out, rank)."""

    down: Stored
    up: Stored
    scale: float

    def read(self) -> NDArray[np.uint8]:
        """W + scale * B A as bytes, summed in float64 and rounded to the dtype of the base."""
        base, width = Stored(**{f.name: getattr(self, f.name) for f in fields(Stored)}).float32(), self.shape[1]
        down, up = self.down.float32().astype(np.float64), self.up.float32()
        step = max(1, BLOCK_BYTES // (8 * width))  # rows at once
        for first in range(0, len(base), step):
            rows = slice(first, first + step)
            base[rows] = base[rows] + self.scale * (up[rows].astype(np.float64) @ down)
        return stored_bytes(base, self.dtype)

    def blocks(self) -> Iterator[bytes]:
        """See Stored.blocks."""
        values = self.read()
        for first in range(0, len(values), BLOCK_BYTES):
            yield values[first : first + BLOCK_BYTES].tobytes()


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder. Every method raises BundleError where it is damaged or asks for more than a merge."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """adapter_config.json, after every check that needs no tensor."""
        path = self.folder / ADAPTER_CONFIG
        try:
            values = json.loads(read_text(path))
        except OSError as error:
            raise BundleError(f"{path} cannot be read: --adapter wants a folder that PEFT saved") from error
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{path} is no JSON: {error}") from error
        if not isinstance(values, dict):
            raise BundleError(f"{path} is {type(values).__name__}, an object is expected")
        wanted: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
            ("peft_type", lambda value: value == "LORA", "LORA is merged here"),
            ("bias", lambda value: value in ("none", None), "biases are not merged here"),
            ("fan_in_fan_out", lambda value: not value, "linear layers are merged here"),
            ("init_lora_weights", lambda value: value in KEEP_THE_BASE, "PEFT changes the base weights for it"),
            ("r", lambda value: type(value) is int and value > 0, "a rank is expected"),
            ("lora_alpha", lambda value: isinstance(value, (int, float)), "a number is expected"),
        )
        for name, is_right, why in wanted:
            if not is_right(values.get(name)):
                raise BundleError(f"{path}: {name} is {values.get(name)!r}, {why}: {MERGE_FIRST}")
        if unknown := next((name for name in sorted(values) if name not in FOLLOWED and values[name]), None):
            raise BundleError(f"{path}: {unknown} is {values[unknown]!r}, which no merge here follows: {MERGE_FIRST}")
        return values

    @cached_property
    def _tensors(self) -> dict[str, Stored]:
        return read_shard(self.folder / ADAPTER)[0]

    @cached_property
    def _modules(self) -> dict[str, tuple[Stored, Stored]]:
        """The two factors of every layer, by the layer's name in transformers' model."""
        factors: dict[str, dict[str, Stored]] = {}
        for name, tensor in self._tensors.items():
            if name.endswith(COPY):
                continue
            kind = next((kind for kind in FACTORS if name.endswith(kind)), None)
            if kind is None or not name.startswith(WRAPPED) or len(tensor.shape) != 2 or tensor.dtype not in ITEM_BYTES:
                raise BundleError(
                    f"{self.folder / ADAPTER} holds {name!r} ({tensor.dtype} {list(tensor.shape)}); only the float matrices "
                    f"{WRAPPED}*.lora_A.weight and .lora_B.weight of linear layers are merged here: {MERGE_FIRST}"
                )
            factors.setdefault(name.removeprefix(WRAPPED).removesuffix(kind), {})[kind] = tensor
        if not factors:
            raise BundleError(f"{self.folder / ADAPTER} holds no tensors: save the adapter again")
        for module, pair in factors.items():
            if len(pair) != len(FACTORS):
                raise BundleError(
                    f"{self.folder / ADAPTER}: {module!r} has {min(pair)[1:]} alone, two factors are expected"
                )
        return {module: (pair[FACTORS[0]], pair[FACTORS[1]]) for module, pair in factors.items()}

    def _scale(self, module: str, rank: int) -> float:
        """alpha / rank; for a rank-stabilised adapter alpha / sqrt(rank) (Kalajdzievski, arXiv 2312.03732)."""
        expected = self._for(module, "rank_pattern", "r")
        if rank != expected:
            raise BundleError(
                f"{self.folder}: {module!r} has rank {rank} in {ADAPTER}, {ADAPTER_CONFIG} says {expected}: are the two files "
                "of one adapter?"
            )
        alpha = float(self._for(module, "alpha_pattern", "lora_alpha"))
        return alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank

    def _for(self, module: str, pattern: str, usual: str) -> Any:
        """A value of the config for one layer: the value of the first pattern that matches the end of the layer's name,
        else that of the key `usual`."""
        for key, value in (self.config.get(pattern) or {}).items():
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        return self.config[usual]

    def merged(self, base: dict[str, Stored], canonical: Callable[[str], str]) -> dict[str, Merged]:
        """The tensors of a checkpoint that the adapter changes, by their names there, with the change in them.

        Args:
            base: every tensor of the checkpoint, by name.
            canonical: gives one spelling to all the names that a tensor has in checkpoints and in transformers' model.

        Raises:
            BundleError: the checkpoint lacks a layer of the adapter, or has it in another shape or quantised; or a copy
                that PEFT saved has other numbers than the checkpoint.
        """
        found, _ = {}, self.config
        places = {canonical(name): name for name in base}
        for key, copy in self._tensors.items():
            original = base.get(places.get(canonical(key.removeprefix(WRAPPED).replace(COPY, ".weight")), ""))
            if key.endswith(COPY) and (original is None or not np.array_equal(copy.float32(), original.float32())):
                raise BundleError(
                    f"{self.folder / ADAPTER} holds {key!r}, the checkpoint has other numbers: {self.of()}"
                )
        for module, (down, up) in self._modules.items():
            name = places.get(canonical(f"{module}.weight"))
            if name is None:
                raise BundleError(
                    f"{self.folder} changes the layer {module!r}, which the checkpoint does not have: {self.of()}"
                )
            tensor, rank = base[name], down.shape[0]
            if tensor.shape != (up.shape[0], down.shape[1]) or up.shape[1] != rank:
                raise BundleError(
                    f"{self.folder}: {module!r} has factors {list(up.shape)} and {list(down.shape)}, the checkpoint's "
                    f"{name!r} is {list(tensor.shape)}: {self.of()}"
                )
            if tensor.dtype not in ITEM_BYTES:
                raise BundleError(
                    f"{self.folder} changes {name!r}, which is {tensor.dtype}: an adapter is merged into the model before it "
                    "is quantised"
                )
            stored = {f.name: getattr(tensor, f.name) for f in fields(Stored)}
            found[name] = Merged(**stored, down=down, up=up, scale=self._scale(module, rank))
        return found

    def of(self) -> str:
        """The end of a message that names the adapter's base model."""
        return f"the adapter is of {self.config.get('base_model_name_or_path') or 'a model that it does not name'}"

    def describe(self, num_tower: int) -> dict[str, Any]:
        """What the manifest keeps of the adapter.

        Args:
            num_tower: how many of its layers belong to the vision tower.
        """
        return {
            "name": self.folder.name,
            "base": self.config.get("base_model_name_or_path"),
            "rank": self.config["r"],
            "layers": len(self._modules),
            "layers_of_the_tower": num_tower,
            "sha256": sha256(self.folder / ADAPTER),
        }
