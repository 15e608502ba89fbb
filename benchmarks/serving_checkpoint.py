"""A language checkpoint of 111 million random parameters with deepstack: a token costs what a small model's costs.

Weights keep their variance from layer to layer; speed does not depend on them. The small files are the bundled model's.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers

from export.language import export_language
from serving.settings import Settings
from serving.triton.launcher import TritonServer

TEXT = {
    "vocab_size": 32_768,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 14,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 32_768,
}
# as wide as the 2B, and little else, so that the way through the server takes most of the time
WIDE = {
    "hidden_size": 2048,
    "num_hidden_layers": 3,
    "intermediate_size": 64,
    "vocab_size": 512,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@contextmanager
def random_server(text: dict[str, int]) -> Iterator[TritonServer]:
    """A real Triton on one thread over random weights; `text` changes sizes of TEXT."""
    with TemporaryDirectory() as folder:
        model = Path(folder) / "language"
        write_language_checkpoint(Path("models/tiny"), model, Path(folder) / "scratch", TEXT | text)
        with TritonServer(Settings(model=str(model), num_threads=1)) as server:
            yield server


def write_language_checkpoint(small: Path, out: Path, scratch: Path, text: dict[str, int] = TEXT) -> int:
    """Write the checkpoint to `out`, around the small files of `small`; returns its number of parameters."""
    shutil.copytree(small, scratch, ignore=shutil.ignore_patterns("*.safetensors", "evaluation.json"))
    config = json.loads((scratch / "config.json").read_text())
    config["text_config"] |= text
    config["vision_config"]["out_hidden_size"] = text["hidden_size"]
    (scratch / "config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    model = transformers.AutoModelForImageTextToText.from_config(transformers.AutoConfig.from_pretrained(scratch))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 1 if "embed_tokens" in name else weight[0].numel() ** -0.5)
    model.to(torch.float32).save_pretrained(scratch)
    export_language(str(scratch), out)
    return sum(weight.numel() for name, weight in model.named_parameters() if ".visual." not in name)
