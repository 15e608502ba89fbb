"""docs/vllm.md: its figures are those of the formulas, its lists those of the code, its examples JSON that is accepted."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.vllm_capacity import SHAPES, tables
from contract.errors import InvalidInput
from serving.settings import Settings
from serving.vllm.arguments import OWN, read_arguments
from serving.vllm.capacity import kv_bytes_per_token

DOC = (Path(__file__).parents[1] / "docs" / "vllm.md").read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_formulas() -> None:
    assert tables() in DOC


def test_a_token_of_the_8b_model() -> None:
    """Worked by hand: 2 (keys, values) x 36 layers x 8 heads x 128 x 2 bytes."""
    assert SHAPES[2].kv_bytes == 147_456
    assert kv_bytes_per_token({"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}, 4) == 512


def test_the_refused_names_are_listed() -> None:
    paragraph = DOC.split("refuses them in the file: ")[1].split(". A name that vLLM")[0]
    assert set(re.findall(r"`([a-z_]+)`", paragraph)) == set(OWN)


def test_the_examples_are_accepted(tmp_path: Path) -> None:
    examples = re.findall(r"```json\n(.*?)```", DOC, re.DOTALL)
    assert len(examples) == 6
    for example in examples:
        path = tmp_path / "engine_args.json"
        path.write_text(example)
        settings = Settings("folder", engine="vllm", engine_args=read_arguments(path))
        assert settings.engine_args == json.loads(example)
        assert not settings.engine_args.keys() & OWN


@pytest.mark.parametrize("text", ["", "[1]", "{", '"x"'])
def test_a_file_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "engine_args.json"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=r"engine_args\.json"):
        read_arguments(path)


def test_they_are_of_no_other_engine() -> None:
    with pytest.raises(InvalidInput, match="vllm engine's"):
        Settings("folder", engine_args={"max_num_seqs": 3})
