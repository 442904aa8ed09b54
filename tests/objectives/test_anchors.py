"""Anchors against enumeration and closed forms.

Notation: base p_0 = softmax(z_0), candidate p = softmax(z), d = z - z_0, Fisher matrix F = diag p_0 - p_0 p_0^T.
"""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from metagdpo.objectives import Anchor
from metagdpo.objectives.anchors import (
    ContextFree,
    Ewc,
    KlToBase,
    L2Sp,
    SelfDialogues,
    ewc,
    kl_to_base,
    l2_sp,
    low_rank_square,
    low_rank_update,
    own_text_nll,
)

ANCHOR = TypeAdapter(Anchor)
BASE = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64)
MOVED = torch.tensor([1.0, 0.5, -0.2, 0.4], dtype=torch.float64)


def kl(base, candidate):
    return (base.softmax(0) * (base.log_softmax(0) - candidate.log_softmax(0))).sum()


def expected_nll(candidate):
    """E over one-token texts x ~ p_0 of the context-free NLL, by enumeration."""
    each = [own_text_nll(log_prob[None], torch.ones(1)) for log_prob in candidate.log_softmax(0)]
    return (BASE.softmax(0) * torch.stack(each)).sum()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('{"kind": "context_free", "weight": 0.5, "per_step": 4}', ContextFree(weight=0.5, per_step=4)),
        ('{"kind": "kl", "weight": 1, "per_step": 2}', KlToBase(weight=1.0, per_step=2, texts="groups")),
        (
            '{"kind": "self_dialogue", "weight": 1, "per_step": 2}',
            SelfDialogues(weight=1.0, per_step=2, learn="assistant"),
        ),
        ('{"kind": "l2_sp", "weight": 1e-3}', L2Sp(weight=1e-3)),
        ('{"kind": "ewc", "weight": 1, "samples": 8}', Ewc(weight=1.0, samples=8)),
    ],
)
def test_each_kind_is_read_by_its_name(written, expected):
    assert ANCHOR.validate_json(written) == expected


@pytest.mark.parametrize("kind", ["context_free", "self_dialogue", "kl", "ewc", "l2_sp"])
@pytest.mark.parametrize("weight", ["0", "-1", "NaN"])
def test_an_anchor_that_does_not_hold_is_refused(kind, weight):
    """One that is not wanted is left out of the list; a weight of 0 would only cost time."""
    with pytest.raises(ValidationError, match="weight"):
        ANCHOR.validate_json(f'{{"kind": "{kind}", "weight": {weight}, "per_step": 1}}')


def test_own_text_nll_is_a_mean_over_tokens_not_over_samples():
    """(4 + 30) / (1 + 9), not (4/1 + 30/9) / 2."""
    assert own_text_nll(torch.tensor([-4.0, -30.0]), torch.tensor([1, 9])).item() == torch.tensor(3.4).item()


def test_own_text_nll_is_the_divergence_from_the_base_up_to_its_entropy():
    """E_{p_0}[-log p] = KL(p_0 || p) + H(p_0), and H(p_0) does not depend on the candidate."""
    entropy = -(BASE.softmax(0) * BASE.log_softmax(0)).sum()
    torch.testing.assert_close(expected_nll(MOVED), kl(BASE, MOVED) + entropy, rtol=1e-12, atol=0)


def test_own_text_nll_rests_at_the_base_and_curves_like_its_fisher_matrix():
    """d/dz E[-log p] = p - p_0 = 0 at z_0, and d^2/dz^2 = diag p_0 - p_0 p_0^T = F: 1/2 d^T F d to second order."""
    p = BASE.softmax(0)
    leaf = BASE.clone().requires_grad_()
    (slope,) = torch.autograd.grad(expected_nll(leaf), leaf)
    curve = torch.autograd.functional.hessian(expected_nll, BASE)
    torch.testing.assert_close(slope, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-15)
    torch.testing.assert_close(curve, p.diag() - torch.outer(p, p), rtol=0, atol=1e-15)


def test_kl_to_base_is_a_mean_over_tokens_not_over_texts():
    """(0.4 + 3.0) / (1 + 9), not (0.4/1 + 3.0/9) / 2."""
    found = kl_to_base(torch.tensor([0.4, 3.0]), torch.tensor([1, 9]))
    assert found.item() == pytest.approx(0.34, rel=1e-6)


def test_means_over_no_tokens_are_zero_and_not_a_division_by_zero():
    assert own_text_nll(torch.zeros(1), torch.zeros(1)).item() == 0.0
    assert kl_to_base(torch.zeros(1), torch.zeros(1)).item() == 0.0


@pytest.mark.parametrize("mean", [own_text_nll, kl_to_base])
def test_token_means_pass_gradcheck(mean):
    values = torch.tensor([-3.0, -1.0, -8.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: mean(v, torch.tensor([2, 0, 5])), (values,))


def matrices():
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 5), (7, 3))
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]


def test_l2_sp_is_half_the_squared_distance_and_pulls_back_by_it():
    """d/d theta of 1/2 ||theta - theta_0||^2 = theta - theta_0, a spring of unit strength."""
    deltas = [torch.tensor([3.0, -4.0]).requires_grad_(), torch.tensor([[12.0]]).requires_grad_()]
    value = l2_sp(deltas)
    value.backward()
    assert value.item() == (3.0**2 + 4.0**2 + 12.0**2) / 2
    assert [delta.grad.tolist() for delta in deltas] == [[3.0, -4.0], [[12.0]]]


def test_l2_sp_of_nothing_is_zero():
    assert l2_sp([]).item() == 0.0


def test_l2_sp_sums_small_bfloat16_distances_in_float32():
    """4096 squares of 2^-7: each is 2^-14, and 2^-14 would vanish beside 2^-6 in bfloat16."""
    assert l2_sp([torch.full((4096,), 2.0**-7, dtype=torch.bfloat16)]).item() == 4096 * 2.0**-14 / 2


def test_low_rank_square_is_the_square_of_the_update():
    """||s B A||^2 = s^2 tr(B^T B A A^T), against B A written out; l2_sp takes half of it."""
    a, b = matrices()
    torch.testing.assert_close(low_rank_square(a, b, 2.0), (2.0 * b @ a).square().sum(), rtol=1e-12, atol=0)
    torch.testing.assert_close(0.5 * low_rank_square(a, b, 2.0), l2_sp([2.0 * b @ a]), rtol=1e-12, atol=0)


def test_low_rank_square_pulls_the_factors_back_through_the_update():
    """With M = s B A: d/dB = 2 s M A^T = 2 s^2 B A A^T and d/dA = 2 s B^T M."""
    a, b = matrices()
    slope_a, slope_b = torch.autograd.grad(low_rank_square(a, b, 2.0), (a, b))
    update = (2.0 * b @ a).detach()
    torch.testing.assert_close(slope_b, 2 * 2.0 * update @ a.detach().T, rtol=1e-12, atol=0)
    torch.testing.assert_close(slope_a, 2 * 2.0 * b.detach().T @ update, rtol=1e-12, atol=0)


def test_low_rank_square_passes_gradcheck():
    assert torch.autograd.gradcheck(lambda a, b: low_rank_square(a, b, 0.5), tuple(matrices()))


def test_a_fresh_adapter_is_not_pulled():
    """LoRA starts at B = 0: value and both gradients are 0."""
    a, b = matrices()
    b = torch.zeros_like(b, requires_grad=True)
    value = low_rank_square(a, b, 2.0)
    slopes = torch.autograd.grad(value, (a, b))
    assert value.item() == 0.0
    assert [bool((slope == 0).all()) for slope in slopes] == [True, True]


def test_ewc_is_half_the_squared_distance_by_information():
    """(2 * 3^2 + 0.5 * 4^2 + 0 * 12^2) / 2, and d/d theta_k = F_k (theta_k - theta_0k)."""
    deltas = [torch.tensor([3.0, -4.0]).requires_grad_(), torch.tensor([[12.0]]).requires_grad_()]
    value = ewc(deltas, [torch.tensor([2.0, 0.5]), torch.tensor([[0.0]])])
    value.backward()
    assert value.item() == (2 * 3.0**2 + 0.5 * 4.0**2) / 2
    assert [delta.grad.tolist() for delta in deltas] == [[6.0, -2.0], [[0.0]]]


def test_ewc_with_information_1_is_l2_sp():
    deltas = matrices()
    torch.testing.assert_close(ewc(deltas, [torch.ones_like(d) for d in deltas]), l2_sp(deltas), rtol=1e-12, atol=0)


def test_ewc_passes_gradcheck():
    fishers = [matrix.detach().square() for matrix in matrices()]
    assert torch.autograd.gradcheck(lambda *deltas: ewc(deltas, fishers), tuple(matrices()))


def test_ewc_of_nothing_is_zero():
    assert ewc([], []).item() == 0.0


def test_ewc_wants_information_for_every_distance():
    with pytest.raises(ValueError, match="shorter"):
        ewc([torch.ones(2), torch.ones(3)], [torch.ones(2)])


def test_ewc_of_a_softmax_is_the_diagonal_of_what_cfs_protects():
    """F = diag p_0 - p_0 p_0^T, so with one logit moved EWC is the divergence to second order."""
    p = BASE.softmax(0)
    step = torch.tensor([0.0, 0.0, 1e-4, 0.0], dtype=torch.float64)
    torch.testing.assert_close(ewc([step], [p * (1 - p)]), kl(BASE, BASE + step), rtol=1e-3, atol=0)


def test_low_rank_update_is_what_l2_sp_takes_the_square_of():
    a, b = matrices()
    torch.testing.assert_close(low_rank_update(a, b, 2.0), 2.0 * b @ a, rtol=1e-15, atol=0)
    torch.testing.assert_close(l2_sp([low_rank_update(a, b, 2.0)]), low_rank_square(a, b, 2.0) / 2, rtol=1e-12, atol=0)
