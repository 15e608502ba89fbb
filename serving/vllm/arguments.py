"""vLLM's engine arguments: what the server sets, and what a file may add.

The file is a JSON object under vLLM's own names (`engine_args.json`, as Triton's vLLM backend calls it). A few are the
server's: with other values vLLM would refuse embeddings, look for a tower, or run code from the checkpoint.
"""

import difflib
import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.errors import InvalidInput
from contract.language import read_language_card
from contract.limits import Limits
from contract.quantisation import quantisation, read_config
from contract.tasks import GENERATE
from contract.thinking import END, START
from serving.tasks import POOLING
from serving.vllm.capacity import kv_bytes_per_token, read_text_config
from serving.vllm.recurrence import check_recurrence, is_recurrent

if TYPE_CHECKING:
    from vllm.engine.arg_utils import AsyncEngineArgs

FIXED = {
    "limit_mm_per_prompt": {"image": 0, "video": 0},  # no tower: its weights are neither allocated nor looked for
    "enable_mm_embeds": True,
    "skip_mm_profiling": True,
    "mm_processor_cache_gb": 0,  # items come past vLLM's processor
    "generation_config": "vllm",  # end tokens and defaults are the server's
    "trust_remote_code": False,
    "logprobs_mode": "raw_logprobs",
    "skip_tokenizer_init": False,  # grammars need it
}
OWN = frozenset((*FIXED, "model", "tokenizer", "dtype", "convert", "hf_overrides", "video_pruning_rate"))
TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")  # where a chat template may stand
CPU_BLOCK_TOKENS = 128  # one block of the cache; a whole request must fit
DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def read_arguments(path: Path) -> dict[str, Any]:
    """The object in an engine_args.json; engine_arguments checks its names.

    Raises:
        InvalidInput: the file is missing, or holds no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"{path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise InvalidInput(
            f"{path} holds {type(values).__name__}, a JSON object of vLLM's engine arguments is expected"
        )
    return values


def engine_arguments(folder: Path, limits: Limits, dtype: str, given: dict[str, Any]) -> "AsyncEngineArgs":
    """vLLM's arguments for a checkpoint.

    Raises:
        BundleError: the folder is no language checkpoint, or vLLM has no kernel for its layers on this machine.
        InvalidInput: `given` has a name that vLLM lacks or that is the server's, an adapter that is none, or a value
            that vLLM refuses; or vLLM does not compute these layers in dtype.
    """
    import torch  # here, because the launcher reads the file without vLLM
    from vllm.config.reasoning import ReasoningConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform

    from serving.vllm.adapters import check_adapters

    allowed = sorted(field.name for field in fields(AsyncEngineArgs) if not field.name.startswith("_"))
    for name in given:
        if name in OWN:
            raise InvalidInput(f"engine_args.json has {name!r}, which the server sets itself: leave it out")
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, 3) or allowed
            raise InvalidInput(f"engine_args.json has {name!r}, which vLLM does not have: {', '.join(near)}")
    if given.get("runner", GENERATE) not in (GENERATE, POOLING):
        raise InvalidInput(
            f"engine_args.json has 'runner' {given['runner']!r}, allowed are {GENERATE!r}, which answers with tokens, and "
            f"{POOLING!r}, which answers with embeddings and scores"
        )
    num_slots = check_adapters(given)
    max_tokens = min(
        read_language_card(folder).max_position_embeddings, limits.max_prompt_tokens + limits.max_output_tokens
    )
    usual: dict[str, Any] = {"max_num_seqs": limits.max_active, "disable_log_stats": True, "dtype": DTYPES[dtype]}
    # llguidance, with which the server tries every grammar first; no blanks in JSON, which a weak model writes for ever
    usual["structured_outputs_config"] = {"backend": "guidance", "disable_any_whitespace": True}
    if thinks(folder):
        usual["reasoning_config"] = ReasoningConfig(reasoning_start_str=START, reasoning_end_str=END)  # for budgets
    if num_slots:
        usual["max_loras"] = num_slots
    if current_platform.is_cpu():
        if given.get("max_loras", num_slots) < num_slots:
            raise InvalidInput(
                f"engine_args.json has 'max_loras' {given['max_loras']}, on a CPU {num_slots} are needed: the last must stay free"
            )
        text_config = read_text_config(folder)
        if dtype == "auto":  # vLLM's kernels of quantised and of gated-delta layers compute in 16 bits
            is_plain = quantisation(read_config(folder)) is None and not is_recurrent(text_config)
            usual["dtype"] = "float32" if is_plain else "bfloat16"
        if is_recurrent(text_config):
            check_recurrence(folder, text_config, usual["dtype"])
        usual |= {"enforce_eager": True, "kv_cache_memory_bytes": limits.max_kv_bytes}
        token_bytes = kv_bytes_per_token(text_config, getattr(torch, usual["dtype"]).itemsize)
        max_tokens = min(max_tokens, limits.max_kv_bytes // token_bytes // CPU_BLOCK_TOKENS * CPU_BLOCK_TOKENS)
    usual["max_model_len"] = max_tokens
    try:
        return AsyncEngineArgs(model=str(folder), **FIXED | usual | given)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"engine_args.json: {error}") from error


def thinks(folder: Path) -> bool:
    """Whether a checkpoint's chat template writes the marks of thoughts, so that a budget of them has a meaning."""
    files = (folder / name for name in TEMPLATES)
    return any(END in path.read_text(encoding="utf-8") for path in files if path.is_file())
