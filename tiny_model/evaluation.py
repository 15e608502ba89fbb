"""The published table of an evaluation: a row for each kind of question, a column for each fault."""

import json
from collections.abc import Sequence
from pathlib import Path

Tables = dict[str, dict[str, float]]  # by fault, by kind of question: the share of right answers, 0 to 1


def markdown(tables: Tables) -> str:
    faults = list(tables)
    lines = ["| question | " + " | ".join(faults) + " |", "|---" * (len(faults) + 1) + "|"]
    for kind in tables["none"]:
        cells = " | ".join(f"{tables[fault][kind]:.2f}" for fault in faults)
        lines.append(f"| {kind} | {cells} |")
    return "\n".join(lines)


def publish(tables: Tables, per_kind: int, claimed: Sequence[str], path: Path | None) -> None:
    """Print the table, and write it as JSON where a path is given."""
    print(markdown(tables))
    if path:
        found = {"questions_per_kind": per_kind, "claimed_kinds": claimed, "accuracy": tables}
        path.write_text(json.dumps(found, indent=2) + "\n")
