"""What a checkpoint is besides an ordinary one: quantised, with an adapter beside it, without an output projection.

Nothing here stops an export of the tower; the user must know it all the same, before a server does not start.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.source.checkpoint import Checkpoint

ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
WRAPPED = "base_model.model."  # how PEFT names the tensors of a model that it wraps
ENGINES = {
    "fp8": "needs the package accelerate and a GPU, or --engine vllm",
    "bitsandbytes": "needs the packages accelerate and bitsandbytes, or --engine vllm",
    "compressed-tensors": "needs the package compressed-tensors, or --engine vllm",
    "gptq": "needs the packages optimum and gptqmodel, or --engine vllm",
    "awq": "needs the packages optimum and gptqmodel, or --engine vllm",
}


def quantisation(config: dict[str, Any]) -> str | None:
    """The method that a config says its linear layers are quantised with; None where they are not."""
    for place in (config, config.get("text_config") or {}):
        found = place.get("quantization_config")
        if isinstance(found, dict):
            return str(found.get("quant_method", "an unnamed method"))
    return None


def notices(checkpoint: "Checkpoint") -> list[str]:
    """What a user should know of a checkpoint, a sentence each."""
    found = []
    if (checkpoint.folder / ADAPTER_CONFIG).is_file() or (checkpoint.folder / ADAPTER).is_file():
        found.append(
            f"the folder holds an adapter ({adapter(checkpoint)}), which is not in what is written here: the base weights "
            "are. Merge it first (PEFT's merge_and_unload, then save_pretrained)"
        )
    if method := quantisation(checkpoint.config):
        engine = ENGINES.get(method, "needs what transformers or vLLM ask for to load it")
        found.append(f"the language model is quantised with {method}: the server {engine}")
    names = {name for names in checkpoint.shards.values() for name in names}
    tied = {**checkpoint.config.get("text_config", {}), **checkpoint.config}.get("tie_word_embeddings", False)
    if not tied and not any(name.endswith("lm_head.weight") for name in names):
        found.append(
            "it has no lm_head and its embeddings are not tied: it is an embedding model, which answers no text. Only a "
            "server of embeddings can serve it"
        )
    return found


def adapter(checkpoint: "Checkpoint") -> str:
    """What an adapter is, in a few words."""
    path = checkpoint.folder / ADAPTER_CONFIG
    values = checkpoint.json(ADAPTER_CONFIG) if path.is_file() else {}
    named = {"peft_type": "type", "r": "rank", "base_model_name_or_path": "of"}
    return ", ".join([ADAPTER, *(f"{name} {values[key]}" for key, name in named.items() if values.get(key))])
