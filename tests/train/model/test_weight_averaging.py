"""Averaged weights against a loop over numbers."""

import pytest
import torch
from torch import nn

from train.model.weight_averaging import averaged, decay_at, start_average, update_average


def test_the_average_is_the_recurrence() -> None:
    module = nn.Linear(3, 2)
    average = start_average(module)
    expected = module.weight.detach().double().clone()
    for step in range(40):
        with torch.no_grad():
            module.weight.add_(torch.randn(2, 3, generator=torch.Generator().manual_seed(step)))
        update_average(average, module, step, 0.7)
        decay = min(0.7, (2 + step) / (11 + step))
        expected = decay * expected + (1 - decay) * module.weight.detach().double()
    torch.testing.assert_close(average["weight"].double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(average["bias"], module.bias)


def test_decay_rises_to_what_is_asked() -> None:
    assert decay_at(0, 0.9999) == pytest.approx(2 / 11)
    assert decay_at(10**6, 0.9999) == 0.9999
    decays = [decay_at(step, 0.99) for step in range(2000)]
    assert decays == sorted(decays)


def test_inside_the_module_is_the_average_and_afterwards_itself_bit_by_bit() -> None:
    module = nn.Linear(3, 2)
    average = start_average(module)
    with torch.no_grad():
        module.weight.mul_(3.1)
    own, kept = module.weight.detach().clone(), average["weight"].clone()
    identity = module.weight
    with averaged(module, average):
        assert torch.equal(module.weight, kept)
    assert module.weight is identity
    assert torch.equal(module.weight, own)
    assert torch.equal(average["weight"], kept)
    with averaged(module, None):
        assert torch.equal(module.weight, own)


def test_an_error_inside_still_gives_the_weights_back() -> None:
    module = nn.Linear(2, 2)
    average = {name: torch.zeros_like(tensor) for name, tensor in start_average(module).items()}
    own = module.weight.detach().clone()
    with pytest.raises(KeyError), averaged(module, average):
        raise KeyError("x")
    assert torch.equal(module.weight, own)
