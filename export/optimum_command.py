"""`optimum-cli export onnx --model MODEL OUT` for the families of this export: it calls export.vision.

optimum-cli finds its commands in the namespace optimum.commands.register (optimum 2.1, commands/optimum_cli.py).
optimum alone has no command `onnx`, so this file gives it one. optimum-onnx has one: this file then takes the models of
these families, and every other model goes on to optimum-onnx.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from optimum.commands.export.base import ExportCommand

from contract.errors import BundleError, InvalidInput
from contract.families import MODULES
from contract.manifest import PRECISIONS
from export import command
from export.progress import Progress
from export.vision import export_vision

TASKS = ("auto", "image-text-to-text", "image-feature-extraction")
FOLLOWED = ("model", "output", "task", "dtype", "device", "framework", "library_name", "func")


class EdgeExport(BaseOptimumCLICommand):  # type: ignore[misc]
    """The command where optimum-onnx is not installed."""

    COMMAND = CommandInfo(name="onnx", help="Export the vision tower of a vision-language model for edge-vlm's device.")

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Add optimum-onnx's options; --dtype knows the integers, too."""
        parser.add_argument("-m", "--model", required=True, help="checkpoint folder or hub id")
        parser.add_argument("output", type=Path, help="folder to write: the edge bundle")
        parser.add_argument("--task", default=TASKS[0], help=f"one of {', '.join(TASKS)}")
        parser.add_argument("--dtype", choices=PRECISIONS, default=PRECISIONS[0], help="precision of the tower")

    def run(self) -> None:
        """Export, then end the process with export.vision's exit code."""
        sys.exit(command.run(lambda: _export(self.args, _family(self.args.model), {})))


def _family(model: str) -> str:
    """The model_type of a folder or hub id.

    Raises:
        BundleError: transformers finds no config.
    """
    from transformers import PretrainedConfig

    try:
        return str(PretrainedConfig.get_config_dict(model)[0].get("model_type"))
    except OSError as error:
        raise BundleError(f"{model}: transformers finds no config.json: {error}") from error


def _export(args: Namespace, family: str, defaults: dict[str, Any]) -> None:
    """Refuse what this export would ignore, then export.

    Args:
        defaults: the defaults of optimum-onnx's options, by name.

    Raises:
        InvalidInput: this export does not have the family, the task or an option.
    """
    if family not in MODULES:
        raise InvalidInput(
            f"{args.model} is of model_type {family!r}, this export has {', '.join(MODULES)}: optimum-onnx may export it"
        )
    if args.task not in TASKS:
        raise InvalidInput(
            f"--task is {args.task!r}, {', '.join(TASKS)} end in the export of the vision tower; the language model stays "
            "a checkpoint (python -m export.language)"
        )
    for name, usual in defaults.items():
        if name not in FOLLOWED and getattr(args, name, usual) != usual:
            option = name.replace("_", "-")
            raise InvalidInput(
                f"--{option} is {getattr(args, name)!r}, the export of {family} has no such choice: leave it out"
            )
    export_vision(args.model, args.output, args.dtype or PRECISIONS[0], Progress(sys.stdout))
    print(f"the server's half: python -m export.language {args.model} OUT --bundle {args.output}")


def _for_these_families(stock: Any) -> Callable[[Any], None]:
    """A `run` for optimum-onnx's command that sends these families' models here."""
    others: Callable[[Any], None] = stock.run
    parser = ArgumentParser()
    stock.parse_args(parser)
    defaults = {action.dest: action.default for action in parser._actions}

    def run(self: Any) -> None:
        try:
            family = _family(self.args.model)
        except BundleError:
            family = ""  # optimum-onnx says what is wrong
        if family not in MODULES:
            others(self)
            return
        sys.exit(command.run(lambda: _export(self.args, family, defaults)))

    return run


try:
    from optimum.commands.export.onnx import ONNXExportCommand
except ImportError:
    REGISTER_COMMANDS = [(EdgeExport, ExportCommand)]
else:  # it registers itself; a second command of its name is an error in argparse
    ONNXExportCommand.run = _for_these_families(ONNXExportCommand)
    REGISTER_COMMANDS = []
