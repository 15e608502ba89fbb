"""Qwen3.5 from a whole checkpoint to a real server's answer: the tokens of transformers' generate on the same picture."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers as tf

from export.language import export_language
from export.vision import export_vision
from tests.engine import ENGINE
from tests.export.test_served_layouts import answers
from tests.export.tiny_checkpoint import BUNDLED
from tests.families.models import ALL, loud
from tests.serving.reference import HYBRID

COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10_000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
    },
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
VISION = {
    "depth": 2,
    "hidden_size": 64,
    "intermediate_size": 144,
    "num_heads": 4,
    "out_hidden_size": 64,
    "num_position_embeddings": 576,
}


def write(family: str, folder: Path) -> Any:
    """Save a checkpoint of random weights; returns the model."""
    is_moe = family.endswith("moe")
    kind = "Qwen3_5Moe" if is_moe else "Qwen3_5"
    tiny = json.loads((BUNDLED / "config.json").read_text())
    ids = {name: value for name, value in tiny.items() if name.endswith("token_id")}
    ids |= {"vision_start_token_id": 486, "vision_end_token_id": 487}
    text = TEXT | HYBRID | (EXPERTS if is_moe else {})
    config = getattr(tf, f"{kind}Config")(text_config=text, vision_config=VISION, **ids)
    model = loud(getattr(tf, f"{kind}ForConditionalGeneration")(config))
    model.save_pretrained(folder)
    for name in COPIED:
        shutil.copy(BUNDLED / name, folder / name)
    return model


@pytest.mark.skipif(ENGINE == "vllm", reason="vLLM is not asked to run these models")
@pytest.mark.parametrize("family", ["qwen3_5", "qwen3_5_moe"] if ALL else ["qwen3_5"])
def test_answers_are_those_of_generate(tmp_path: Path, family: str) -> None:
    whole = write(family, tmp_path / "model")
    export_vision(str(tmp_path / "model"), tmp_path / "edge")
    export_language(str(tmp_path / "model"), tmp_path / "language")
    expected, found = answers(tmp_path, whole)
    assert found == expected
    assert len(set(found)) > 3
