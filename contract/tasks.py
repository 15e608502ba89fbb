"""What a request may ask of a language model: tokens, an embedding, or a score.

The server publishes which of them its model can do. An embedding is the normalised state behind the last token; a score
is how likely the model says yes where it says yes or no. Source of both: QwenLM/Qwen3-VL-Embedding, src/models.
"""

from collections.abc import Collection

from contract.errors import InvalidInput, ServerError, shown

GENERATE, EMBED, SCORE = TASKS = ("generate", "embed", "score")
OUTPUTS = {EMBED: "embedding", SCORE: "score"}  # the output that holds what a task without tokens answers
ANSWERS = ("yes", "no")  # the tokens that a score compares


def check_task(task: str | None, tasks: Collection[str]) -> str:
    """The task of a request; None means GENERATE.

    Args:
        tasks: what the served model can do.

    Raises:
        InvalidInput: the name is no task, or the model cannot do it.
    """
    asked = GENERATE if task is None else task
    if asked not in TASKS:
        raise InvalidInput(f"task is {shown(asked)}, one of {', '.join(TASKS)} is expected", check="task")
    if asked not in tasks:
        raise InvalidInput(f"task is {asked!r}, this server's model does: {', '.join(tasks)}", check="task-model")
    return asked


def no_output(task: str) -> ServerError:
    """The error where a server answers a task and leaves out what the task asks for."""
    return ServerError(f"the server answered the task {task!r} without its output: is it of the same version?")
