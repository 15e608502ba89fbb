"""The gates of what goes into the tower and the language model: processor and prompt, one call for an export."""

from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from contract.manifest import CHAT_TEMPLATE, TOKENIZER, Manifest
from edge_runtime.bundle import Bundle
from export.gate.processor import processor_gate
from export.gate.prompt import prompt_gate
from export.gate.reference import load_reference, quiet
from export.gate.tiles import tile_gates


def input_gates(checkpoint: Path, work: Path, manifest: Manifest) -> Manifest:
    """Compare the inputs; returns the manifest with the tokenizer's special tokens and one row for each kind of input.

    Args:
        checkpoint: the original folder, from which transformers loads its processor.
        work: the unfinished bundle, which has its tokenizer and chat template.

    Raises:
        BundleError: transformers cannot load the processor.
        ParityError: the device would prepare a picture, a video or a prompt otherwise than transformers.
    """
    if manifest.card.tiles is not None:
        return tile_gates(checkpoint, work, manifest)
    with quiet():
        reference = load_reference(checkpoint, manifest.card.family)
        manifest = replace(manifest, special_tokens=dict(reference.tokenizer.special_tokens_map))
        template = (work / CHAT_TEMPLATE).read_text(encoding="utf-8")
        bundle = Bundle(work, manifest, Tokenizer.from_file(str(work / TOKENIZER)), template)
        return replace(manifest, gates=[*processor_gate(reference, bundle), *prompt_gate(reference, bundle)])
