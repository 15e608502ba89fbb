"""The model repository of one server: the models' code, and a configuration with one checkpoint's facts.

Clients adapt to what GET /v2/models/edge_vlm/config publishes: widths, levels, accepted types, limits, fingerprint.
Paths are not among these facts; they go into settings.json, which only the models read.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from contract import families
from contract.card import ModelCard
from contract.codecs.numbers import read_numbers
from contract.embeddings import FLOATS
from contract.errors import FingerprintMismatch, ServerError
from contract.language import read_language_card
from contract.manifest import plain as as_json
from contract.manifest import read_manifest
from contract.names import MODEL, OLD_NAMES, UNARY_MODEL, VISION_MODEL
from contract.tensors import INPUTS, VERSION
from contract.token_ids import max_prompt_tokens
from serving.engine import takes_dropped_rows
from serving.quantisation import check_quantisation
from serving.settings import Settings
from serving.tasks import served_tasks
from serving.triton.config import config_text
from serving.weights import check_weights

TEMPLATES = Path(__file__).parents[2] / "triton_models"
ALIAS = "alias"  # the template of an old name


def render_repository(target: Path, settings: Settings) -> ModelCard:
    """Write the models into the folder `target`; returns the checkpoint's card.

    Raises:
        BundleError: settings.model is no language checkpoint or a damaged one, or settings.bundle no edge bundle.
        FingerprintMismatch: the bundle's tower is not the language checkpoint's.
        ServerError: the installation lacks the templates.
    """
    card = read_language_card(Path(settings.model))
    check_weights(Path(settings.model))
    check_quantisation(Path(settings.model), settings.engine)
    published = "".join(
        f"parameters {{ key: {json.dumps(name)} value {{ string_value: {json.dumps(value)} }} }}\n"
        for name, value in model_parameters(card, settings).items()
    )
    models = [MODEL, UNARY_MODEL]
    if settings.bundle is not None:
        tower = read_manifest(Path(settings.bundle)).card
        if tower.encoder_fingerprint != card.encoder_fingerprint:
            raise FingerprintMismatch(tower.encoder_fingerprint, card.encoder_fingerprint)
        models.append(VISION_MODEL)
    served = {model: model for model in models}
    served |= {old: model for old, model in OLD_NAMES.items() if model in models}
    for name, model in served.items():
        is_alias = name != model and model != UNARY_MODEL  # the unary model keeps nothing: a second one is its alias
        template = TEMPLATES / (ALIAS if is_alias else model) / "1" / "model.py"
        if not template.is_file():
            raise ServerError(f"{template} is missing: install edge-vlm from its repository")
        folder = target / name
        (folder / "1").mkdir(parents=True)
        shutil.copyfile(template, folder / "1" / "model.py")
        (folder / "config.pbtxt").write_text(f"{config_text(model, name)}{published}", encoding="utf-8")
        settings.write(folder / "1")
    return card


def model_parameters(card: ModelCard, settings: Settings) -> dict[str, str]:
    """What a client may know, as Triton's string parameters: the card, the limits, the engine, the embedding types."""
    plain = (*FLOATS, "vision_embeddings_q")
    types = [spec.datatype for spec in INPUTS if spec.name in plain]
    family = families.find(card.family)
    facts = as_json(card) | asdict(settings.limits) | {"layout": family.LAYOUT, "positions": family.POSITIONS}
    facts["max_prompt_tokens"] = max_prompt_tokens(card, settings.limits)
    if card.tiles is not None:
        facts["tiles"] = json.dumps(facts["tiles"])
    facts |= {"contract_version": VERSION, "engine": settings.engine, "dtype": settings.dtype}
    facts["has_vision_model"] = str(settings.bundle is not None).lower()
    numbers = read_numbers(Path(settings.model), card.hidden_size, card.num_deepstack_levels)
    facts["embedding_codecs"] = " ".join(["fp16", "fp32", "int8", *(numbers.names.values() if numbers else ())])
    facts["rows"] = "kept copied" if takes_dropped_rows(settings.engine, card) else "copied"
    facts["tasks"] = " ".join(served_tasks(settings))
    facts["embedding_datatypes"] = ",".join(types)
    return {name: str(value) for name, value in facts.items() if value is not None}
