"""The process that tries a grammar before a server takes it: what a schema costs is not known before it is compiled.

A hostile schema takes all memory or hours, and a library that runs out of memory takes its process along. So this
process tries it: it has limits of memory and CPU time, and ends after one grammar. It reads `{"kind", "value",
"max_bytes", "max_cpu_s"}` and prints `{"grammar"}`, the text that compiled, or `{"error"}`.
"""

import json
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, grammar_from

LIMITS = LLParserLimits(
    max_lexer_states=20_000,  # each of up to 2 kB
    max_grammar_size=200_000,
    step_max_items=5_000,  # of a mask; an ambiguous grammar has ever more, and half a second goes into 50,000
    precompute_large_lexemes=False,  # costs by the size of the vocabulary, not of the grammar
    verbose_errors=False,  # they would repeat the whole grammar
)


def matcher(grammar: str, tokenizer: LLTokenizer) -> LLMatcher:
    """A matcher at the start of a grammar. Other threads run while llguidance compiles.

    Raises:
        ValueError: llguidance cannot compile it.
    """
    made = LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)
    if made.is_error():
        raise ValueError(first_line(made.get_error()))
    return made


def first_line(text: str) -> str:
    """What an error of llguidance says before it repeats its state."""
    words = text.strip().partition("\n<")[0].replace("\n", " ")
    return "no text satisfies it (such as a schema that only refers to itself)" if words == "NoExtensionBias" else words


def _grammar(kind: str, value: Any) -> str:
    made = LLMatcher.grammar_from_json_schema(value) if kind == "json" else grammar_from(kind, value)
    return str(made)


def _try(kind: str, value: Any) -> str:
    """The grammar's text, compiled for single bytes, with a first mask. Single bytes spell no special tokens."""
    grammar = _grammar(kind, value)
    tried = matcher(grammar, LLTokenizer("byte"))
    tried.compute_bitmask()
    if tried.is_error():
        raise ValueError(first_line(tried.get_error()))
    return grammar


def _limit(max_bytes: int, max_cpu_s: float) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, max_cpu_s)  # its signal ends the process
    with suppress(OSError):  # Linux has /proc
        lines = Path("/proc/self/status").read_text().splitlines()
        held = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))
        resource.setrlimit(resource.RLIMIT_DATA, (held + max_bytes, held + max_bytes))


def main() -> None:
    """Read one trial from standard input, and print its result to standard output."""
    job = json.load(sys.stdin)
    _limit(job["max_bytes"], job["max_cpu_s"])
    try:
        answer = {"grammar": _try(job["kind"], job["value"])}
    except Exception as error:  # the library's errors are of any type
        answer = {"error": str(error) or type(error).__name__}
    print(json.dumps(answer))
