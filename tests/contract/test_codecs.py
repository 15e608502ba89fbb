"""Learned codecs: what comes back, in how many bytes, with loud channels; damaged streams; the numbers' file."""

import hashlib
import shutil
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.codecs import ecq, int8, klt, nibbles, rans
from contract.codecs.codec import CODECS, decode
from contract.codecs.learn import learn
from contract.codecs.numbers import NAME, USED, CodecNumbers, read_numbers
from contract.embeddings import check_embeddings
from contract.errors import BundleError, InvalidInput
from contract.items import ItemRows, item_key
from contract.limits import Limits
from edge_runtime import Request
from edge_runtime.encoded_item import EncodedItem
from export.upload.learn import Statistics
from tests.contract.streams import CHECKSUM, damaged, sealed

LEVELS, H = 4, 64
NUM_DAMAGED = 2_000  # benchmarks/payload.py tries 20,000


def rows(count: int, seed: int, loud: float = 1, width: int = H) -> NDArray[np.float32]:
    """Normal rows (levels, count, width) of unlike sizes; every 50th channel is `loud` times louder."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((LEVELS, count, width)) * np.array([0.3, 1, 40, 2])[:, None, None]
    values *= random.uniform(0.5, 2, (LEVELS, count, 1))
    values[..., ::50] *= loud
    return values.astype(np.float32)


def numbers(loud: float = 1, width: int = H) -> CodecNumbers:
    return learn(rows(400, 1, loud, width))


def coded(name: str, levels: NDArray[np.float32], known: CodecNumbers) -> tuple[NDArray[np.float32], int]:
    """What comes back, and the bytes that travelled."""
    arrays = CODECS[name].encode(levels[0], levels[1:], known)
    main, deepstack = CODECS[name].decode(*arrays, known)
    assert (main.dtype, deepstack.dtype) == (np.float32, np.float32)
    return np.concatenate([main[None], deepstack]), sum(array.nbytes for array in arrays)


def quiet_error(got: NDArray[np.float32], true: NDArray[np.float32]) -> float:
    """Relative squared error of the channels that are not loud."""
    quiet = np.arange(true.shape[-1]) % 50 != 0
    return float((((got - true) ** 2)[..., quiet].sum((1, 2)) / (true**2)[..., quiet].sum((1, 2))).max())


@pytest.mark.parametrize(("name", "most"), [("int8c", 1e-4), ("int4", 1.6e-2), ("ecq", 3e-2)])
@pytest.mark.parametrize("loud", [1, 20])
def test_loud_channels_cost_the_quiet_ones_nothing(name: str, most: float, loud: float) -> None:
    true = rows(100, 2, loud, 256)
    got, _ = coded(name, true, numbers(loud, 256))
    assert quiet_error(got, true) < most


def test_without_channel_scales_they_do() -> None:
    """The reason for them, and the proof that the test above can fail."""
    true = rows(100, 2, 20, 256)
    main, deepstack = int8.dequantise(*int8.quantise(true[0], true[1:]))
    assert quiet_error(np.concatenate([main[None], deepstack]), true) > 1e-3
    got, _ = coded("int4", true, numbers(1, 256))
    assert quiet_error(got, true) > 0.1


def test_bytes_of_the_2b_at_512() -> None:
    """Those of a fixed length to the byte, and ecq on the distribution it is made for."""
    known, true = numbers(20, 2048), rows(256, 3, 20, 2048)
    sizes = {name: coded(name, true, known)[1] for name in USED}
    steps = LEVELS * 256 * 2
    assert (sizes["int8c"], sizes["int4"]) == ((2 << 20) + steps, (1 << 20) + steps)
    assert sizes["ecq"] < 0.85 * (1 << 20)


@pytest.mark.parametrize("count", [1, 2, 9, 100])
def test_every_size_comes_back_as_the_steps_say(count: int) -> None:
    """Against the definition, written out value by value."""
    known, true = numbers(), rows(count, 4)
    true[1, 0] = 0  # a row of zeros
    true[2, -1, 5] = 900  # far outside the table
    got, _ = coded("ecq", true, known)
    stream, steps = ecq.encode(true[0], true[1:], known)
    inverse = np.float32(1) / known.channel_scales
    for level in range(LEVELS):
        for row in range(count):
            flat = true[level, row] * inverse[level]
            step = np.float16(max(np.sqrt((flat**2).mean()) * known.ecq_steps[level], int8.SMALLEST))
            assert abs(float(step) - float(steps[level, row])) <= 2**-10 * float(step)
            used = np.float32(steps[level, row])
            expected = np.rint(flat * (np.float32(1) / used)) * used * known.channel_scales[level]
            np.testing.assert_allclose(got[level, row], expected, rtol=1e-6)
    assert stream.dtype == np.uint8


def test_streams_take_what_their_table_says() -> None:
    """rANS within 2 % of the entropy, lanes included, and the same bytes on every machine."""
    known, true = numbers(1, 256), rows(300, 5, 1, 256)
    stream, steps = ecq.encode(true[0], true[1:], known)
    flat = true / known.channel_scales[:, None] / steps.astype(np.float32)[..., None]
    symbols = np.clip(np.rint(flat), -8, 8).astype(np.int8)
    shares = known.ecq_frequencies / rans.TOTAL
    pairs = nibbles.pack(symbols).reshape(LEVELS, -1)
    bits = sum(-np.log2(shares[level][pairs[level]]).sum() for level in range(LEVELS))
    outside = int((np.abs(symbols) == 8).sum())
    assert stream.size < 1.02 * bits / 8 + 2 * outside + 100
    table = np.arange(1, 257, dtype=np.uint32)
    table[9] += rans.TOTAL - table.sum()
    states, words = rans.encode((np.arange(3000) ** 2 % 251).astype(np.uint8)[None], table[None])
    assert hashlib.sha256(states.tobytes() + words.tobytes()).hexdigest()[:16] == "df179d2e2afcdfcd"


def test_streams_of_any_table_come_back() -> None:
    random = np.random.default_rng(6)
    for count in (1, 255, 256, 5000, 70_000):
        for skew in (0.0, 3.0, 12.0):
            shares = np.exp(-skew * random.random(256))
            table = np.maximum(1, np.floor(shares / shares.sum() * rans.TOTAL * 0.9)).astype(np.uint32)
            table[random.integers(256)] += rans.TOTAL - table.sum()
            tables = np.stack([table, table[::-1]])
            pairs = random.choice(256, (2, count), p=table / rans.TOTAL).astype(np.uint8)
            states, words = rans.encode(pairs, tables)
            got, used = rans.decode(states, words, count, tables)
            np.testing.assert_array_equal(got, pairs)
            assert used == len(words)


def test_damaged_streams_are_refused() -> None:
    """As they arrive every one is; with the checksum made right none decodes past its size or fails otherwise."""
    known, true, random = numbers(), rows(12, 7), Random(8)
    stream, steps = ecq.encode(true[0], true[1:], known)
    num_passed = 0
    for number in range(NUM_DAMAGED):
        broken = damaged(stream.tobytes(), random)
        with pytest.raises(InvalidInput, match="vision_stream"):
            ecq.decode(np.frombuffer(broken, np.uint8), steps, known)
        if number % 4 == 0:
            try:
                main, deepstack = ecq.decode(sealed(broken[CHECKSUM:]), steps, known)
            except InvalidInput:
                continue
            num_passed += 1  # another value outside the table, say
            assert (main.shape, deepstack.shape) == ((12, H), (3, 12, H))
            assert np.isfinite(main).all()
            assert np.isfinite(deepstack).all()
    assert num_passed < NUM_DAMAGED // 40


def test_a_small_stream_cannot_grow() -> None:
    """What it decodes to is the grid's, whatever it says."""
    known = numbers()
    steps = np.ones((LEVELS, 2000), np.float16)
    begun = time.monotonic()
    with pytest.raises(InvalidInput):
        ecq.decode(sealed(bytes(4 * rans.num_lanes(LEVELS * 2000 * H // 2))), steps, known)
    assert time.monotonic() - begun < 5


def test_numbers_travel_in_a_file(tmp_path: Path) -> None:
    known = numbers()
    known.about["pictures"] = 3
    known.write(tmp_path)
    read = read_numbers(tmp_path, H, LEVELS - 1)
    assert read is not None
    assert (read.names, read.about) == (known.names, {"pictures": 3})
    first = (tmp_path / NAME).read_bytes()
    known.write(tmp_path)
    assert (tmp_path / NAME).read_bytes() == first
    assert read_numbers(tmp_path / "none", H, 3) is None
    with pytest.raises(BundleError, match="the model has"):
        read_numbers(tmp_path, H, 2)
    for data in (b"", first[:300], b"x" * 500):
        (tmp_path / NAME).write_bytes(data)
        with pytest.raises(BundleError, match=r"codec\.npz"):
            read_numbers(tmp_path, H, LEVELS - 1)
    shutil.rmtree(tmp_path)


def test_each_codec_is_named_by_its_own_numbers() -> None:
    known = numbers()
    changed = {
        "int4_steps": CodecNumbers(known.channel_scales, known.int4_steps * 2, known.ecq_steps, known.ecq_frequencies),
        "ecq_steps": CodecNumbers(known.channel_scales, known.int4_steps, known.ecq_steps * 2, known.ecq_frequencies),
    }
    differing = {
        what: [name for name in USED if other.names[name] != known.names[name]] for what, other in changed.items()
    }
    assert differing == {"int4_steps": ["int4"], "ecq_steps": ["ecq"]}
    for wrong in (known.channel_scales * np.inf, known.channel_scales * 0, known.channel_scales[:, 1:]):
        with pytest.raises(BundleError):
            CodecNumbers(wrong, known.int4_steps, known.ecq_steps, known.ecq_frequencies)
    with pytest.raises(BundleError, match="ecq_frequencies"):
        CodecNumbers(known.channel_scales, known.int4_steps, known.ecq_steps, known.ecq_frequencies + np.uint32(1))


def with_transform(levels: NDArray[np.float32], step: float = 0.1) -> CodecNumbers:
    """Numbers with a transform of these rows, all of whose directions a model feels alike."""
    statistics = Statistics(LEVELS * H)
    statistics.add_rows(klt.flat(levels[0], levels[1:]).astype(np.float64))
    statistics.add_gradients(np.eye(LEVELS * H))
    return replace(learn(levels), transform=statistics.basis().transform(step))


def correlated(count: int, seed: int) -> NDArray[np.float32]:
    """Rows that 12 directions explain but for a hundredth."""
    directions = np.random.default_rng(0).standard_normal((12, LEVELS * H))
    random = np.random.default_rng(seed)
    values = random.standard_normal((count, 12)) * np.geomspace(8, 1, 12) @ directions
    values += 0.1 * random.standard_normal(values.shape)
    return values.reshape(count, LEVELS, H).transpose(1, 0, 2).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 9, 300])
def test_a_transform_comes_back_in_few_bytes(count: int) -> None:
    known, true = with_transform(correlated(2000, 9), 0.3), correlated(count, 10)
    got, size = coded("klt", true, known)
    assert ((got - true) ** 2).sum() < 0.02 * (true**2).sum()
    assert size < count * LEVELS * H // 8 + 12  # a bit a value
    assert size < coded("ecq", true, known)[1] / 2


def test_values_outside_a_transforms_table_are_clipped_late() -> None:
    """A row 50 times larger than any of calibration's: it comes back, and its neighbours are as they were."""
    known, true = with_transform(correlated(2000, 9)), correlated(5, 11)
    far = true.copy()
    far[:, 2] *= 50
    got, _ = coded("klt", far, known)
    assert ((got - far)[:, 2] ** 2).sum() < 0.02 * (far[:, 2] ** 2).sum()
    np.testing.assert_allclose(np.delete(got, 2, 1), np.delete(coded("klt", true, known)[0], 2, 1), atol=1e-4)


def test_damaged_streams_of_a_transform_are_refused() -> None:
    known, true, random = with_transform(correlated(500, 9)), correlated(12, 12), Random(13)
    stream, scales = klt.encode(true[0], true[1:], known)
    assert (scales.shape, scales.nbytes) == ((0, 12), 0)
    num_passed = 0
    for _ in range(NUM_DAMAGED // 20):
        broken = damaged(stream.tobytes(), random)
        with pytest.raises(InvalidInput, match="vision_stream"):
            klt.decode(np.frombuffer(broken, np.uint8), scales, known)
        try:
            main, deepstack = klt.decode(sealed(broken[CHECKSUM:]), scales, known)
        except InvalidInput:
            continue
        num_passed += 1
        assert (main.shape, deepstack.shape) == ((12, H), (3, 12, H))
        assert np.isfinite(main).all()
    assert num_passed < NUM_DAMAGED // 40
    with pytest.raises(ValueError, match=r"export\.codec"):
        klt.encode(true[0], true[1:], numbers())


def test_a_transform_travels_in_the_file_of_the_others(tmp_path: Path) -> None:
    """Its hash is its own: it changes no other codec's name. A damaged one is named."""
    known = with_transform(correlated(500, 9))
    known.write(tmp_path)
    read = read_numbers(tmp_path, H, LEVELS - 1)
    assert read is not None
    assert read.names == known.names
    plain, other = replace(known, transform=None), with_transform(correlated(500, 14))
    assert plain.names == {name: known.names[name] for name in USED}
    assert known.names["klt"] != other.names["klt"]
    transform = known.needed_transform
    for name, wrong in (
        ("klt_mean", transform.klt_mean[1:]),
        ("klt_analysis", transform.klt_analysis * np.float16(np.inf)),
        ("klt_synthesis", transform.klt_synthesis.astype(np.float32)),
        ("klt_frequencies", transform.klt_frequencies + np.uint32(1)),
    ):
        with pytest.raises(BundleError, match="klt_"):
            replace(transform, **{name: wrong})
    with pytest.raises(BundleError, match="klt_mean has 256 values, a row of this model has 128"):
        replace(numbers(1, 32), transform=transform)


def test_a_transform_crosses_the_wire_without_scales() -> None:
    """Two items of one request, as a server checks and decodes them; with scales they are refused."""
    known, sizes = with_transform(correlated(2000, 9), 0.3), (4, 9)
    items = [
        EncodedItem(False, (1, 2, 2 * n), true[0], true[1:], numbers=known)
        for n, true in ((n, correlated(n, 20 + n)) for n in sizes)
    ]
    request = Request(np.zeros(0, np.int64), tuple(items), "abc")
    sent = {
        name: value
        for name, value in request.vision_tensors(items, "klt").items()
        if name not in ("encoder_fingerprint", "image_grid_thw")
    }
    assert sent.keys() == {"vision_codec", "vision_stream", "vision_stream_bytes"}
    card: Any = SimpleNamespace(hidden_size=H, num_deepstack_levels=LEVELS - 1)
    found = check_embeddings(sent, sum(sizes), 2, card, Limits(), known)
    start = 0
    for place, item in enumerate(items):
        rows = slice(start, start + len(item.main))
        main, deepstack = decode(found.item(place, rows), found.codec, known)
        expected = klt.decode(*item.wire("klt"), known)
        np.testing.assert_array_equal(main, expected[0])
        np.testing.assert_array_equal(deepstack, expected[1])
        start = rows.stop
    with pytest.raises(InvalidInput, match="vision_scales is given with 'klt:"):
        check_embeddings(sent | {"vision_scales": np.ones((LEVELS, 13), np.float16)}, 13, 2, card, Limits(), known)
    with pytest.raises(InvalidInput, match="this server knows int8c:"):
        check_embeddings(sent, 13, 2, card, Limits(), replace(known, transform=None))
    with pytest.raises(BundleError, match=r"export\.codec"):
        EncodedItem(False, (1, 2, 8), items[0].main, items[0].deepstack, numbers=numbers()).wire("klt")


def test_a_key_knows_its_codec() -> None:
    arrays = np.zeros((4, 2, 8), np.int8), np.ones((4, 2), np.float16)
    item = ItemRows(False, (1, 2, 4), slice(0, 2))
    names = ("", "int8c:0123456789abcdef", "int8c:0123456789abcdee")
    assert len({item_key("abc", item, *arrays, codec=name) for name in names}) == 3
