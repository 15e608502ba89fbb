"""Towers of tile families on this CPU against other engines; `__main__` says how."""
