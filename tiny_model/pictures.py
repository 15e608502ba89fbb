"""A folder of the bundled model's pictures, each with its questions beside it, as export.codec reads them."""

from pathlib import Path
from random import Random

from tiny_model.questions import about_scene
from tiny_model.scenes import SIDES, shapes_scene, text_scene


def write_pictures(folder: Path, count: int, seed: int, num_questions: int = 3) -> Path:
    """Write `count` pictures, in turns of shapes and of text; returns the folder."""
    folder.mkdir(parents=True)
    random = Random(seed)
    for number in range(count):
        draw = text_scene if number % 2 else shapes_scene
        scene = draw(random, random.choice(SIDES), random.choice(SIDES))
        scene.image.save(folder / f"{number:04d}.png")
        asked = about_scene(random, scene)
        chosen = random.sample(asked, min(num_questions, len(asked)))
        (folder / f"{number:04d}.txt").write_text("\n".join(question.text for question in chosen) + "\n")
    return folder
