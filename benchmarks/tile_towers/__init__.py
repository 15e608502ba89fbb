"""Towers of tile families on this CPU against other engines; `__main__` says how."""

import tests.processor  # noqa: F401  declares torchvision's operators before transformers is imported
