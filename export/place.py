"""Where an export may write: never over its source, never over a folder that no export of its kind made.

Publishing replaces the whole target folder, so a mistyped OUT must not cost anybody a folder.
"""

from pathlib import Path

from contract.errors import InvalidInput


def check_place(out: Path, model: Path, mark: str) -> None:
    """Check that the export may replace `out`.

    Args:
        model: the folder of the checkpoint.
        mark: the file by which the check knows an earlier export of the same kind.

    Raises:
        InvalidInput: out lies in the checkpoint or around it, is a file, or holds something else.
    """
    target, source = out.resolve(), model.resolve()
    if target == source or source in target.parents or target in source.parents:
        raise InvalidInput(f"OUT is {out}, MODEL is {model}: one must not contain the other")
    if out.exists() and not out.is_dir():
        raise InvalidInput(f"OUT is {out}, a file: give a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / mark).is_file():
        raise InvalidInput(f"OUT is {out}, a folder without {mark}: give a new folder or an earlier export")
