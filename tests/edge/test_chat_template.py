"""What a chat template is given and what it may not do; the export compares whole prompts with transformers."""

from collections.abc import Callable
from typing import Any

import pytest

import tests.processor  # noqa: F401  before transformers
from contract.errors import BundleError, InvalidInput
from edge_runtime.prompts import environment
from edge_runtime.prompts.chat_template import render
from edge_runtime.prompts.content import plain

MESSAGES = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Which <shape>?", "name": None},
    {"role": "assistant", "content": [{"type": "text", "text": "A star. "}], "reasoning": "Five points."},
]
SPECIAL = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
TEMPLATES = {
    "generation": "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %};{% endfor %}",
    "generation trimmed": "{%- for m in messages %}\n  {%- generation -%} {{ m.role }} {%- endgeneration %}\n{% endfor %}",
    "special tokens": "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token is defined }}",
    "documents": "{% for d in documents %}{{ d.title }}: {{ d | tojson(indent=1) }}{% endfor %}",
    "variables": "{% if add_vision_id %}{{ ns }}{% endif %}{{ enable_thinking | default('-') }}",
    "reasoning": "{% for m in messages %}{{ m.reasoning_content }}|{{ m.thinking }}|{{ m.reasoning }};{% endfor %}",
    "none": "{% for m in messages %}{{ 'name' in m }}{% endfor %}",
    "loop controls": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
    "loop": "{% for m in messages if m.role != 'user' %}{{ loop.index }}/{{ loop.length }}{{ loop.nextitem }}{% endfor %}",
    "recursive": "{% for m in messages recursive %}{{ m.role or m.text }}{{ loop(m.content) if m.content is not string and m.role }}{% endfor %}",
    "namespace": "{% set ns = namespace(n=0, self='s') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "dict": "{{ dict(a=1, b='<é>') | tojson }}{{ dict.fromkeys(['x']) }}",
    "macro": "{% macro tag(x) %}<{{ x ~ '/' ~ x }}>{% endmacro %}{% for m in messages %}{{ tag(m.role) }}{% endfor %}",
    "date": "{{ strftime_now('%Y-%m-%d') }}",
    "repr": "{{ messages }}",
    "filters": "{{ messages | map(attribute='role') | join(', ') | indent(2) | replace('user', 'USER') | center(80) }}",
    "methods": "{{ '{:>5}|%s' .format('a') % ', '.join(['x', 'y']).ljust(9) }}{{ 'a-b'.split('-') | batch(2) | list }}",
}


def transformers_text(template: str, **options: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [
        {name: value for name, value in m.items() if value is not None} for m in MESSAGES
    ]  # its processor's part
    return render_jinja_template([messages], chat_template=template, **options)[0][0]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_reads_what_transformers_gives_it(template: str) -> None:
    documents = [{"title": "Shapes", "text": "Stars & <b>"}]
    variables = {"add_vision_id": True, "ns": 3}
    theirs = transformers_text(template, documents=documents, add_generation_prompt=True, **SPECIAL, **variables)
    ours = render(template, MESSAGES, documents=documents, special_tokens=SPECIAL, variables=variables)
    assert ours == theirs


LAST = "{% for m in messages %}[{{ m.role }}] {{ m.content if m.content is string else m.content[0].text }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "field"),
    [
        (LAST, True),
        (LAST.replace("[0].text }}", "[0].text | trim }}"), True),
        ("{% for m in messages %}{{ m.reasoning_content }}{{ m.content }}{% endfor %}", "reasoning"),
    ],
)
def test_a_message_is_continued_where_transformers_does(template: str, field: bool | str) -> None:
    ours = render(template, MESSAGES, add_generation_prompt=False, continue_final_message=field)
    assert ours == transformers_text(template, continue_final_message=field)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"continue_final_message": True}, "give one of them"),
        ({"continue_final_message": "thoughts", "add_generation_prompt": False}, "no 'thoughts'"),
        ({"continue_final_message": "role", "add_generation_prompt": False}, "leaves the end"),
        ({"continue_final_message": "reasoning", "add_generation_prompt": False}, "does not read it"),
        ({"variables": {"messages": []}}, "by its own name"),
        ({"documents": ["text"]}, "documents holds str"),
        ({"tools": ["text"]}, "tools holds str"),
    ],
)
def test_what_has_no_meaning_is_refused(options: dict[str, Any], said: str) -> None:
    template = "{{ messages[0].role }}{{ messages[-1].content }}"
    with pytest.raises(InvalidInput, match=said):
        render(template, MESSAGES, **options)


def _nested() -> list[dict[str, Any]]:
    inner: list[Any] = []
    for _ in range(100_000):
        inner = [inner]
    return [{"role": "user", "content": inner}]


@pytest.mark.parametrize(
    "template",
    [
        "{% set r = range(9999) %}{% for a in r %}{% for b in r %}{% for c in r %}{% endfor %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% for i in range(9) %}{{ f(n) if n > 40 else f(n + 1) }}{% endfor %}{% endmacro %}{{ f(0) }}",
        "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(n=99) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ '%0999999999d' % 5 }}",
        "{{ '%*d' % (999999999, 5) }}",
        "{{ '%999999999s' | format('a') }}",
        "{{ '{:999999999}'.format('a') }}",
        "{{ '{:{w}}'.format('a', w=999999999) }}",
        "{{ ('{0}' * 99999).format('a' * 99999) }}",
        "{{ lipsum(n=10 ** 6) }}",
        "{{ [1] | slice(10 ** 8) | list | length }}",
        "{{ 'a' | batch(10 ** 9, 'x') | list | length }}",
        "{{ 'aaaa'.replace('a', 'b' * 10 ** 6).replace('b', 'c' * 10 ** 6) }}",
        "{{ ('a' * 10 ** 6) | replace('a', 'c' * 10 ** 6) }}",
        "{{ ['a' * 10 ** 6] | map('replace', 'a', 'c' * 10 ** 6) | list }}",
        "{{ 'a'.ljust(2 * 10 ** 9) | length }}",
        "{{ 'a' | center(10 ** 9) }}",
        "{{ ('a\n' * 9999) | indent(10 ** 6) }}",
        "{{ ('\t' * 9999).expandtabs(10 ** 6) | length }}",
        "{{ ('a' * 9999).translate({97: 'b' * 10 ** 6}) | length }}",
        "{{ ('a' * 10 ** 6) | wordwrap(1, true, 'b' * 10 ** 6) }}",
        "{{ messages | tojson(indent=10 ** 7) }}",
        "{{ ('b' * 10 ** 6).join('a' * 10 ** 6) }}",
        "{{ range(99999) | join('b' * 10 ** 6) }}",
        "{{ ['a' * 10 ** 6] * 10 ** 6 }}",
    ],
)
def test_a_template_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    monkeypatch.setattr(environment, "MAX_SECONDS", 0.3)
    with pytest.raises(InvalidInput, match=r"is stopped|too deeply"):
        render(template, MESSAGES)


@pytest.mark.parametrize(
    ("template", "messages"),
    [
        ("{{ raise_exception('roles must alternate') }}", lambda: MESSAGES),
        ("{{ messages.clear() }}", lambda: MESSAGES),
        ("{{ namespace(_x=1) }}", lambda: MESSAGES),
        ("{{ ''.__class__ }}{{ 1 / 0 }}", lambda: MESSAGES),
        ("{{ messages }}", _nested),
        ("{{ messages }}", lambda: ["text"]),
    ],
)
def test_a_refusal_is_typed(template: str, messages: Callable[[], Any]) -> None:
    with pytest.raises(InvalidInput, match="messages"):
        render(template, messages())


@pytest.mark.parametrize(
    "template",
    ["{% if %}", "{{" + "(" * 3000, "{{" + "(" * 3000 + "1" + ")" * 3000 + "}}", "{% if x %}" * 3000 + "{% endif %}" * 3000,
     "{% for x in y %}" * 30 + "{% endfor %}" * 30],
    ids=["syntax", "open brackets", "brackets", "conditions", "loops"],
)  # fmt: skip
def test_a_template_that_cannot_be_compiled_is_blamed_itself(template: str) -> None:
    with pytest.raises(BundleError, match=r"^chat_template\.jinja is no template: .*: mend it"):
        render(template, MESSAGES)


def test_links_are_the_pictures_and_videos_that_templates_know() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "data:,x"}},
        {"type": "image_url", "image_url": "data:,y"},
        {"type": "video_url", "video_url": {"url": "z"}},
    ]
    assert plain([{"role": "user", "content": parts}])[0]["content"] == [
        {"type": "image", "url": "data:,x"},
        {"type": "image", "url": "data:,y"},
        {"type": "video"},
    ]
