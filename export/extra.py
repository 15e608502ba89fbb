"""Checks the optional dependencies of this folder before the first import of any of them.

A raw ImportError would name a module; the user needs the name of the extra.
"""

from importlib.util import find_spec

from contract.errors import MissingExtra


def require(feature: str, *modules: str) -> None:
    """Check that `modules` are installed; the extra `export` brings all of them.

    Args:
        feature: what needs them, for the message.

    Raises:
        MissingExtra: one of them is not installed.
    """
    for module in modules:
        if not is_installed(module):
            raise MissingExtra(f"{feature} ({module} is not installed)", "export")


def is_installed(module: str) -> bool:
    """Whether Python finds a module of this name."""
    try:
        return find_spec(module) is not None
    except ValueError:  # somebody has blocked the name in sys.modules
        return False
