"""optimum-cli imports every file of this folder and reads REGISTER_COMMANDS; see export/optimum_command.py."""

from export.optimum_command import REGISTER_COMMANDS

__all__ = ["REGISTER_COMMANDS"]
