"""Chunked KL to the base against its formula, its gradients and its second-order form.

Notation: z = W h, p = softmax(z), zero for the base. d KL / d z = p - p_0, so d KL / d h = W^T (p - p_0).
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metagdpo.training.divergence import token_kl
from metagdpo.training.logprobs import token_log_probs

N, D, V = 7, 5, 11


def drawn(seed=0, dtype=torch.float64):
    """Hidden states and projection of a candidate and of a base."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((N, D), (V, D), (N, D), (V, D))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def plain(hidden, weight, base_hidden, base_weight):
    """sum_v p_0 (log p_0 - log p), with all logits at once."""
    log_p, log_base = (hidden @ weight.T).log_softmax(-1), (base_hidden @ base_weight.T).log_softmax(-1)
    return (log_base.exp() * (log_base - log_p)).sum(-1)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_it_is_the_formula_whatever_the_chunk(chunk):
    torch.testing.assert_close(token_kl(*drawn(), chunk), plain(*drawn()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("head_learns", [True, False])
def test_it_passes_gradcheck(chunk, head_learns):
    hidden, weight, base_hidden, base_weight = drawn(1)
    hidden.requires_grad_()
    weight.requires_grad_(head_learns)
    assert torch.autograd.gradcheck(lambda h, w: token_kl(h, w, base_hidden, base_weight, chunk), (hidden, weight))


@pytest.mark.parametrize("head_learns", [True, False])
def test_gradients_are_those_of_the_formula(head_learns):
    """For a weighted sum over positions, so that the outer derivative matters."""
    coefficients = torch.linspace(-1, 2, N, dtype=torch.float64)
    found = []
    for kl in (plain, lambda *inputs: token_kl(*inputs, 3)):
        hidden, weight, base_hidden, base_weight = drawn(2)
        leaves = [hidden.requires_grad_(), *([weight.requires_grad_()] if head_learns else [])]
        value = (coefficients * kl(hidden, weight, base_hidden, base_weight)).sum()
        found.append(torch.autograd.grad(value, leaves))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_base_gets_no_gradient():
    hidden, weight, base_hidden, base_weight = [tensor.requires_grad_() for tensor in drawn()]
    token_kl(hidden, weight, base_hidden, base_weight).sum().backward()
    assert (base_hidden.grad, base_weight.grad) == (None, None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equal_models_diverge_by_exactly_nothing(dtype):
    """Value and gradient: both models take the same path, so not even rounding differs."""
    hidden, weight, *_ = drawn(3, dtype)
    base_hidden = hidden.clone()
    found = token_kl(hidden.requires_grad_(), weight, base_hidden, weight)
    found.sum().backward()
    assert torch.equal(found, torch.zeros_like(found))
    assert torch.equal(hidden.grad, torch.zeros_like(hidden))


@pytest.mark.parametrize("step", [1e-6, 1e-4, 1e-2, 1.0, 100.0])
def test_it_is_never_negative(step):
    """Gibbs; in float32 too, where the plain formula falls below 0 for models that are nearly equal."""
    hidden, weight, base_hidden, _ = drawn(4, torch.float32)
    found = token_kl(hidden + step * base_hidden, weight, hidden, weight)
    assert bool((found >= 0).all())


def test_float32_resolves_small_divergences():
    """To 1e-7 nats at logits of about 50, whose own rounding is 4e-6: the rounding of both log-sums cancels."""
    generator = torch.Generator().manual_seed(5)
    logits = 20 * torch.randn(64, 50, generator=generator)
    moved = logits + 1e-3 * torch.randn(64, 50, generator=generator)
    identity = torch.eye(50)
    exact = plain(moved.double(), identity.double(), logits.double(), identity.double())
    torch.testing.assert_close(token_kl(moved, identity, logits, identity).double(), exact, rtol=1e-3, atol=1e-7)


def test_far_apart_models_stay_finite():
    """The base puts everything on a token to which the candidate gives e^-2000: KL = 2000 nats."""
    identity = torch.eye(2)
    hidden = torch.tensor([[1000.0, -1000.0]]).requires_grad_()
    found = token_kl(hidden, identity, torch.tensor([[-1000.0, 1000.0]]), identity)
    found.sum().backward()
    assert found.tolist() == [2000.0]
    assert hidden.grad.tolist() == [[1.0, -1.0]]


def test_bfloat16_models_are_compared_in_float32():
    hidden, weight, base_hidden, base_weight = drawn(6, torch.bfloat16)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    found = token_kl(hidden, weight, base_hidden, base_weight)
    found.sum().backward()
    assert found.dtype == torch.float32
    assert [leaf.grad.dtype for leaf in leaves] == [torch.bfloat16, torch.bfloat16]


def test_the_gradient_of_a_bfloat16_head_does_not_depend_on_the_chunk():
    """It is summed over chunks in float32: to one rounding of bfloat16, 2^-8."""
    found = []
    for chunk in (1, 100):
        hidden, weight, base_hidden, base_weight = drawn(7, torch.bfloat16)
        token_kl(hidden, weight.requires_grad_(), base_hidden, base_weight, chunk).sum().backward()
        found.append(weight.grad)
    torch.testing.assert_close(*found, rtol=2**-7, atol=2**-7 * float(found[0].abs().max()))


class Largest(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation returned."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Run the operation and look at what it made."""
        found = function(*args, **(kwargs or {}))
        made = [leaf.numel() for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *made])
        return found


@pytest.mark.parametrize("head_learns", [True, False])
def test_logits_never_exist_in_full(head_learns):
    """200 positions, 50 tokens, 3 dimensions, chunks of 4: nothing is larger than the hidden states, 200 x 3."""
    hidden, weight, base_hidden = torch.randn(200, 3), torch.randn(50, 3), torch.randn(200, 3)
    with Largest() as largest:
        token_kl(hidden.requires_grad_(), weight.requires_grad_(head_learns), base_hidden, weight, 4).sum().backward()
    assert largest.elements == 200 * 3


def test_no_positions_give_nothing():
    hidden, weight, base_hidden, base_weight = drawn()
    assert token_kl(hidden[:0], weight, base_hidden[:0], base_weight).shape == (0,)


def test_near_the_base_it_is_half_the_fisher_form():
    """KL(h + d) = 1/2 d^T F d + O(|d|^3), F = W^T (diag p - p p^T) W: value and first derivative vanish at d = 0."""
    hidden, weight, direction, _ = drawn(8)
    p = (hidden @ weight.T).softmax(-1)
    fisher = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    logit_step = direction @ weight.T
    half_form = 0.5 * torch.einsum("nv,nvw,nw->n", logit_step, fisher, logit_step)
    for size in (1e-2, 1e-3, 1e-4):
        found = token_kl(hidden + size * direction, weight, hidden, weight) / size**2
        torch.testing.assert_close(found, half_form, rtol=0, atol=float(20 * size * half_form.max()))


def test_its_gradient_is_the_expectation_of_the_context_free_gradient():
    """E over v ~ p_0 of -d log p(v) = d KL, since KL = E[-log p(v)] - H(p_0): `kl` is CFS without the draw."""
    hidden, weight, base_hidden, base_weight = drawn(9)
    hidden.requires_grad_()
    (ours,) = torch.autograd.grad(token_kl(hidden, weight, base_hidden, base_weight).sum(), hidden)
    base = (base_hidden @ base_weight.T).softmax(-1)
    every = torch.arange(V).repeat(N)
    nll = -token_log_probs(hidden.repeat_interleave(V, 0), weight, every).view(N, V)
    (expected,) = torch.autograd.grad((base * nll).sum(), hidden)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)
