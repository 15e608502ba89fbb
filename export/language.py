"""python -m export.language MODEL OUT: the checkpoint without its vision tower, for the server.

The rest stays byte for byte the original: config, templates and every other tensor. The export copies them in blocks,
so it needs neither torch nor memory for a whole checkpoint. An adapter changes the tensors that it names. A mark names
the encoder to which the model belongs, so that a server refuses the embeddings of another encoder.
"""

import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from contract.codecs.numbers import NAME as CODEC_NUMBERS
from contract.codecs.numbers import read_numbers
from contract.errors import BundleError, FingerprintMismatch
from contract.files import published
from contract.language import NAME as MARK
from contract.language import LanguageCheckpoint
from contract.manifest import TOKENIZER, read_manifest
from export import command
from export.place import check_place
from export.progress import Progress
from export.source.adapter import Adapter
from export.source.checkpoint import HAS_OUTER_VIDEO_WRAPPER, Checkpoint
from export.source.hub import INDEX, SINGLE, local_folder
from export.source.notices import merged_layers, notices
from export.source.processors import FILES
from export.source.shards import write_shard
from export.source.speech import check_speech
from export.source.tokenizer import require_tokenizer, write_tokenizer

COPIED = (
    "config.json",
    *FILES,
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


@dataclass(frozen=True)
class LanguageExport:
    """What an export made: the folder, the name of its encoder, how many tensors and tensor bytes it holds, and the
    seconds that it took."""

    checkpoint: str
    fingerprint: str
    tensors: int
    bytes: int
    seconds: float


def export_language(
    model: str,
    out: Path,
    progress: Progress | None = None,
    bundle: Path | None = None,
    adapter: Path | None = None,
) -> LanguageExport:
    """Write the language checkpoint of `model`, a folder or hub id, to `out`.

    Args:
        progress: where the export reports; None reports nowhere.
        bundle: an edge bundle of the same checkpoint. The export copies its tokenizer and codec numbers, so that the
            server takes the learned codecs of devices that hold the same numbers.
        adapter: a LoRA folder of PEFT's layout, which the export merges into the weights.

    Raises:
        BundleError: the checkpoint is incomplete or damaged, has an unknown family or no tower to take out; the bundle
            has no codec numbers, or is damaged; its end tokens or its chat template cannot be used.
        FingerprintMismatch: the bundle belongs to another tower.
        InvalidInput: the export must not replace `out`.
        MissingExtra: model is a hub id and huggingface_hub is not installed, or the tokenizer needs transformers.
        OSError: the disk is full; the export leaves nothing behind.
    """
    progress, started = progress or Progress(), time.monotonic()
    checkpoint = Checkpoint(local_folder(model, lambda _: True), Adapter(adapter) if adapter else None)
    check_place(out, checkpoint.folder, MARK)
    _ = checkpoint.config  # raises where the folder is an adapter alone
    for name in COPIED:  # a checkpoint may do without most of them, but not with something else in their place
        if (path := checkpoint.folder / name).exists() and not path.is_file():
            raise BundleError(f"{path} is no file: give a complete checkpoint")
    require_tokenizer(checkpoint.folder)
    check_speech(checkpoint)
    fingerprint = checkpoint.card.encoder_fingerprint
    if bundle is not None:
        _check_bundle(bundle, fingerprint)
    progress.note(f"checkpoint  {checkpoint.folder}\nfingerprint {fingerprint}")
    if checkpoint.adapter_facts:
        progress.note(f"adapter     {merged_layers(checkpoint.adapter_facts)}")
    for notice in notices(checkpoint):
        progress.note(f"warning     {notice}")
    with published(out) as work:
        num_tensors, num_bytes = _copy_tensors(checkpoint, work, progress)
        if bundle is not None:
            shutil.copyfile(bundle / TOKENIZER, work / TOKENIZER)
        elif warning := write_tokenizer(checkpoint.folder, work / TOKENIZER):
            progress.note(f"warning     {warning}")
        for name in COPIED:
            if (checkpoint.folder / name).is_file():
                shutil.copyfile(checkpoint.folder / name, work / name)
        if bundle is not None:
            shutil.copyfile(bundle / CODEC_NUMBERS, work / CODEC_NUMBERS)
        LanguageCheckpoint(fingerprint, HAS_OUTER_VIDEO_WRAPPER, checkpoint.card).write(work)
    progress.note(f"published   {out}: {num_tensors} tensors, {num_bytes / 1e6:.1f} MB")
    return LanguageExport(str(out), fingerprint, num_tensors, num_bytes, round(time.monotonic() - started, 3))


def _check_bundle(bundle: Path, fingerprint: str) -> None:
    card = read_manifest(bundle).card
    if card.encoder_fingerprint != fingerprint:
        raise FingerprintMismatch(card.encoder_fingerprint, fingerprint, "MODEL")
    if read_numbers(bundle, card.hidden_size, card.num_deepstack_levels) is None:
        raise BundleError(f"{bundle} has no {CODEC_NUMBERS}: export it again, or leave --bundle out")


def _stays(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a tensor goes into the language checkpoint: it is outside the tower, or the server needs it as well."""
    local = checkpoint.family.local_name(name)
    return local is None or local in checkpoint.family.SHARED


def _copy_tensors(checkpoint: Checkpoint, work: Path, progress: Progress) -> tuple[int, int]:
    """Copy all tensors outside the tower, shard by shard; returns their number and bytes."""
    kept = {
        file: [tensor for name, tensor in checkpoint.tensors(file).items() if _stays(checkpoint, name)]
        for file in checkpoint.shards
    }
    kept = {file: tensors for file, tensors in kept.items() if tensors}
    if not kept:
        raise BundleError(f"{checkpoint.folder} has no tensor outside the vision tower: give the whole checkpoint")
    is_single = list(checkpoint.shards) == [SINGLE]
    weight_map: dict[str, str] = {}
    total = 0
    for number, (file, tensors) in enumerate(kept.items(), 1):
        target = SINGLE if is_single else f"model-{number:05d}-of-{len(kept):05d}.safetensors"
        total += write_shard(work / target, tensors, checkpoint.metadata(file))
        weight_map |= dict.fromkeys((tensor.name for tensor in tensors), target)
        progress.note(f"weights     {target}: {len(tensors)} tensors")
    if not is_single:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (work / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return len(weight_map), total


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code, one of export.command's."""
    arguments = command.parser("export.language", "Write a checkpoint without its vision tower.")
    arguments.add_argument("--bundle", type=Path, help="edge bundle whose codec numbers the server shall know")
    command.add_adapter(arguments)
    args = arguments.parse_args(argv)

    def work() -> None:
        result = export_language(args.model, Path(args.out), Progress(sys.stdout), args.bundle, args.adapter)
        if args.json:
            print(json.dumps(asdict(result)))

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
