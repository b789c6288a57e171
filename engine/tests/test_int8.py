"""Products in int8 and the compiled kernels around them: close to torch in fp32 for every input, and deterministic."""

import pytest
import torch
from torch.nn import functional

from engine import ConfigError, RunConfig, devices
from engine.kernels import int8
from engine.kernels.smoothing import smoothing_factors
from engine.tests.test_kernels import adapted, batch, fused, gradients, to_bf16

pytestmark = pytest.mark.skipif(not int8.available(), reason="needs a CPU with VNNI under Linux")
SIZES = [(1, 1), (3, 33), (70, 384), (5, 1536)]


def random_rows(rows, width, seed=0):
    """Return bf16 rows of very different sizes, as gradients are; the first one is zero."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-8, 2, rows)[:, None]
    x = torch.randn(rows, width, generator=generator) * sizes
    x[0] = 0
    return x.bfloat16()


def assert_close_in_bf16(actual, expected):
    """Allow for the last bit of bf16."""
    torch.testing.assert_close(actual.float(), expected, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_quantised_rows_are_within_half_a_step_of_their_scale(rows, width):
    x = random_rows(rows, width)
    quantised = torch.empty(rows, width, dtype=torch.uint8)
    scales = torch.empty(rows)
    int8.kernels().quantise_rows(x, quantised, scales, 0, rows, width)
    restored = (quantised.float() - int8.MIDDLE) * scales[:, None]
    assert ((restored - x.float()).abs() <= scales[:, None] * 0.501).all()


@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_norm_and_its_gradient_are_those_of_torch(rows, width):
    torch.manual_seed(1)
    module = torch.nn.LayerNorm(width, eps=1e-6).requires_grad_(False)
    module.weight.normal_()
    module.bias.normal_()
    x, total, dy = (torch.randn(rows, width).bfloat16() for _ in range(3))
    summed = (x + total).float().requires_grad_()
    expected = module(summed)
    expected.backward(dy.float())
    norm = int8.CompiledAddNorm(module)
    y, stats = norm(total, x)
    assert torch.equal(total, summed.bfloat16())
    torch.testing.assert_close(y.float(), expected, rtol=2**-7, atol=1e-3)
    torch.testing.assert_close(norm.backward(dy, total, stats).float(), summed.grad, rtol=2**-7, atol=2e-3)


def test_gelu_and_its_slope_are_right_for_every_number():
    every = torch.arange(2**16).to(torch.int32).to(torch.int16).view(torch.bfloat16).view(256, 256)
    every = torch.where(every.abs() < 1e37, every, 0)  # beyond, torch's own is infinite
    x = every.float().requires_grad_()
    functional.gelu(x).sum().backward()
    y, slope = int8.gelu(every.clone())
    assert_close_in_bf16(y, functional.gelu(x.detach()))
    assert_close_in_bf16(int8.gelu_backward(torch.ones_like(slope), slope), x.grad)


@pytest.mark.parametrize(("rows", "width", "outputs"), [(1, 8, 3), (70, 384, 96), (9, 33, 17)])
def test_product_is_close_to_that_of_the_fp32_weight(rows, width, outputs):
    weight, bias = torch.randn(outputs, width).bfloat16(), torch.randn(outputs)
    x, total = random_rows(rows, width), torch.randn(rows, outputs).bfloat16()
    expected = x.float() @ weight.float().t()
    close = 0.03 * expected.norm(dim=1, keepdim=True) + 1e-3
    product = int8.Int8Weight(weight, bias)
    assert ((product(x).float() - expected - bias).abs() <= close + 2**-7 * bias.abs()).all()
    added = product.add_to(total.clone(), x).float()
    assert ((added - expected - total.float()).abs() <= close + 2**-7 * added.abs()).all()


def test_smoothed_channels_leave_the_others_their_precision():
    torch.manual_seed(0)
    sizes = torch.ones(64)
    sizes[[3, 40]] = 50.0
    x = (torch.randn(50, 64) * sizes).bfloat16()
    weight = (torch.randn(32, 64) / sizes).bfloat16()  # so that all channels count alike
    smoothing = smoothing_factors(x.float().square().mean(0).sqrt(), weight)
    assert smoothing[[3, 40]].min() > 30 and smoothing.sort().values[:-2].max() < 2
    expected = x.float() @ weight.float().t()
    plain, smoothed = (
        (int8.Int8Weight(weight, smoothing=each)(x).float() - expected).norm() for each in (None, smoothing)
    )
    assert smoothed < plain / 3


def test_channels_that_are_never_used_are_smoothed_by_a_bounded_factor():
    weight = torch.ones(2, 4)
    assert smoothing_factors(torch.tensor([0.0, 1.0, 1.0, 1e30]), weight).tolist() == [1 / 64, 1.0, 1.0, 64.0]
    assert (
        smoothing_factors(torch.zeros(4), weight).isfinite().all()
        and smoothing_factors(torch.ones(4), 0 * weight).isfinite().all()
    )


def test_nan_stays_nan():
    x = torch.ones(2, 8).bfloat16()
    x[1, 3] = torch.nan
    y = int8.Int8Weight(torch.ones(4, 8))(x)
    assert y[0].isfinite().all()
    assert y[1].isnan().all()


@pytest.mark.medium
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_step_has_nearly_the_gradients_of_fp32_and_evaluation_uses_the_bf16_weights(dropout):
    model = adapted("bert", "all-linear", lora_dropout=dropout).train()
    half = to_bf16(model)
    in_fp32, in_int8, in_bf16 = fused(model), fused(half, int8=True), fused(half)

    def step(forward, stepped):
        torch.manual_seed(3)  # the same dropout
        return gradients(stepped, forward(**batch()).float())

    expected = step(in_fp32, model)
    first = step(in_int8, half)
    again = step(in_int8, half)
    for name, gradient in expected.items():
        assert functional.cosine_similarity(first[name].flatten(), gradient.flatten(), dim=0) > 0.9, name
        assert torch.equal(first[name], again[name])
    half.eval()
    with torch.inference_mode():
        torch.testing.assert_close(in_int8(**batch()), in_bf16(**batch()), rtol=2**-6, atol=1e-2)


def test_policy_chooses_int8_where_the_cpu_has_it_and_the_configuration_allows_it(monkeypatch):
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: True)

    def precision(**sections):
        return devices.choose(RunConfig.model_validate({"experiment_name": "a"} | sections)).precision

    on_cpu = {"device": "cpu"}
    assert precision(training=on_cpu) == "int8"
    assert precision(training=on_cpu | {"precision": "bf16"}) == "bf16"
    assert precision(training=on_cpu, lora={"bias": "all"}) == "fp32"
    monkeypatch.setattr(int8, "available", lambda: False)
    assert precision(training=on_cpu) == "bf16"
    with pytest.raises(ConfigError, match="VNNI"):
        precision(training=on_cpu | {"precision": "int8"})
