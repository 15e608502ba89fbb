"""What a server can do with a language checkpoint, found out from its files before an engine loads it."""

from pathlib import Path

from contract.quantisation import read_config
from contract.tasks import ANSWERS, EMBED, GENERATE, SCORE
from serving.requests.tokenizer import load_tokenizer
from serving.settings import Settings
from serving.weights import tensor_names

POOLING = "pooling"  # the runner of vLLM's engine arguments that answers without tokens


def served_tasks(settings: Settings) -> tuple[str, ...]:
    """The tasks of contract.tasks.TASKS that this server has.

    A model without an output projection answers no text, and one whose vocabulary lacks a token `yes` or `no` has no
    score. vLLM runs a model for tokens or for the other tasks, as `runner` in its arguments says.

    Raises:
        BundleError: a weights file or the tokenizer is damaged.
    """
    folder = Path(settings.model)
    has_head = _has_head(folder)
    has_score = has_head and answer_ids(folder) is not None
    pooled = (EMBED, SCORE) if has_score else (EMBED,)
    if settings.engine == "vllm":
        return pooled if settings.engine_args.get("runner") == POOLING else (GENERATE,)
    return (GENERATE, *pooled) if has_head else pooled


def answer_ids(folder: Path) -> tuple[int, int] | None:
    """The tokens `yes` and `no`; None where one of them is no token of its own."""
    yes, no = map(load_tokenizer(folder).token_to_id, ANSWERS)
    return None if yes is None or no is None else (yes, no)


def _has_head(folder: Path) -> bool:
    """Whether a checkpoint has an output projection, of its own or tied to the embeddings."""
    if any("lm_head." in name for name in tensor_names(folder)):
        return True
    config = read_config(folder)
    said = [part.get("tie_word_embeddings") for part in (config.get("text_config", {}), config)]
    known = [value for value in said if value is not None]
    if known:
        return any(known)
    import transformers  # here, because few checkpoints leave it to transformers' defaults

    found = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    return bool(found.tie_word_embeddings)
