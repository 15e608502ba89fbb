"""Where a checkpoint keeps its chat template."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from contract.errors import BundleError


def find_template(folder: Path, optional: Callable[[str], dict[str, Any] | None]) -> str:
    """The template that transformers' processor takes; where it has none, the tokenizer's, which vLLM takes, too.

    Args:
        optional: reads a JSON object of the folder; None where the file is absent.

    Raises:
        BundleError: the checkpoint has no template.
    """
    path, template = folder / "chat_template.jinja", None
    for name in ("processor_config.json", "chat_template.json", path.name, "tokenizer_config.json"):
        if name == path.name:
            template = path.read_text(encoding="utf-8") if path.is_file() else None
        else:
            template = (optional(name) or {}).get("chat_template")
        if isinstance(template, list):  # several named ones
            template = {entry.get("name"): entry.get("template") for entry in template}
        if isinstance(template, dict):
            template = template.get("default")
        if isinstance(template, str):
            return template
    raise BundleError(
        f"{folder} has no chat template: put chat_template.jinja into it, or chat_template into chat_template.json or "
        "tokenizer_config.json"
    )
