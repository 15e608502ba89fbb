"""Loads a language checkpoint: a transformers checkpoint folder without a vision tower.

transformers would allocate the missing tower and fill it with random numbers. This module builds it with no blocks
and throws it away, so the server pays for the language model only. It reads all from the folder, nothing from a
network.
"""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
from transformers.utils import logging

from contract.card import ModelCard
from contract.errors import BundleError
from contract.language import read_language_card
from contract.quantisation import quantisation, read_config
from serving import families
from serving.families import Family
from serving.quantisation import check_quantisation
from serving.requests.tokenizer import load_tokenizer
from serving.tasks import answer_ids
from serving.transformers_engine.attention import PACKED
from serving.transformers_engine.few_rows import weights_first
from serving.transformers_engine.fp8_blocks import check_blocks
from serving.transformers_engine.recurrence import pack

_TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class LanguageModel:
    """A language model without its tower, ready to run.

    decoder is transformers' text model (embeddings and layers) with packed attention, head its output projection, None
    in an embedding model that lacks one. answer_ids are the tokens yes and no, None where the vocabulary lacks one.
    grammar_tokenizer is llguidance's view of the vocabulary, None where that package is not installed.
    """

    card: ModelCard
    family: Family
    tokenizer: Tokenizer
    decoder: Any
    head: torch.nn.Module | None
    end_ids: frozenset[int]
    dtype: torch.dtype
    device: torch.device
    grammar_tokenizer: Any = None
    answer_ids: tuple[int, int] | None = None


def load_language_model(folder: Path, dtype: str = "auto") -> LanguageModel:
    """Load the model, its tokenizer and its end tokens.

    Args:
        dtype: "fp32", "bf16", "fp16", or "auto": float32 on a CPU, on a GPU what the checkpoint was stored in.

    Raises:
        BundleError: the folder is no language checkpoint, no family serves its architecture, transformers cannot read
            its quantised weights, or it lacks tensors.
    """
    card, tokenizer = read_language_card(folder), load_tokenizer(folder)
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    architecture = (config.architectures or ["none"])[0]
    family = families.find(card.family)
    check_architecture(folder, architecture, family)
    family.shrink_tower(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stored: torch.dtype | str = "auto" if device.type == "cuda" else torch.float32
    check_quantisation(folder)
    _check_method(folder)
    if device.type == "cpu":
        check_blocks(folder)
    with family.names_taught():
        model, report = _load(folder, architecture, config, _TORCH_DTYPES.get(dtype, stored))
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(family.TOWER))
    has_head = missing != ["lm_head.weight"]
    if missing and has_head:
        raise BundleError(f"{folder} lacks {len(missing)} tensors, the first is {missing[0]}: export it again")
    if device.type == "cpu" and all(value.is_floating_point() and value.itemsize > 1 for value in model.parameters()):
        model = model.to(model.dtype)  # transformers widens quantised weights to what they were before, not to this
    decoder, head = family.parts(model.to(device).eval())  # the tower, which is empty, goes with the rest
    pack(decoder)
    weights_first(decoder, head)
    ends, grammars = end_ids(folder, config), None
    if importlib.util.find_spec("llguidance") is not None:
        from serving.transformers_engine.mask import grammar_tokenizer

        grammars = grammar_tokenizer(tokenizer, card.vocab_size, ends)
    answers, kept = answer_ids(folder), head if has_head else None
    return LanguageModel(card, family, tokenizer, decoder, kept, ends, model.dtype, device, grammars, answers)


def check_architecture(folder: Path, architecture: str, family: Family) -> None:
    """Check that a family serves this transformers class.

    Raises:
        BundleError: the family does not serve it.
    """
    if not family.ARCHITECTURES:
        raise BundleError(
            f"{folder}: architecture is {architecture}, of whose family this server runs no model: only its tower can be "
            "exported (docs/families.md)"
        )
    if architecture not in family.ARCHITECTURES:
        raise BundleError(f"{folder}: architecture is {architecture}, supported are {', '.join(family.ARCHITECTURES)}")


def _load(folder: Path, architecture: str, config: Any, dtype: torch.dtype | str) -> tuple[Any, dict[str, Any]]:
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the tower is missing on purpose
    logging.disable_progress_bar()
    try:
        model, report = getattr(transformers, architecture).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=PACKED,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
        return model, report
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise BundleError(f"{folder} cannot be loaded{_quantised(folder)}: {error}") from error
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


def _check_method(folder: Path) -> None:
    """Check that transformers knows the method of quantised weights: it drops the scales of an unknown method, and only
    its log says so."""
    method = quantisation(read_config(folder))
    if method is not None and not {method, f"{method}_4bit"} & AUTO_QUANTIZER_MAPPING.keys():
        raise BundleError(
            f"{folder} is quantised with {method}, which transformers {transformers.__version__} does not read: serve it with "
            "--engine vllm"
        )


def _quantised(folder: Path) -> str:
    method = quantisation(read_config(folder))
    return f" (it is quantised with {method}; install what is named here, or use --engine vllm)" if method else ""


def end_ids(folder: Path, config: Any) -> frozenset[int]:
    """The tokens that end an answer, as generation_config.json names them, else the transformers config, else the
    tokenizer."""
    path = folder / "generation_config.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    ends = values.get("eos_token_id")
    for place in (config.text_config, config):
        ends = getattr(place, "eos_token_id", None) if ends is None else ends
    if ends is None:
        ends = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True).eos_token_id
    return frozenset() if ends is None else frozenset([ends] if isinstance(ends, int) else ends)
