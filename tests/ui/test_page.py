"""The page in a real browser, over a real Triton and the bundled model: what a visitor does, and sees."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from playwright.sync_api import Browser, Page, expect

from edge_runtime.ui import panel
from edge_runtime.ui.conversation import Turn
from tests.gateway.drawings import moving
from tests.serving.test_launcher import processes
from tests.ui.ui_process import ui_process
from tiny_model.questions import CLAIMED, Question, about_scene
from tiny_model.scenes import shapes_scene

PATIENCE_MS = 60_000
CLICK_STOP = """() => { window.isStopped = false; new MutationObserver((_, watcher) => {
    const stop = document.querySelector('#stop');
    if (stop && stop.offsetParent) { watcher.disconnect(); stop.click(); window.isStopped = true; }
}).observe(document.body, {childList: true, subtree: true, attributes: true}); }"""  # sooner than any hand
PHONE = {"width": 390, "height": 844}


@pytest.fixture
def drawn(tmp_path: Path) -> tuple[Path, dict[str, Question]]:
    """A picture file and questions about it by kind."""
    random = Random(7)
    scene = shapes_scene(random, 160, 128, 3)
    path = tmp_path / "picture.png"
    scene.image.save(path)
    return path, {question.kind: question for question in about_scene(random, scene) if question.kind in CLAIMED}


@pytest.fixture
def page(browser: Browser, page_url: str) -> Iterator[Page]:
    with browser.new_context(permissions=["camera"]) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        foreign: list[str] = []
        page.on("request", lambda request: foreign.append(request.url))
        page.goto(page_url)
        page.locator("#question textarea").wait_for()
        yield page
        assert [url for url in foreign if not url.startswith((page_url, "data:", "blob:"))] == []


def upload(page: Page, kind: str, path: Path) -> None:
    if kind == "video":
        page.get_by_role("tab", name="Video").click()
    page.locator(f"#{kind} input[type=file]").first.set_input_files(path)
    page.locator(f"#{kind} {'video' if kind == 'video' else '.image-frame img'}").first.wait_for()


def ask(page: Page, question: str) -> None:
    page.locator("#question textarea").fill(question)
    page.locator("#send").click()


def last_answer(page: Page) -> str:
    return page.locator("#chat .bot").last.inner_text().strip()


def decoders_of_pages() -> int:
    """Processes that decode for a page, which decodes nothing itself."""
    found = {pid: " ".join(words) for pid, words in processes().items()}
    decoders = [pid for pid, line in found.items() if "edge_runtime.items.worker" in line]
    parents = [int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in decoders]
    return sum("edge_runtime ui" in found.get(parent, "") for parent in parents)


def test_a_visitor_asks_twice_about_a_picture(page: Page, drawn: tuple[Path, dict[str, Question]]) -> None:
    path, questions = drawn
    first, second = questions["describe"], questions["count"]
    upload(page, "picture", path)
    page.evaluate(
        """() => { window.seen = []; new MutationObserver(() => {
            const all = document.querySelectorAll('#chat .bot');
            if (all.length) window.seen.push(all[all.length - 1].innerText.trim());
        }).observe(document.querySelector('#chat'), {childList: true, subtree: true, characterData: true}); }"""
    )
    ask(page, first.text)
    expect(page.locator("#chat .bot").last).to_contain_text(first.answer)
    seen = list(dict.fromkeys(page.evaluate("() => window.seen")))
    growing = [text for text in seen if text not in ("", "…") and "Encoding" not in text]
    assert len(growing) > 1, seen  # it came in pieces
    assert all(first.answer.startswith(text.split("\n")[0]) for text in growing), growing
    assert decoders_of_pages() == 1
    costs = page.locator("#costs")
    expect(costs).to_contain_text("1 of 1 encoded")
    expect(costs).to_contain_text(re.compile(r"1 uploaded in fp16, \d+\.\d times the JPEG"))
    expect(costs).to_contain_text(re.compile(r"first token \d+ ms"))
    expect(costs.locator("table")).to_have_css("border-left-width", "0px")  # Gradio draws a black box

    ask(page, second.text)
    expect(page.locator("#chat .bot")).to_have_count(2)
    expect(page.locator("#chat .bot").last).to_contain_text(second.answer)
    expect(costs).to_contain_text("1 known: nothing encoded")
    expect(costs).to_contain_text("nothing uploaded")

    assert page.get_by_label("Share").locator("visible=true").count() == 0  # a picture would leave the device

    page.locator("#again").click()
    expect(page.locator("#chat .bot")).to_have_count(0)
    expect(page.locator("#picture .image-frame img")).to_have_count(0)


def test_the_panel_says_what_travels_in_the_place_of_a_codec() -> None:
    turn = Turn(num_uploaded=1, codec="int8", upload_bytes=2048, jpeg_bytes=1024, fallback="precision is <ecq>")
    shown = panel.costs(turn, "server")
    assert "1 uploaded in int8, 2.0 times the JPEG" in shown
    assert "2.0 KiB" in shown
    assert "precision is &lt;ecq&gt;" in shown


def test_a_video(page: Page, tmp_path: Path) -> None:
    path, question = moving(tmp_path / "clip.mp4", 0)
    upload(page, "video", path)
    ask(page, question.text)
    expect(page.locator("#chat .bot").last).to_contain_text(question.answer)
    expect(page.locator("#costs")).to_contain_text("1 of 1 encoded")


def test_a_picture_from_the_webcam(page: Page) -> None:
    page.locator("#picture").get_by_label("Capture from camera").click()
    page.locator("#picture").get_by_text("Click to Access Webcam").click()
    page.wait_for_function("() => { const v = document.querySelector('#picture video'); return v && v.videoWidth > 0 }")
    page.locator("#picture").get_by_label("capture photo").click()
    page.locator("#picture .image-frame img").wait_for()
    ask(page, "What is in the picture?")
    expect(page.locator("#costs")).to_contain_text("1 of 1 encoded")


def test_both_cards_are_shown(page: Page) -> None:
    expect(page.locator("#server")).to_contain_text("transformers")
    page.get_by_role("button", name="Bundle on this device").click()
    expect(page.locator("#bundle")).to_contain_text("qwen3_vl")


def test_dark_and_light(page: Page) -> None:
    title = page.locator("#head h1")
    black, white = re.compile(r"rgb\((\d|[1-5]\d), "), re.compile(r"rgb\(2\d\d, ")
    expect(title).to_have_css("color", black)
    page.locator("#theme").click()
    expect(title).to_have_css("color", white)
    page.locator("#theme").click()
    expect(title).to_have_css("color", black)


def test_a_phones_screen(page: Page, drawn: tuple[Path, dict[str, Question]]) -> None:
    page.set_viewport_size(PHONE)
    path, questions = drawn
    upload(page, "picture", path)
    ask(page, questions["count"].text)
    expect(page.locator("#chat .bot").last).to_contain_text(questions["count"].answer)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.locator("#chat").bounding_box()["y"] < PHONE["height"] / 2  # type: ignore[index]  the chat comes first
    for name in ("#send", "#question textarea"):
        box = page.locator(name).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
        assert box["height"] >= 36  # a thumb's


def prompt_tokens(page: Page) -> int:
    """The tokens of the last turn, as the page shows them."""
    found = re.search(r"(\d+) tokens, \d+ visual", page.locator("#costs").inner_text())
    assert found is not None
    return int(found[1])


def answered(page: Page, count: int) -> None:
    expect(page.locator("#chat .bot")).to_have_count(count)
    expect(page.locator("#costs")).to_contain_text(re.compile(r"\d+ / s"))
    expect(page.locator("#stop")).to_be_hidden()  # the answer is whole, and remembered


def emptied(page: Page) -> None:
    """The server's answer is here, and not only what the browser takes away at once."""
    expect(page.locator("#chat .bot")).to_have_count(0)
    expect(page.locator("#costs table")).to_have_count(0)


def test_the_bin_empties_the_memory_too(page: Page) -> None:
    ask(page, "How many shapes are there?")
    answered(page, 1)
    first = prompt_tokens(page)
    page.locator("#chat").get_by_label("Clear").click()
    emptied(page)
    ask(page, "How many shapes are there?")
    answered(page, 1)
    assert prompt_tokens(page) == first


def test_a_picture_that_was_removed_is_in_no_later_prompt(page: Page, drawn: tuple[Path, dict[str, Question]]) -> None:
    path, questions = drawn
    upload(page, "picture", path)
    ask(page, questions["count"].text)
    answered(page, 1)
    expect(page.locator("#costs")).to_contain_text(re.compile("1 of 1 encoded|1 known"))
    page.locator("#picture").get_by_label("Remove Image").click()
    expect(page.locator("#picture .image-frame img")).to_have_count(0)
    ask(page, "Hello?")
    answered(page, 2)
    expect(page.locator("#costs")).to_contain_text("no picture")


def test_a_picture_and_a_video_are_both_seen(
    page: Page, drawn: tuple[Path, dict[str, Question]], tmp_path: Path
) -> None:
    upload(page, "picture", drawn[0])
    clip, question = moving(tmp_path / "clip.mp4", 0)
    upload(page, "video", clip)
    ask(page, question.text)
    answered(page, 1)
    expect(page.locator("#costs")).to_contain_text(re.compile("[12] of 2 encoded|2 known"))


def test_a_damaged_picture_is_said_clearly(page: Page, drawn: tuple[Path, dict[str, Question]], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(drawn[0].read_bytes()[:200])
    page.locator("#picture input[type=file]").first.set_input_files(damaged)
    page.locator("#picture .image-frame img").wait_for(state="attached")  # it is uploaded, and nothing is to be seen
    ask(page, "What is it?")
    expect(page.locator("#chat .bot .failure")).to_contain_text("damaged.png: picture cannot be decoded")


def test_stop_before_the_first_token(page: Page, tmp_path: Path) -> None:
    """Each picture is a new one, so that its encoding holds the button on the page for longer than a frame."""
    for number in range(3):
        path = tmp_path / f"{number}.png"
        shapes_scene(Random(500 + number), 320, 256, 3).image.save(path)
        upload(page, "picture", path)
        page.evaluate(CLICK_STOP)
        ask(page, "Describe the image.")
        page.wait_for_function("() => window.isStopped")
        expect(page.locator("#chat")).not_to_contain_text("…")
        expect(page.locator("#stop")).to_be_hidden()
        page.wait_for_timeout(700)
        assert page.get_by_test_id("toast-body").count() == 0  # no red box without words
        page.locator("#again").click()
        expect(page.locator("#chat .bot")).to_have_count(0)
        expect(page.locator("#picture .image-frame img")).to_have_count(0)


def test_an_empty_page_says_what_to_do_and_offers_questions(page: Page) -> None:
    expect(page.locator("#chat")).to_contain_text("Choose a picture or a video")
    expect(page.locator("#stop")).to_be_hidden()
    page.locator("#chat").get_by_text("What text is in the image?").click()
    expect(page.locator("#question textarea")).to_have_value("What text is in the image?")


def test_the_embeddings_are_drawn_and_the_upload_stands_beside_a_jpeg(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "new.png"
    shapes_scene(Random(1979), 192, 128, 3).image.save(path)  # no other test sends it, so this one uploads it
    upload(page, "picture", path)
    ask(page, "What is in the picture?")
    expect(page.locator("#seen figure")).to_have_count(5)  # the picture, the main embeddings, three levels
    page.wait_for_function("() => [...document.querySelectorAll('#seen img')].every(one => one.naturalWidth > 20)")
    answered(page, 1)
    expect(page.locator("#costs")).to_contain_text("1 uploaded")
    expect(page.locator("#costs .bars dd")).to_have_count(2)


def test_several_pictures_go_into_one_turn(page: Page, drawn: tuple[Path, dict[str, Question]], tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    shapes_scene(Random(8), 128, 128, 2).image.save(other)
    upload(page, "picture", drawn[0])
    expect(page.locator("#clear-beside")).to_be_hidden()
    page.locator("#add").click()
    expect(page.locator("#beside img")).to_have_count(1)
    upload(page, "picture", other)
    ask(page, "What is in the pictures?")
    answered(page, 1)
    expect(page.locator("#costs")).to_contain_text(re.compile("[12] of 2 encoded|2 known"))
    page.locator("#clear-beside").click()
    expect(page.locator("#beside img")).to_have_count(0)
    expect(page.locator("#clear-beside")).to_be_hidden()
    ask(page, "And now?")
    answered(page, 2)
    expect(page.locator("#costs")).to_contain_text("1 known")


def test_a_smaller_picture_takes_fewer_tokens(page: Page, drawn: tuple[Path, dict[str, Question]]) -> None:
    upload(page, "picture", drawn[0])
    ask(page, "What is in the picture?")
    answered(page, 1)
    full = prompt_tokens(page)
    number = page.locator("#pixels input[type=number]")
    number.fill(number.get_attribute("min") or "")
    number.press("Enter")
    expect(page.locator("#size")).to_contain_text(re.compile(r"up to \d+ tokens, .* in fp16, about"))
    page.locator("#chat").get_by_label("Clear").click()
    expect(page.locator("#chat .bot")).to_have_count(0)
    expect(page.locator("#picture .image-frame img")).to_have_count(0)  # the answer to Clear takes the picture away
    upload(page, "picture", drawn[0])
    ask(page, "What is in the picture?")
    answered(page, 1)
    assert prompt_tokens(page) < full


def test_an_answer_is_asked_for_anew_and_a_question_is_edited(page: Page) -> None:
    for count, question in enumerate(("How many shapes are there?", "What colour is it?"), 1):
        ask(page, question)
        answered(page, count)
    before = prompt_tokens(page)
    page.locator("#costs table").evaluate("old => old.setAttribute('data-old', '')")
    page.locator("#chat").get_by_label("Retry").last.click()
    expect(page.locator("#costs [data-old]")).to_have_count(0)  # the costs are those of the new turn
    answered(page, 2)
    expect(page.locator("#chat .user")).to_have_count(2)
    assert prompt_tokens(page) == before
    page.locator("#chat").get_by_label("Edit").first.click()
    page.locator("#chat textarea").fill("Where is the star?")
    page.locator("#chat").get_by_label("Submit").click()
    expect(page.locator("#chat")).not_to_contain_text("What colour is it?")
    answered(page, 1)
    expect(page.locator("#chat .user")).to_contain_text("Where is the star?")


def test_a_system_prompt_reaches_the_model_and_the_saved_file(page: Page, tmp_path: Path) -> None:
    ask(page, "Hello?")
    answered(page, 1)
    without = prompt_tokens(page)
    page.locator("#again").click()
    emptied(page)
    page.get_by_role("button", name="Answer").click()
    page.locator("#system textarea").fill("You count shapes.")
    ask(page, "Hello?")
    answered(page, 1)
    assert prompt_tokens(page) > without
    with page.expect_download() as saved:
        page.locator("#export").click()
    saved.value.save_as(tmp_path / "conversation.json")
    messages = json.loads((tmp_path / "conversation.json").read_text())["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert messages[0]["content"] == "You count shapes."


def test_a_server_that_is_away_is_said_clearly(
    browser: Browser, bundle_folder: Path, drawn: tuple[Path, dict[str, Question]]
) -> None:
    path, questions = drawn
    with ui_process(bundle_folder, "127.0.0.1:9") as url, browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        expect(page.locator("#server .failure")).to_contain_text("127.0.0.1:9", timeout=PATIENCE_MS)
        upload(page, "picture", path)
        ask(page, questions["count"].text)
        expect(page.locator("#chat .bot .failure")).to_contain_text("is Triton running", timeout=PATIENCE_MS)
        expect(page.locator("#question textarea")).to_have_value(questions["count"].text)  # nothing is lost
