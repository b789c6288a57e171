"""Losses behind a frozen head in int8, and their gradients, are about those of torch in fp32."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from engine.kernels import int8, panels
from engine.kernels.head import Int8Head


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.skipif(not int8.available(), reason="needs a CPU with VNNI")
@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize(("rows", "vocabulary", "width"), [(1, 7, 4), (30, 513, 48), (700, 1300, 100)])
@pytest.mark.parametrize(
    "spread", [0.3, 3.0, 30.0]
)  # from about equal probabilities to targets that are nearly certain
def test_gradient_is_that_of_torch(rows, vocabulary, width, spread, is_compiled, threads, monkeypatch):
    if is_compiled and not panels.available():
        pytest.skip("needs a CPU with AVX-512 BF16 and without AMX")
    monkeypatch.setattr(panels, "available", lambda: is_compiled)
    torch.manual_seed(0)
    weight = torch.randn(vocabulary, width).bfloat16()
    states = (spread * torch.randn(rows, width) / width**0.5).bfloat16()
    head = Int8Head(weight, smoothing=None)
    logits = head.logits(states).float()
    targets = torch.where(torch.arange(rows) % 2 == 0, logits.argmax(1), torch.randint(vocabulary, (rows,)))
    logs, gradients = head.log_probabilities_with_gradients(states, targets)
    assert torch.allclose(logs, -cross_entropy(logits, targets, reduction="none"), atol=1e-5, rtol=1e-5)
    slopes = logits.softmax(1)
    slopes[torch.arange(rows), targets] -= 1
    expected = -(slopes @ weight.float())
    matters = expected.norm(dim=1) > 1e-3 * width**0.5
    errors = (gradients.float() - expected).norm(dim=1)[matters] / expected.norm(dim=1)[matters]
    assert matters.any() and errors.max() < 0.02


@pytest.mark.skipif(not panels.available(), reason="needs a CPU with AVX-512 BF16 and without AMX")
def test_small_probabilities_are_not_missing_in_the_sum_over_rows():
    """Most probabilities are smaller than a step of their bytes, and rows of a head have much in common, so errors would add up."""
    torch.manual_seed(0)
    weight = (torch.randn(4096, 64) + 3 * torch.randn(64)).bfloat16()
    states = torch.randn(300, 64).bfloat16()
    head = Int8Head(weight, smoothing=None)
    logits = head.logits(states).float()
    targets = logits.softmax(1).multinomial(1)[:, 0]
    slopes = logits.softmax(1)
    slopes[torch.arange(300), targets] -= 1
    expected = -(slopes @ weight.float())
    gradients = head.log_probabilities_with_gradients(states, targets)[1].float()
    error = (gradients - expected).mean(0).norm() / expected.norm(dim=1).mean()
    assert error < 0.001
