"""Questions about scenes and clips, with the one answer that counts as right.

Every question has a kind; the evaluation table is per kind, and CLAIMED names the kinds the bundled model promises.
"""

from dataclasses import dataclass
from random import Random

from tiny_model.clips import DrawnClip
from tiny_model.scenes import COLORS, SHAPES, Scene, Shape

DESCRIBE = ("Describe the image.", "Describe this image.", "What is in the image?", "What do you see?")
READ = ("What text is shown?", "Read the text.", "What does the text say?", "What is written in the image?")
NUMBERS = ("zero", "one", "two", "three", "four")
SUBJECTS = {
    "shapes": ("relation", "where", "color_of", "describe", "count", "count_shape", "count_color", "what_at"),
    "text": ("read_text", "text_color", "describe_text"),
    "moving": ("motion",),
    "slideshow": ("first", "last", "shown_at"),
}
IMAGE_KINDS = SUBJECTS["shapes"] + SUBJECTS["text"]
VIDEO_KINDS = SUBJECTS["moving"] + SUBJECTS["slideshow"]
UNCLAIMED = ("relation",)  # training asks it, the model answers at chance (docs/decisions/tiny_model.md)
CLAIMED = tuple(kind for kind in IMAGE_KINDS + VIDEO_KINDS if kind not in UNCLAIMED)


@dataclass(frozen=True)
class Question:
    """One question, its kind, and the exact answer."""

    kind: str
    text: str
    answer: str


def plural(noun: str) -> str:
    """The plural of a noun: circles, crosses."""
    return noun + ("es" if noun.endswith("s") else "s")


def an(noun: str) -> str:
    """A noun with its article: an orange star, a red circle."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _count(number: int, noun: str) -> str:
    return f"There is one {noun}." if number == 1 else f"There are {NUMBERS[number]} {plural(noun)}."


def description(shapes: tuple[Shape, ...]) -> str:
    """Every shape with its region, in reading order."""
    parts = [f"{an(s.name)} at the {s.region}" for s in shapes]
    text = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return text[0].upper() + text[1:] + "."


def _about_shapes(random: Random, shapes: tuple[Shape, ...]) -> list[Question]:
    kind = random.choice([s.kind for s in shapes] + [random.choice(SHAPES)])
    color = random.choice([s.color for s in shapes] + [random.choice(list(COLORS))])
    seen = random.choice(shapes)
    questions = [
        Question("describe", random.choice(DESCRIBE), description(shapes)),
        Question(
            "count",
            random.choice(["How many shapes are there?", "How many shapes are in the image?", "Count the shapes."]),
            _count(len(shapes), "shape"),
        ),
        Question(
            "count_shape",
            random.choice(["How many {} are there?", "How many {} are in the image?", "Count the {}."]).format(
                plural(kind)
            ),
            _count(sum(s.kind == kind for s in shapes), kind),
        ),
        Question(
            "count_color",
            random.choice(["How many {} shapes are there?", "Count the {} shapes."]).format(color),
            _count(sum(s.color == color for s in shapes), f"{color} shape"),
        ),
        Question(
            "what_at",
            random.choice(["What is at the {}?", "What shape is at the {}?"]).format(seen.region),
            f"There is {an(seen.name)} at the {seen.region}.",
        ),
    ]
    single = [s for s in shapes if sum(other.kind == s.kind for other in shapes) == 1]
    if single:
        s = random.choice(single)
        text = random.choice(["What color is the {}?", "What is the color of the {}?"]).format(s.kind)
        questions.append(Question("color_of", text, f"The {s.kind} is {s.color}."))
        s = random.choice(single)
        questions.append(Question("where", f"Where is the {s.kind}?", f"The {s.kind} is at the {s.region}."))
    if len(single) >= 2:
        a, b = random.sample(single, 2)
        if abs(a.x - b.x) > 14:
            side = random.choice(["left", "right"])
            answer = "Yes." if (a.x < b.x) == (side == "left") else "No."
            questions.append(Question("relation", f"Is the {a.kind} to the {side} of the {b.kind}?", answer))
    return questions


def about_scene(random: Random, scene: Scene) -> list[Question]:
    """One question of every kind that fits the scene."""
    if scene.shapes:
        return _about_shapes(random, scene.shapes)
    return [
        Question("read_text", random.choice(READ), f'The text is "{scene.text}".'),
        Question("text_color", "What color is the text?", f"The text is {scene.text_color}."),
        Question("describe_text", random.choice(DESCRIBE), f'The {scene.text_color} text "{scene.text}".'),
    ]


def about_clip(random: Random, clip: DrawnClip, timestamps: list[str]) -> list[Question]:
    """Questions about a clip; timestamps are the texts that stand before each temporal pair, such as "1.2"."""
    if clip.direction:
        answer = f"The {clip.shapes[0].kind} moves {clip.direction}."
        text = random.choice(["Which way does the shape move?", "Where does the shape move?"])
        return [Question("motion", text, answer)]
    pair = random.randrange(len(clip.shown))

    def say(shape: Shape) -> str:
        return f"{an(shape.name)[0].upper()}{an(shape.name)[1:]}."

    return [
        Question("first", "What appears first?", say(clip.shown[0])),
        Question("last", "What appears last?", say(clip.shown[-1])),
        Question("shown_at", f"What is shown at {timestamps[pair]} seconds?", say(clip.shown[pair])),
    ]
