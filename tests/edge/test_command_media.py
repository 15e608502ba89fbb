"""What the verbs say about the media on their command line before they open a bundle: here there is none."""

import json
from pathlib import Path

import pytest

from edge_runtime.__main__ import main
from tests.edge.verbs import command

WORDS = {"ask": ["Why?"], "chat": [], "encode": ["--out", "x.npz"], "embed": []}


def refusal(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    """The error of a verb that refuses its input."""
    verb, *rest = args
    assert main([*command(str(verb), Path("no-bundle"), *rest), "--json"]) == 2
    return str(json.loads(capsys.readouterr().out)["error"])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.touch()
    return path


@pytest.mark.parametrize("verb", WORDS)
@pytest.mark.parametrize("name", ["none.png", "none.mp4"])
def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str, name: str) -> None:
    wrong = f"{tmp_path / name} cannot be read: No such file or directory"
    for source in (tmp_path / name, f"file://{tmp_path / name}"):
        assert refusal(capsys, verb, source, *WORDS[verb]) == wrong


@pytest.mark.parametrize("verb", WORDS)
@pytest.mark.parametrize("source", ["picture", "data:image/png;base64,AAAA", "http://localhost/x.png"])
def test_what_is_there_goes_on_to_the_bundle(
    capsys: pytest.CaptureFixture[str], picture: Path, verb: str, source: str
) -> None:
    found = picture if source == "picture" else source
    assert "no edge bundle" in refusal(capsys, verb, found, *WORDS[verb])


@pytest.mark.parametrize("verb", ["ask", "chat", "encode", "batch"])
@pytest.mark.parametrize("option", [("--fps", "2.5"), ("--min-pixels", "4096"), ("--sample-fps", "1.0")])
def test_options_for_videos_need_one(
    capsys: pytest.CaptureFixture[str], picture: Path, verb: str, option: tuple[str, str]
) -> None:
    words: list[str | Path] = ["Why?", picture] if verb == "batch" else [picture, *WORDS[verb]]
    assert refusal(capsys, verb, *words, *option).startswith(f"{' '.join(option)}: for videos only, and none is given")
    (picture.parent / "frames").mkdir()
    last = picture.parent / "frames"
    words = {"batch": ["Why?", picture, last], "encode": [picture, last, "--out", "x.npz"]}.get(verb) or [
        last,
        *WORDS[verb],
    ]
    assert "no edge bundle" in refusal(capsys, verb, *words, *option)


@pytest.mark.parametrize("verb", ["embed", "inspect", "ui"])
def test_verbs_without_videos_have_no_such_options(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(command(verb, Path("no-bundle"), "--fps", "2"))
    assert stop.value.code == 2
    assert "unrecognized arguments: --fps" in capsys.readouterr().err
