"""Makes the bundle of an embedding model: a picture tower and a text tower, each compared with transformers'.

transformers loads the whole model here, because the bundle needs both towers and both are small. The export writes
everything beside `out` and renames it when the proof holds.
"""

import json
import math
import time
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.embedder import NAME, TEXT_GRAPH, EmbedderManifest
from contract.errors import BundleError
from contract.files import published, read_text
from contract.fingerprint import encoder_fingerprint
from contract.manifest import GRAPH, TOKENIZER
from edge_runtime.embedder import Embedder
from export import families
from export.edge_bundle import LIBRARIES, VisionExport
from export.families.text_tower import write_text_graph
from export.families.tile_facts import TileFacts
from export.gate import parity
from export.gate.packs import packs_for
from export.gate.reference import quiet
from export.gate.vectors import picture_answer, text_rows, vector_gates
from export.graph.builder import OPSET
from export.graph.loop import write_graph
from export.place import check_place
from export.plan import HALF, Plan
from export.precision import Precision, precision_named
from export.progress import Progress
from export.source.hub import local_folder


def model_type_of(model: str) -> str:
    """The model_type of a checkpoint's config; empty where the checkpoint has no config that names one.

    Args:
        model: a folder, or a hub id.

    Raises:
        BundleError, MissingExtra: as export.source.hub.local_folder.
    """
    folder = local_folder(model, lambda name: families.local_name(name) is not None)
    try:
        values = json.loads(read_text(folder / "config.json"))
    except (OSError, ValueError, RecursionError):
        return ""
    found = values.get("model_type") if isinstance(values, dict) else None
    return found if isinstance(found, str) else ""


def write_embedder(model: str, out: Path, precision: Precision, progress: Progress) -> VisionExport:
    """See export.vision.export_vision."""
    started = time.monotonic()
    folder = local_folder(model, lambda _: True)
    check_place(out, folder, NAME)
    whole, config = _loaded(folder)
    family = families.find_embedder(config.model_type)
    pictures, texts = family.pictures(config), family.texts(config)
    plan = Plan.of(pictures, precision)
    plan.require_disk(out)
    facts, state = family.facts_of(folder, config), {name: value.numpy() for name, value in whole.state_dict().items()}
    progress.plan(plan.costs)
    progress.note(f"checkpoint  {folder}: {config.model_type}, an embedding model\n{plan}")
    with published(out) as work:
        tokenizer = _save_tokenizer(folder, work)
        draft = _manifest(family, config, facts, state, precision, tokenizer, texts.out_hidden_size)
        read = partial(_read, state)
        with progress.stage("graph") as done:
            half = HALF if precision.is_integer else ()
            nodes = write_graph(
                family, pictures, pictures.reader(read), facts.image, work / GRAPH, precision.linear, half=half
            )
            nodes += write_text_graph(texts, texts.reader(read), work / TEXT_GRAPH, precision.linear)
            done(plan.costs["graph"], "both towers")
        with progress.stage("inputs") as done:
            gates = vector_gates(folder, family, draft, work, tokenizer)
            done(plan.costs["inputs"], "pictures and texts")
        with progress.stage("original") as done:
            packs = packs_for(pictures)
            answers = parity.answers(pictures, partial(picture_answer, family, whole, facts, pictures), packs, done)
        with progress.stage("parity") as done:
            rows = parity.measure(work / GRAPH, pictures, answers, packs, progress.note, done)
            rows += text_rows(whole, work, draft)
        parity.require(rows, precision.name, precision.gate, out.with_name(out.name + ".parity-failed.json"))
        asked = asdict(draft) | {"image": facts.image, "tiles": facts.tiles, "gates": gates}
        EmbedderManifest(**asked | {"parity": [row.facts() for row in rows]}).write(work)
        Embedder.from_bundle(work)  # raises where the device could not open it
    progress.note(f"published   {out}")
    seconds = round(time.monotonic() - started, 3)
    fingerprint, worst = draft.encoder_fingerprint, parity.summary(rows)
    return VisionExport(str(out), fingerprint, precision.name, nodes, seconds, progress.seconds, worst)


def plan_embedder(model: str, precision: str) -> Plan:
    """The plan of the picture tower; see export.vision.plan_vision."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(local_folder(model, lambda _: True), local_files_only=True)
    return Plan.of(families.find_embedder(config.model_type).pictures(config), precision_named(precision))


def _loaded(folder: Path) -> tuple[Any, Any]:
    import torch
    import transformers

    try:
        with quiet():
            whole = transformers.AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        raise BundleError(f"{folder}: transformers cannot load the model: {str(error)[:300]}") from error
    return whole.eval().requires_grad_(False), whole.config


def _read(state: dict[str, NDArray[np.float32]], name: str) -> NDArray[np.float32]:
    if name not in state:
        raise BundleError(f"tensor {name!r} is missing: give a complete checkpoint of the family")
    return state[name]


def _save_tokenizer(folder: Path, work: Path) -> Any:
    """Write the tokenizer's file into the bundle; returns transformers' tokenizer of the checkpoint."""
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        tokenizer.backend_tokenizer.save(str(work / TOKENIZER))
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise BundleError(
            f"{folder}: the tokenizer cannot be written as {TOKENIZER}, which the device needs: {str(error)[:300]}"
        ) from error
    return tokenizer


def _manifest(
    family: families.EmbedderFamily,
    config: Any,
    facts: TileFacts,
    state: dict[str, Any],
    precision: Precision,
    tokenizer: Any,
    width: int,
) -> EmbedderManifest:
    tensors = ((name, str(value.dtype), value.shape, np.ascontiguousarray(value).data) for name, value in state.items())
    return EmbedderManifest(
        family=config.model_type,
        width=width,
        encoder_fingerprint=encoder_fingerprint(tensors, facts.image, facts.video, True, facts.tiles),
        image=facts.image,
        tiles=facts.tiles,
        max_text_tokens=config.text_config.max_position_embeddings,
        pads_to_max=family.PADS_TO_MAX,
        pads_left=tokenizer.padding_side == "left",
        pad_token_id=0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        logit_scale=math.exp(float(state["logit_scale"].reshape(()))),
        logit_bias=float(state["logit_bias"].reshape(())) if "logit_bias" in state else 0.0,
        precision=precision.name,
        opset=OPSET,
        libraries={name: version(name) for name in LIBRARIES},
        parity=[],
    )
