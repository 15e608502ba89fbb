"""The error for a prompt whose pads are not those of its pictures and videos."""

from contract.errors import InvalidInput

PADS = "text-pads"  # the name of the check, as in contract.checks


def wrong_pads(num_pads: int, num_items: int, noun: str) -> InvalidInput:
    """The error for a chat template that writes too few pads or too many.

    Args:
        num_pads: how many pads the prompt has.
        num_items: how many pictures and videos there are.
        noun: the plural for them.
    """
    return InvalidInput(
        f"the prompt has {num_pads} pads, {num_items} {noun} were given: the chat template must write one pad for each; use "
        "the template of the model's checkpoint",
        check=PADS,
    )
