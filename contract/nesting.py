"""How deeply a JSON value nests: code that follows the levels by recursion must not meet too many."""

from typing import Any


def nesting(value: Any) -> int:
    """How many levels of objects and lists a parsed JSON value has; this call counts without recursion."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth
