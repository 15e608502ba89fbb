"""A reserved cache gives attention what transformers' dynamic cache gives it, in memory that never moves."""

import torch
from transformers import DynamicCache

from serving.transformers_engine.checkpoint import load_language_model
from serving.transformers_engine.kv import kv_bytes, reserve
from tests.serving.reference import Reference

HEAD = 32  # of the reference model: 4 layers, 2 heads for keys and values


def test_same_states_as_the_dynamic_cache_in_place(reference: Reference) -> None:
    model = load_language_model(reference.language, "fp32")
    dynamic, reserved = DynamicCache(config=model.decoder.config), reserve(model, 30)
    generator = torch.Generator().manual_seed(1)
    places = set()
    for length in (7, 1, 1, 20, 1):
        for layer in range(4):
            states = torch.randn((2, 1, 2, length, HEAD), generator=generator).to(model.device)
            expected, got = dynamic.update(*states, layer), reserved.update(*states, layer)
            assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
            places.add((layer, got[0].data_ptr(), got[1].data_ptr()))
    assert len(places) == 4
    assert [layer.get_seq_length() for layer in reserved.layers] == [30] * 4


def test_what_is_counted_is_what_is_allocated(reference: Reference) -> None:
    for dtype, size in (("fp32", 4), ("bf16", 2)):
        model = load_language_model(reference.language, dtype)
        first = reserve(model, 30).layers[0]._key_room
        assert first.untyped_storage().nbytes() == kv_bytes(model, 30) == 2 * 4 * 2 * HEAD * 30 * size


def test_crop_forgets_the_end(reference: Reference) -> None:
    model = load_language_model(reference.language, "fp32")
    layer = reserve(model, 8).layers[0]
    kept, dropped, added = (torch.randn((2, 1, 2, length, HEAD), device=model.device) for length in (3, 2, 1))
    layer.update(*kept)
    layer.update(*dropped)
    layer.crop(-2)
    keys, values = layer.update(*added)
    assert torch.equal(keys, torch.cat([kept[0], added[0]], dim=2))
    assert torch.equal(values, torch.cat([kept[1], added[1]], dim=2))
