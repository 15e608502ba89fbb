"""Products of a few rows with the weights on the left are those of torch's linear layer."""

import pytest
import torch

from serving.transformers_engine.few_rows import weights_first


@pytest.mark.parametrize("has_bias", [True, False])
def test_products_are_those_of_a_linear_layer(has_bias: bool) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(48, 80, bias=has_bias)
    plain = layer.forward
    weights_first(layer, None)
    for num_rows in (1, 3, 4, 8, 32, 33):
        rows = torch.randn(1, num_rows, 48)
        found = layer(rows)
        assert found.is_contiguous()
        assert found.shape == (1, num_rows, 80)
        torch.testing.assert_close(found, plain(rows))


def test_other_layers_keep_their_forward() -> None:
    half = torch.nn.Linear(8, 8, dtype=torch.bfloat16)
    model = torch.nn.Sequential(half, torch.nn.Embedding(4, 8), torch.nn.LayerNorm(8))
    weights_first(model)
    assert all("forward" not in vars(layer) for layer in model)
