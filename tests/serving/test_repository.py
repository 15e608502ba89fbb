"""The model repository that the launcher writes says what the contract says."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contract.errors import BundleError, ServerError
from contract.limits import Limits
from contract.names import MODEL, OLD_NAMES, UNARY_MODEL, VISION_MODEL
from contract.tensors import INPUTS, OUTPUTS, VISION_INPUTS, VISION_OUTPUTS
from serving.settings import Settings
from serving.triton import repository
from serving.triton.config import config_text
from serving.triton.launcher import TritonServer
from serving.triton.repository import TEMPLATES, render_repository
from tests.serving.reference import Reference


def parse(path: Any) -> Any:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def datatype(number: Any) -> Any:
    name = model_config_pb2.DataType.Name(number).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


@pytest.mark.parametrize("name", [MODEL, UNARY_MODEL, VISION_MODEL, *OLD_NAMES])
def test_config_is_the_contract(name: Any) -> None:
    model = OLD_NAMES.get(name, name)
    config = text_format.Parse(config_text(model, name), model_config_pb2.ModelConfig())
    assert config.name == name
    assert config.max_batch_size == 0
    assert config.model_transaction_policy.decoupled == (model == MODEL)
    ours = (VISION_INPUTS, VISION_OUTPUTS) if model == VISION_MODEL else (INPUTS, OUTPUTS)
    for tensors, specs in zip((config.input, config.output), ours, strict=True):
        found = [(tensor.name, datatype(tensor.data_type), tuple(tensor.dims)) for tensor in tensors]
        assert found == [(spec.name, spec.datatype, spec.shape) for spec in specs]
    assert all(tensor.optional for tensor in config.input)


def test_rendered_copy_publishes_facts_and_no_path(reference: Reference, tmp_path: Path) -> None:
    settings = Settings(str(reference.language), limits=Limits(max_active=3))
    render_repository(tmp_path / "models", settings)
    for model in (MODEL, UNARY_MODEL, "qwen3_vl", "qwen3_vl_unary"):
        config = parse(tmp_path / "models" / model / "config.pbtxt")
        values = {name: value.string_value for name, value in config.parameters.items()}
        assert values["hidden_size"] == "64"
        assert values["num_deepstack_levels"] == "3"
        assert values["encoder_fingerprint"] == reference.card.encoder_fingerprint
        assert values["embedding_datatypes"] == "FP16,FP32,INT8"
        assert values["max_active"] == "3"
        assert values["engine"] == "transformers"
        assert not any("/" in value for value in values.values())
        assert Settings.read(tmp_path / "models" / model / "1") == settings
    assert len(list((tmp_path / "models").iterdir())) == 4  # without a bundle there is no vision model


def test_a_template_is_no_model() -> None:
    with pytest.raises(BundleError, match="python -m serving"):
        Settings.read(TEMPLATES / MODEL / "1")


def test_two_instances_are_refused(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model refuses for itself."""
    written, models = repository.config_text, (MODEL, UNARY_MODEL)
    monkeypatch.setattr(
        repository,
        "config_text",
        lambda of, name: written(of, name).replace("count: 1", f"count: {1 + (name in models)}"),
    )
    with pytest.raises(ServerError, match="asks for 2 instances, 1 is allowed") as refused:
        TritonServer(Settings(str(reference.language), num_threads=1)).start()
    for model in models:
        assert f"failed to load '{model}' version 1" in str(refused.value)
