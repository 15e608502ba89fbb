"""What speaks to the page without being it: crafted calls, other sites, other names. Only harmless files are asked for."""

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from edge_runtime.clients.grpc_client import GrpcClient
from edge_runtime.pipeline import Pipeline
from edge_runtime.tower.encoder import Encoder
from edge_runtime.ui.conversation import Conversation, Media, Said
from edge_runtime.ui.page import Page
from edge_runtime.ui.uploads import Uploads
from tests.conftest import ROOT
from tests.gateway.drawings import drawn
from tests.ui.ui_process import ui_process


def call(url: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        names = {"Content-Type": "application/json"} if body is not None else {}
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, data, names | headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def asked(url: str, picture: Any) -> str:
    """What the queue answers to a call that names a file."""
    _, text = call(url, "/config")
    calls = json.loads(text)["dependencies"]
    (asks,) = {tuple(one["inputs"]) for one in calls if len(one["inputs"]) > 4}  # by the button, by Enter, asked anew
    answers = []
    for one in calls:
        if tuple(one["inputs"]) == asks:
            data, session = ["What is it?", picture, *[None] * (len(asks) - 2)], uuid4().hex
            body = {"data": data, "fn_index": one["id"], "session_hash": session}
            status, said = call(url, "/gradio_api/queue/join", body)
            assert status == 200, said
            answers.append(call(url, f"/gradio_api/queue/data?session_hash={session}")[1])
    return "\n".join(answers)


@pytest.mark.parametrize("is_file_data", [False, True])
def test_a_crafted_call_reads_no_file_of_the_machine(page_url: str, tmp_path: Path, is_file_data: bool) -> None:
    path = tmp_path / "picture.png"
    drawn(1)[0].image.save(path)
    meta = {"meta": {"_type": "gradio.FileData"}} if is_file_data else {}
    for name in (path, ROOT / "docs" / "images" / "ui-light.png", Path("docs/images/ui-light.png")):
        assert (ROOT / name).is_file()
        said = asked(page_url, {"path": str(name)} | meta)
        assert "tokens" not in said
        assert "encoded" not in said
        assert "process_completed" in said
        assert '"success":true' not in said.replace(" ", "")
        assert '"success":false' in said.replace(" ", "")


def test_names_are_judged_where_they_lead(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "mine.png").write_bytes(b"x")
    (tmp_path / "theirs.png").write_bytes(b"x")
    (folder / "link.png").symlink_to(tmp_path / "theirs.png")
    (folder / "circle").symlink_to(folder / "circle")
    uploads = Uploads(folder)
    assert uploads.file(str(folder / "mine.png")) == str(folder / "mine.png")
    names = (tmp_path / "theirs.png", folder / ".." / "theirs.png", folder / "link.png", folder / "circle", folder)
    for name in (*map(str, names), "", None, "a\0b", f"{folder}/{'x' * 5000}", "http://127.0.0.1/x.png"):
        with pytest.raises(ValueError, match="not uploaded"):
            uploads.file(name)


def test_another_name_is_not_answered(page_url: str) -> None:
    for path, body in (("/", None), ("/config", None), ("/gradio_api/upload", b"x")):
        status, text = call(page_url, path, body, Host="pictures.example")
        assert (status, json.loads(text)["error"]["code"]) == (400, "invalid_host")
    assert call(page_url, "/config", Host="localhost")[0] == 200


def test_a_page_of_another_site_may_not_upload(page_url: str) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\nx\r\n--b--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    for origin in ("https://pictures.example", "null", "http://127.0.0.1:1"):
        assert call(page_url, "/gradio_api/upload", form, Origin=origin, **kind)[0] == 403
    own = page_url.rstrip("/")
    assert call(page_url, "/gradio_api/upload", form, Origin=own, Host=urlsplit(own).netloc, **kind)[0] == 200


def test_what_gradio_cannot_read_is_the_callers_fault(page_url: str) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.txt"\r\n\r\nx\r\n--b--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    path = json.loads(call(page_url, "/gradio_api/upload", form, **kind)[1])[0]
    for fn_index in (9999, -1, 1 << 70, "x", None):
        body = {"fn_index": fn_index, "data": [], "session_hash": "a"}
        assert 400 <= call(page_url, "/gradio_api/queue/join", body)[0] < 500, fn_index
    for way in ("call", "run", "api"):
        assert call(page_url, f"/gradio_api/{way}/nothing", {"data": []})[0] == 400
    for body in ({"data": []}, {"data": [1], "fn_index": 999}):
        assert call(page_url, "/gradio_api/api/predict", body)[0] == 400
    status, said = call(page_url, f"/gradio_api/file={path}", Range="bytes=0-0,0-0")
    assert (status, "cannot read this request" in said) == (400, True)
    assert call(page_url, f"/gradio_api/file={path}", Range="bytes=0-0") == (206, "x")


def test_a_malformed_event_is_one_line_in_the_log(bundle_folder: Path) -> None:
    """Each of these was a traceback of Gradio."""
    log: list[str] = []
    with ui_process(bundle_folder, "127.0.0.1:1", log=log) as url:
        for one in json.loads(call(url, "/config")[1])["dependencies"]:
            for data in ([], [{"path": 5}] * len(one["inputs"]), ["x"] * len(one["inputs"])):
                for event in (None, {"index": "x", "value": {}}):
                    body = {"data": data, "fn_index": one["id"], "event_data": event, "session_hash": uuid4().hex}
                    if call(url, "/gradio_api/queue/join", body)[0] == 200:
                        call(url, f"/gradio_api/queue/data?session_hash={body['session_hash']}")
        file = {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}
        for way in ("run", "api"):
            for data in ([], [file]):
                body = {"data": data, "fn_index": 1, "session_hash": "x"}
                status, words = call(url, f"/gradio_api/{way}/predict", body)
                assert (status, "cannot read this event" in words) == (400, True), words
    said = "".join(log)
    assert "Traceback" not in said
    for name in ("ask", "size", "of a turn", "of an example"):
        assert f"the event '{name}' cannot be read: " in said


def test_the_prompt_holds_what_is_shown() -> None:
    one, two = Media("image", Path("/one")), Media("video", Path("/two"))
    talk = Conversation([Said("a?", (one,), "a.")], "Be brief.")
    assert talk.new([one, two, two]) == (two,)
    system, first, said, second = talk.messages([one, two], "b?")
    assert system == {"role": "system", "content": "Be brief."}
    assert first["content"] == [{"type": "image", "image": "/one"}, {"type": "text", "text": "a?"}]
    assert said == {"role": "assistant", "content": "a."}
    assert second["content"] == [{"type": "video", "video": "/two"}, {"type": "text", "text": "b?"}]
    _, first, _, _ = talk.messages([two], "b?")
    assert first["content"] == [{"type": "text", "text": "a?"}]
    talk.pending = Said("c?", (), "")
    assert (talk.settle(), len(talk.said)) == ("c?", 1)
    talk.pending = Said("c?", (), "c")
    assert (talk.settle(), talk.said[-1].answer) == ("", "c")


@pytest.mark.parametrize(("question", "system"), [("word " * 100_000, ""), ("Hi", "word " * 100_000)])
def test_a_text_that_no_context_holds_is_refused_unread(bundle_folder: Path, question: str, system: str) -> None:
    """30 MiB of it took the page minutes and 12 GB to tokenise."""
    page = Page(Pipeline(Encoder.from_bundle(bundle_folder)), GrpcClient("127.0.0.1:1"), "")
    *_, last = page.ask(question, None, None, 4, 0.0, system, 1 << 20, Conversation())
    assert "characters, up to" in last[1][-1]["content"]
