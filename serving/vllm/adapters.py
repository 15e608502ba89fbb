"""Adapters (LoRA) of engine_args.json: which one a request gets.

`default_mm_loras` is vLLM's own argument, `{"image": FOLDER, "video": FOLDER}`, but its web servers apply it, not its
engine: AsyncLLM alone ignores it without a word. The rule here is that of vLLM's web servers. This module asks for one
slot more than there are adapters: on a CPU vLLM 0.32 gives a request without an adapter the last slot (index -1)
whenever it shares a batch with one that has any.
"""

from pathlib import Path
from typing import Any

from vllm.lora.request import LoRARequest

from contract.errors import InvalidInput
from contract.prompt import Prompt

KINDS = ("image", "video")


def check_adapters(given: dict[str, Any]) -> int:
    """Look at the arguments of an engine_args.json before vLLM starts; returns the slots needed, 0 without adapters.

    Raises:
        InvalidInput: the arguments name adapters and do not switch them on, name one for another kind than KINDS, or
            name a folder that holds none.
    """
    folders = given.get("default_mm_loras") or {}
    if folders and not given.get("enable_lora"):
        raise InvalidInput("engine_args.json has 'default_mm_loras' and vLLM takes them with 'enable_lora': add it")
    for kind, folder in folders.items():
        if kind not in KINDS:
            raise InvalidInput(f"engine_args.json has an adapter for {kind!r}, allowed are {', '.join(KINDS)}")
        if not (Path(folder) / "adapter_config.json").is_file():
            raise InvalidInput(f"engine_args.json names {folder} for {kind!r}, where no adapter_config.json is")
    return len(folders) + 1 if folders else 0


def adapters(folders: dict[str, str] | None) -> dict[str, LoRARequest]:
    """vLLM's names for the adapters of `default_mm_loras`, by kind."""
    return {kind: LoRARequest(kind, i, folder) for i, (kind, folder) in enumerate(sorted((folders or {}).items()), 1)}


def adapter(found: dict[str, LoRARequest], prompt: Prompt) -> LoRARequest | None:
    """The adapter for the kind of items in a prompt. None where that has none, or the two kinds have one each."""
    kinds = {KINDS[item.is_video] for item in prompt.items} & found.keys()
    return found[kinds.pop()] if len(kinds) == 1 else None
