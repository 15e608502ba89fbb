"""`make screenshots`: the page as docs/images shows it, over the bundled model and a real Triton."""

from pathlib import Path

from playwright.sync_api import Page, expect

from serving.settings import Settings
from serving.triton.launcher import TritonServer
from tests.conftest import CHECKPOINT, ROOT, run_module
from tests.gateway.drawings import drawn
from tests.ui.browser import browser
from tests.ui.ui_process import ui_process

IMAGES, WORK = ROOT / "docs" / "images", ROOT / ".cache" / "screenshots"
SIZES = {"ui": (1280, 960), "ui-phone": (390, 844)}


def talk(page: Page, picture: Path, questions: list[str]) -> None:
    page.locator("#picture input[type=file]").first.set_input_files(picture)
    page.locator("#picture .image-frame img").first.wait_for()
    for number, question in enumerate(questions, 1):
        page.locator("#question textarea").fill(question)
        page.locator("#send").click()
        expect(page.locator("#chat .bot")).to_have_count(number, timeout=60_000)
        expect(page.locator("#costs")).to_contain_text("/ s", timeout=60_000)
        page.wait_for_timeout(1500)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    for verb in ("vision", "language"):
        run_module(f"export.{verb}", CHECKPOINT, WORK / verb)
    scene, questions = drawn(7)
    picture = WORK / "picture.png"
    scene.image.save(picture)
    chosen = {question.kind: question.text for question in questions}
    asked = [chosen["describe"], chosen["count"]]
    with (
        TritonServer(Settings(model=str(WORK / "language"))) as server,
        ui_process(WORK / "vision", server.grpc_url) as url,
        browser() as running,
    ):
        for name, (width, height) in SIZES.items():
            for theme in ("light", "dark"):
                with running.new_context(viewport={"width": width, "height": height}) as context:
                    page = context.new_page()
                    page.goto(f"{url}?__theme={theme}")
                    talk(page, picture, asked)
                    path = IMAGES / f"{name}-{theme}.png"
                    page.screenshot(path=path)
                    print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
