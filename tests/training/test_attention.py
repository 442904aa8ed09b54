"""The parts of packed attention against their definition, and against each other."""

import pytest
import torch

from metagdpo.training.attention import _Cpu, _Cuda, _Plain

SHAPES = [(1, 1, False), (5, 1, False), (7, 7, True), (3, 11, False), (300, 300, True)]


def draw(n_queries, n_keys, dtype=torch.float64):
    """Four query heads over two key heads of size 8, and a slope for each output."""
    torch.manual_seed(n_queries)
    shapes = [(1, 4, n_queries, 8), (1, 2, n_keys, 8), (1, 2, n_keys, 8), (1, 4, n_queries, 8)]
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize(("n_queries", "n_keys", "causal"), SHAPES)
def test_the_plain_part_is_softmax_attention_with_its_log_sum_exp(n_queries, n_keys, causal):
    """Value, log-sum-exp and, by autograd through the definition, all three gradients."""
    q, k, v, slope = draw(n_queries, n_keys)
    q, k, v = (each.requires_grad_() for each in (q, k, v))
    scores = 0.3 * q @ k.repeat_interleave(2, 1).transpose(-1, -2)
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    expected = scores.softmax(-1) @ v.repeat_interleave(2, 1)
    out, log_sum = _Plain.forward(q.detach(), k.detach(), v.detach(), causal=causal, scale=0.3)
    torch.testing.assert_close(out, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_sum, scores.logsumexp(-1).detach(), rtol=1e-12, atol=1e-12)
    found = _Plain.backward(
        slope, q.detach(), k.detach(), v.detach(), out=out, log_sum=log_sum, causal=causal, scale=0.3
    )
    torch.testing.assert_close(found, torch.autograd.grad(expected, (q, k, v), slope), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("n_queries", "n_keys", "causal"), SHAPES)
def test_the_cpu_kernel_is_the_plain_part(n_queries, n_keys, causal):
    q, k, v, slope = draw(n_queries, n_keys)
    settings = {"causal": causal, "scale": 0.3}
    expected = _Plain.forward(q, k, v, **settings)
    torch.testing.assert_close(_Cpu.forward(q, k, v, **settings), expected, rtol=1e-12, atol=1e-12)
    found, plain = (
        part.backward(slope, q, k, v, out=expected[0], log_sum=expected[1], **settings) for part in (_Cpu, _Plain)
    )
    torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("n_queries", "n_keys", "causal"), SHAPES)
def test_the_cuda_kernel_is_called_as_its_schema_says(n_queries, n_keys, causal):
    """Shapes and types only, on tensors without data: no GPU has run it here."""
    q, k, v, slope = (each.to("meta", torch.bfloat16) for each in draw(n_queries, n_keys))
    out, log_sum = _Cuda.forward(q, k, v, causal=causal, scale=0.3)
    found = _Cuda.backward(slope, q, k, v, out=out, log_sum=log_sum, causal=causal, scale=0.3)
    assert (out.shape, log_sum.shape, log_sum.dtype) == (q.shape, q.shape[:3], torch.float32)
    assert [each.shape for each in found] == [q.shape, k.shape, v.shape]


def test_merging_two_parts_is_attention_over_both():
    """out = e^(l_1 - l) out_1 + e^(l_2 - l) out_2 with l = log(e^l_1 + e^l_2), and so are the gradients by part."""
    q, k, v, slope = draw(4, 9)
    whole, log_sum = _Plain.forward(q, k, v, causal=False, scale=0.3)
    halves = [(k[:, :, part], v[:, :, part]) for part in (slice(0, 3), slice(3, 9))]
    parts = [_Plain.forward(q, *half, causal=False, scale=0.3) for half in halves]
    merged = torch.logaddexp(parts[0][1], parts[1][1])
    torch.testing.assert_close(merged, log_sum)
    torch.testing.assert_close(sum(out * (own - merged).exp()[..., None] for out, own in parts), whole)
    expected = _Plain.backward(slope, q, k, v, out=whole, log_sum=log_sum, causal=False, scale=0.3)
    found = [_Plain.backward(slope, q, *half, out=whole, log_sum=log_sum, causal=False, scale=0.3) for half in halves]
    torch.testing.assert_close(found[0][0] + found[1][0], expected[0])
    for i in (1, 2):
        torch.testing.assert_close(torch.cat([found[0][i], found[1][i]], 2), expected[i])
