"""A checkpoint that an export may start with: every check that needs no tensor, and what the export will cost."""

from dataclasses import dataclass
from pathlib import Path

from contract.manifest import NAME as MANIFEST
from export import families
from export.graph.tower import Tower
from export.place import check_place
from export.plan import Plan
from export.precision import Precision, precision_named
from export.progress import Progress
from export.source.adapter import Adapter
from export.source.checkpoint import Checkpoint
from export.source.hub import local_folder
from export.source.notices import merged_layers, notices
from export.source.tokenizer import require_tokenizer
from export.static.choice import StaticChoice, StaticPlan


@dataclass(frozen=True)
class CheckedCheckpoint:
    """A checkpoint that passed every check that needs no tensor; `static` is None where nobody wants static graphs."""

    checkpoint: Checkpoint
    family: families.Family
    tower: Tower
    plan: Plan
    static: StaticPlan | None = None


def checked_source(
    model: str,
    out: Path,
    precision: Precision,
    progress: Progress,
    adapter: Path | None = None,
    static: StaticChoice | None = None,
) -> CheckedCheckpoint:
    """Make every check that needs no tensor; arguments and errors are those of export.vision.export_vision."""
    folder = local_folder(model, lambda name: adapter is not None or families.local_name(name) is not None)
    checkpoint = Checkpoint(folder, Adapter(adapter) if adapter else None)
    check_place(out, checkpoint.folder, MANIFEST)
    model_type, family = checkpoint.config["model_type"], checkpoint.family
    tower = family.tower(checkpoint.facts)
    tower.check(checkpoint.tower_shapes)
    _ = checkpoint.chat_template, checkpoint.image, checkpoint.video  # raise where they are missing
    require_tokenizer(checkpoint.folder)
    static_plan = None if static is None else StaticPlan.of(static, tower, checkpoint.image)
    plan = Plan.of(tower, precision, () if static_plan is None else static_plan.grids)
    num_tensors = len(checkpoint.tower_shapes)
    progress.note(f"checkpoint  {checkpoint.folder}: {model_type}, {num_tensors} tower tensors\n{plan}")
    if checkpoint.adapter_facts:
        progress.note(f"adapter     {merged_layers(checkpoint.adapter_facts)}")
    for notice in notices(checkpoint):
        progress.note(f"warning     {notice}")
    plan.require_disk(out)
    return CheckedCheckpoint(checkpoint, family, tower, plan, static_plan)


def plan_bundle(
    model: str,
    out: Path,
    precision: str,
    progress: Progress,
    adapter: Path | None = None,
    static: StaticChoice | None = None,
) -> Plan:
    """See export.vision.plan_vision."""
    return checked_source(model, out, precision_named(precision), progress, adapter, static).plan
