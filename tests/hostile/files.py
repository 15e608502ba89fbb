"""Bundles, checkpoints, templates and messages as somebody hostile or a broken disk writes them: only typed errors.

Each kind takes a good file, changes some of its values or bytes, and has the product read it. The hashes of a bundle are
made anew, because whoever changes a file can change them too. The graph alone is left out: onnxruntime reads it.
"""

import copy
import json
import math
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from contract.codecs.numbers import NAME as NUMBERS
from contract.codecs.numbers import read_numbers
from contract.errors import EdgeVlmError
from contract.files import sha256
from contract.language import read_language_card
from contract.manifest import CHAT_TEMPLATE, TOKENIZER, parse_manifest
from contract.manifest import NAME as MANIFEST
from contract.npy import read_array
from edge_runtime.bundle import Bundle
from edge_runtime.prompts.chat_template import render
from edge_runtime.prompts.content import check_keys, media_parts, plain
from serving.requests.tokenizer import load_tokenizer
from serving.weights import INDEX, check_weights
from tests.hostile.requests import values

BATCH = 100
MEMORY = "/dev/shm"
MAX_KEPT = 20
MAX_MESSAGE = 4000  # characters
READ, REFUSED = "read", "refused"
FRAGMENTS = [
    "{{ messages }}", "{{ messages[0].content }}", "{% for m in messages %}", "{% endfor %}", "{{ m.role }}", "{% if m %}",
    "{% endif %}", "{% set n = namespace(x=1) %}", "{{ n.x }}", "{{ ''.__class__ }}", "{{ 1 / 0 }}", "{{ 'a' * 9999999999 }}",
    "{{ raise_exception('no') }}", "{{ messages | tojson(indent=x) }}", "{{ [1, 2][7] }}", "{{ strftime_now('%Y') }}",
    "{{ x | upper | int }}", "{{ range(10 ** 9) | list | length }}", "{{", "%}", "{# ", "{% macro a() %}", "{% endmacro %}",
    "{% include 'a' %}", "{{ dict(a=1) }}", "{% generation %}", "{% endgeneration %}", "<|image_pad|>", "\ud800", "text",
]  # fmt: skip
ROLES = ["user", "assistant", "system", "tool", ""]
parts = st.one_of(
    values,
    st.fixed_dictionaries({"type": st.sampled_from(["text", "image", "video", "image_url", "audio"])}).flatmap(
        lambda part: st.dictionaries(
            st.sampled_from(["text", "image", "video", "image_url", "path", "url", "fps", "nframes", "resized_height"]),
            values,
            max_size=3,
        ).map(lambda more: part | more)
    ),
)
messages = st.lists(
    st.one_of(
        values,
        st.fixed_dictionaries(
            {
                "role": st.one_of(st.sampled_from(ROLES), values),
                "content": st.one_of(values, st.lists(parts, max_size=3)),
            },
            optional={"tool_calls": values, "reasoning_content": values, "name": values},
        ),
    ),
    max_size=3,
)
templates = st.one_of(st.lists(st.sampled_from(FRAGMENTS), max_size=6).map("".join), st.text(max_size=40))


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document with one to three of its values replaced, dropped or added."""
    made = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        at, depth = made, draw(st.integers(0, 4))
        while depth and isinstance(at, dict | list) and at:
            names = sorted(at) if isinstance(at, dict) else range(len(at))
            name = draw(st.sampled_from(names))
            inner = at[name]
            if isinstance(inner, dict | list) and inner and depth > 1:
                at, depth = inner, depth - 1
                continue
            if draw(st.integers(0, 3)):
                at[name] = draw(values)
            else:
                del at[name]
            break
        else:
            if isinstance(at, dict):
                at[draw(st.text(max_size=10))] = draw(values)
            else:
                made = draw(values)
    return made


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with one to four places changed, cut out or cut off; as often near an end as anywhere."""
    made = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        if not made:
            break
        most = min(len(made), draw(st.sampled_from([16, 600, len(made)])))
        at = draw(st.integers(0, most - 1))
        at = at if draw(st.booleans()) else len(made) - 1 - at
        how = draw(st.sampled_from(["byte", "byte", "run", "cut", "end"]))
        if how == "byte":
            made[at] = draw(st.integers(0, 255))
        elif how == "run":
            made[at : at + 4] = draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b'{"["', b"[[[["]))
        elif how == "cut":
            del made[at : at + draw(st.integers(1, 32))]
        else:
            del made[at:]
    return bytes(made)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


class Files:
    """Copies of a bundle and of a language checkpoint in a folder, and what reads each kind of damage.

    kinds has by name what is drawn and what reads it; what a reader raises is its caller's to judge.
    """

    def __init__(self, bundle: Path, language: Path, folder: Path) -> None:
        self.bundle, self.language = folder / "bundle", folder / "language"
        self.bundle.mkdir()
        for path in bundle.iterdir():
            if not path.name.endswith((".onnx", ".data")):
                shutil.copyfile(path, self.bundle / path.name)
        self.manifest = json.loads((bundle / MANIFEST).read_text())
        self.hashes = {name: sha256(path) for name in self.manifest["files"] if (path := self.bundle / name).exists()}
        shutil.copytree(language, self.language)
        weights = next(self.language.glob("*.safetensors"))
        data = weights.read_bytes()
        size = 8 + int.from_bytes(data[:8], "little")
        num_rest = len(data) - size
        self.template = (bundle / CHAT_TEMPLATE).read_text()
        card = self.manifest["card"]
        self.sizes = card["hidden_size"], card["num_deepstack_levels"]
        header = json.loads(data[8:size])
        index = {"weight_map": {name: weights.name for name in header if name != "__metadata__"}}
        array = (
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }".ljust(127)
            + b"\n"
            + bytes(24)
        )
        mark, config = (json.loads((self.language / name).read_text()) for name in ("edge_vlm.json", "config.json"))
        bare = {name: value for name, value in mark.items() if name != "card"}
        self.kinds: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], object]]] = {
            "manifest": (changed(self.manifest).map(as_json), self._manifest),
            "manifest bytes": (damaged(as_json(self.manifest)), self._manifest),
            "tokenizer": (self._bytes_of(TOKENIZER), lambda made: self._bundle(TOKENIZER, made)),
            "template of a bundle": (self._bytes_of(CHAT_TEMPLATE), lambda made: self._bundle(CHAT_TEMPLATE, made)),
            "codec numbers": (self._bytes_of(NUMBERS), self._numbers),
            "array": (damaged(array), lambda made: read_array(made, "array")),
            "mark": (changed(mark).map(as_json), lambda made: self._card(made, as_json(config))),
            "config": (changed(config).map(as_json), lambda made: self._card(as_json(bare), made)),
            "server's tokenizer": (
                damaged((self.language / TOKENIZER).read_bytes()),
                lambda made: self._written(self.language / TOKENIZER, made, lambda: load_tokenizer(self.language)),
            ),
            "header": (changed(header).map(as_json), lambda made: self._weights(weights, _framed(made), num_rest)),
            "header bytes": (damaged(data[:size]), lambda made: self._weights(weights, made, num_rest)),
            "index": (
                changed(index).map(as_json),
                lambda made: self._written(self.language / INDEX, made, lambda: check_weights(self.language)),
            ),
            "template": (st.tuples(templates, messages), lambda made: render(*made)),
            "messages": (messages, self._messages),
        }

    def _bytes_of(self, name: str) -> st.SearchStrategy[bytes]:
        return damaged((self.bundle / name).read_bytes())

    def _written(self, path: Path, made: bytes, read: Callable[[], object], num_zeros: int = 0) -> None:
        """Read with other bytes in the place of a file, and zeros behind them that take no room."""
        kept = self.bundle.parent / "kept"
        if path.exists():
            path.rename(kept)
        path.write_bytes(made)
        os.truncate(path, len(made) + num_zeros)
        try:
            read()
        finally:
            path.unlink()
            if kept.exists():
                kept.rename(path)

    def _manifest(self, made: bytes) -> None:
        (self.bundle / MANIFEST).write_bytes(made)
        parse_manifest(self.bundle)

    def _bundle(self, name: str, made: bytes) -> None:
        def load() -> None:
            hash_of = sha256(self.bundle / name)
            files = self.hashes | {name: hash_of, "vision.onnx": hash_of}
            shutil.copyfile(self.bundle / name, self.bundle / "vision.onnx")
            (self.bundle / MANIFEST).write_text(json.dumps(self.manifest | {"files": files}))
            Bundle.load(self.bundle)

        self._written(self.bundle / name, made, load)

    def _numbers(self, made: bytes) -> None:
        self._written(self.bundle / NUMBERS, made, lambda: read_numbers(self.bundle, *self.sizes))

    def _card(self, mark: bytes, config: bytes) -> None:
        (self.language / "edge_vlm.json").write_bytes(mark)
        (self.language / "config.json").write_bytes(config)
        read_language_card(self.language)

    def _weights(self, path: Path, start: bytes, num_rest: int) -> None:
        self._written(path, start, lambda: check_weights(self.language), num_rest)

    def _messages(self, made: Any) -> None:
        check_keys(made, self.template)
        list(media_parts(made))
        render(self.template, plain(made), special_tokens=self.manifest["special_tokens"])


def _framed(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def fuzz_files(files: Files, num_cases: int, *, seconds: float = math.inf, derandomize: bool = False) -> dict[str, Any]:
    """What became of num_cases, of every kind in turn, or of as many as go into the time; `bad` names what raised
    anything but a typed error."""
    share, end = -(-num_cases // len(files.kinds)), time.monotonic() + seconds
    counts, bad = {name: Counter[str]() for name in files.kinds}, list[str]()
    while time.monotonic() < end and any(found.total() < share for found in counts.values()):
        for name, kind in files.kinds.items():
            options = settings(
                max_examples=min(share - counts[name].total(), share if derandomize else BATCH),
                deadline=None,
                database=None,
                derandomize=derandomize,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            options(_asker(name, *kind, counts[name], bad))()
        if derandomize:  # the next turn would be the same
            break
    return {
        "cases": sum(found.total() for found in counts.values()),
        "outcomes": {name: dict(found) for name, found in counts.items()},
        "bad": bad[:MAX_KEPT],
        "is_sound": not bad,
    }


def _asker(
    name: str, drawn: st.SearchStrategy[Any], read: Callable[[Any], object], counts: Counter[str], bad: list[str]
) -> Callable[[], None]:
    @given(made=drawn)
    def ask(made: Any) -> None:
        try:
            read(made)
            counts[READ] += 1
        except EdgeVlmError as error:
            counts[REFUSED] += 1
            if len(str(error)) > MAX_MESSAGE:
                bad.append(f"{name}: a message of {len(str(error))} characters")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also those of libraries that derive from no Exception
            counts["raw"] += 1
            bad.append(f"{name}: {type(error).__name__}: {error}, of {made!r}"[:600])

    return ask


def fuzz_in(bundle: Path, language: Path, num_cases: int, **options: Any) -> dict[str, Any]:
    """`fuzz_files` over copies in a folder that goes away: in memory, because ext4 brings a file to the disk each time
    that somebody writes it anew, a third of all the time."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as folder:
        return fuzz_files(Files(bundle, language, Path(folder)), num_cases, **options)


def added(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The findings of several processes as those of one."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in found[0]["outcomes"]}
    for one in found:
        for name, outcomes in one["outcomes"].items():
            counts[name] += Counter(outcomes)
    bad = [line for one in found for line in one["bad"]]
    return {
        "cases": sum(one["cases"] for one in found),
        "outcomes": {name: dict(outcomes) for name, outcomes in counts.items()},
        "bad": bad[:MAX_KEPT],
        "is_sound": not bad,
    }
