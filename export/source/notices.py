"""What a checkpoint is besides an ordinary one: quantised, with an adapter beside it, without an output projection.

Nothing here stops an export of the tower; but the user must know it before a server does not start.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.files import read_text
from contract.quantisation import NOT_VLLM, PACKAGES, quantisation
from export.source.adapter import ADAPTER, ADAPTER_CONFIG

if TYPE_CHECKING:
    from export.source.checkpoint import Checkpoint


def needed(method: str) -> str:
    """What a server needs to read weights that a method quantised."""
    if method not in PACKAGES:
        return "needs --engine vllm, unless transformers reads it"
    names = [name.replace("_", "-") for name in PACKAGES[method]]
    other = "" if method in NOT_VLLM else ", or --engine vllm"
    return f"needs the package{'s' * (len(names) > 1)} {' and '.join(names)}{other}"


def notices(checkpoint: "Checkpoint") -> list[str]:
    """What a user should know of a checkpoint, one sentence for each fact.

    Raises:
        BundleError: the checkpoint is damaged; see Checkpoint.
    """
    found = []
    is_merged = checkpoint.adapter is not None and checkpoint.adapter.folder == checkpoint.folder
    if not is_merged and any((checkpoint.folder / name).is_file() for name in (ADAPTER_CONFIG, ADAPTER)):
        found.append(
            f"the folder holds an adapter ({adapter(checkpoint.folder)}), which is not in what is written here: the base "
            f"weights are. Give both exports --adapter {checkpoint.folder} to merge it"
        )
    if method := quantisation(checkpoint.config):
        found.append(f"the language model is quantised with {method}: the server {needed(method)}")
    names = {name for names in checkpoint.shards.values() for name in names}
    tied = {**checkpoint.config.get("text_config", {}), **checkpoint.config}.get("tie_word_embeddings", False)
    if not tied and not any(name.endswith("lm_head.weight") for name in names):
        found.append(
            "it has no lm_head and its embeddings are not tied: it is an embedding model, which answers no text. A "
            "server answers its requests of the task embed"
        )
    return found


def adapter(folder: Path) -> str:
    """What an adapter is, in a few words."""
    try:
        values = json.loads(read_text(folder / ADAPTER_CONFIG))
    except (OSError, ValueError, RecursionError):
        values = {}
    named = {"peft_type": "type", "r": "rank", "base_model_name_or_path": "of"}
    return ", ".join([ADAPTER, *(f"{name} {values[key]}" for key, name in named.items() if values.get(key))])


def merged_layers(facts: dict[str, Any]) -> str:
    """What an adapter changed, from Checkpoint.adapter_facts."""
    return (
        f"{facts['name']}, rank {facts['rank']} of {facts['base']}: merged into {facts['layers']} layers, "
        f"{facts['layers_of_the_tower']} of them in the tower"
    )
