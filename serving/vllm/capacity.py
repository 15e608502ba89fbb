"""What a token costs in the cache of keys and values: the number that decides how many users a GPU has."""

from pathlib import Path
from typing import Any

from serving.vllm.recurrence import LINEAR


def read_text_config(folder: Path) -> dict[str, Any]:
    """The language model's part of a config.json, with transformers' defaults for what the file leaves out."""
    import transformers  # here, because the formula alone does not need it

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    values: dict[str, Any] = config.get_text_config().to_dict()
    return values


def kv_bytes_per_token(text_config: dict[str, Any], bytes_per_value: int) -> int:
    """Bytes of one token's keys and values: 2 x layers x key-value heads x head size x bytes of a value.

    A gated-delta layer has none: its state does not grow.
    """
    num_heads = text_config["num_attention_heads"]
    head_size = text_config.get("head_dim") or text_config["hidden_size"] // num_heads
    num_kv_heads = text_config.get("num_key_value_heads") or num_heads
    num_states = (text_config.get("layer_types") or ()).count(LINEAR)
    return int(2 * (text_config["num_hidden_layers"] - num_states) * num_kv_heads * head_size * bytes_per_value)
