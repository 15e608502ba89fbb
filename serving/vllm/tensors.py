"""Whether a checkpoint holds every tensor of its language model, found out before vLLM starts.

vLLM joins some tensors (gate and up, q and k and v) and takes a joint one for loaded when any part of it was there: the
rest would be whatever memory held, and the answers nonsense without an error.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

from contract.errors import BundleError
from serving import families
from serving.families import Family
from serving.transformers_engine.checkpoint import check_architecture

OLDER = {  # names that transformers before 4.52 wrote
    "language_model.model.": "model.language_model.",
    "language_model.lm_head.": "lm_head.",
    "image_newline": "model.image_newline",
}
EXPERT = re.compile(r"(\.experts\.)\d+\.(gate|up|down)_proj\.weight$")
FUSED = {"gate": "gate_up_proj", "up": "gate_up_proj", "down": "down_proj"}
PARTS = {"gate_up_proj": 2, "down_proj": 1}  # tensors an expert


def check_tensors(folder: Path, *, needs_head: bool = True) -> None:
    """Compare the names in the files with those of transformers' own model; quantised checkpoints have other names.

    Args:
        needs_head: the model answers with tokens, and needs its output projection.

    Raises:
        BundleError: the checkpoint lacks tensors, a file is damaged, or no family serves the architecture on vLLM.
    """
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    architecture = (config.architectures or ["none"])[0]
    family = families.find(config.model_type)
    check_architecture(folder, architecture, family)
    if not family.VLLM:
        raise BundleError(
            f"{folder}: the engine vllm does not serve {config.model_type} models: start with --engine transformers"
        )
    if getattr(config, "quantization_config", None) is not None:
        return
    found: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                found.update(map(_spelt, file.keys()))
        except Exception as error:  # safetensors raises its own
            raise BundleError(
                f"{path} cannot be read: {error}: copy the checkpoint again, or export it again"
            ) from error
    found |= _whole_experts(found, getattr(config.get_text_config(), "num_experts", 0))
    missing = sorted(_expected(config, architecture, family) - found)
    if not needs_head:
        missing = [name for name in missing if not name.endswith("lm_head.weight")]
    if missing:
        raise BundleError(f"{folder} lacks {len(missing)} tensors, the first is {missing[0]}: export it again")


def _expected(config: Any, architecture: str, family: Family) -> set[str]:
    with torch.device("meta"):
        model = getattr(transformers, architecture)(config)
    tied = set(model.all_tied_weights_keys)
    names = (name for name, _ in model.named_parameters() if not name.startswith(family.TOWER) and name not in tied)
    return set(map(_spelt, names))


def _whole_experts(found: set[str], num_experts: int) -> set[str]:
    """The names of the fused tensors whose parts, one or two tensors an expert, are all there."""
    parts = Counter(EXPERT.sub(lambda match: match[1] + FUSED[match[2]], name) for name in found if EXPERT.search(name))
    return {name for name, count in parts.items() if count == num_experts * PARTS[name.rpartition(".")[2]]}


def _spelt(name: str) -> str:
    """A tensor's name in one spelling. transformers writes some families under names of before 4.52, which lack
    `language_model` or have it elsewhere, and vLLM reads both."""
    for older, newer in OLDER.items():
        if name.startswith(older):
            name = newer + name.removeprefix(older)
            break
    return name.replace("language_model.", "")
