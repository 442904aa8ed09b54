"""The paper's claims: each status from numbers that decide it, and none without its methods."""

import pytest

from metagdpo.comparison.ordering import OrderNames, check_order
from metagdpo.records.comparison import Estimate, MethodDifference, MethodResult

NAMES = ("sft", "gdpo-unweighted", "gdpo")
LOSS = 0.04
DEFAULT = OrderNames()


def estimate(low, high):
    return Estimate(value=(low + high) / 2, low=low, high=high, n_seeds=3, n_units=200, p_value=0.5)


def method(name, retained=(-0.01, 0.01), overall=(-0.01, 0.01)):
    return MethodResult(
        method=name,
        label=name.upper(),
        seeds=(1, 2, 3),
        missing=(),
        target=estimate(0.1, 0.2),
        retained=retained and estimate(*retained),
        overall=estimate(*overall),
        suites=(),
        drift=None,
        seconds=None,
        peak_memory_gb=None,
        tokens=None,
        alphas=(),
        decisions=(),
    )


def difference(measure, first, second, ends):
    return MethodDifference(
        measure=measure, first=first, second=second, difference=estimate(*ends), p_holm=1.0, better=None
    )


def claims(methods, differences=(), names=DEFAULT):
    return {claim.claim: claim for claim in check_order(methods, differences, LOSS, names)}


@pytest.mark.parametrize(
    ("retained", "forgets", "keeps"),
    [
        ((-0.09, -0.05), "shown", "contradicted"),
        ((-0.09, -0.01), "shown", "contradicted"),
        ((-0.09, 0.01), "not decided", "not decided"),
        ((-0.03, 0.01), "contradicted", "shown"),
        ((0.01, 0.03), "contradicted", "shown"),
        ((-0.03, -0.01), "shown", "shown"),
    ],
)
def test_forgetting_is_a_loss_shown_and_keeping_a_larger_loss_ruled_out(retained, forgets, keeps):
    found = claims([method("sft", retained), method("gdpo", retained)])
    assert (forgets, keeps) == (found["SFT forgets"].status, found["GDPO does not forget"].status)


def test_a_small_loss_within_the_accepted_one_is_said_so():
    found = claims([method("gdpo", (-0.03, -0.01))])["GDPO does not forget"]
    assert found.evidence.endswith("a loss is shown, and it is smaller than the accepted")


@pytest.mark.parametrize(
    ("ends", "status"), [((0.01, 0.05), "shown"), ((-0.05, -0.01), "contradicted"), ((-0.01, 0.05), "not decided")]
)
def test_one_method_above_another_is_decided_by_the_interval_of_their_difference(ends, status):
    found = claims([method(name) for name in NAMES], [difference("retained", "gdpo", "sft", ends)])
    assert status == found["GDPO retains more than SFT"].status


def test_a_difference_stored_the_other_way_round_is_turned():
    found = claims([method(name) for name in NAMES], [difference("retained", "sft", "gdpo", (-0.05, -0.01))])
    claim = found["GDPO retains more than SFT"]
    assert ("shown", "difference +3.0 [+1.0, +5.0]") == (claim.status, claim.evidence)


def test_the_original_is_above_sft_when_sft_is_below_0():
    found = claims([method("sft", overall=(-0.06, -0.02))])["overall, the original is above SFT"]
    assert ("shown", "difference +4.0 [+2.0, +6.0]") == (found.status, found.evidence.split(";")[0])


def test_a_method_is_above_the_original_when_it_is_above_0():
    found = claims([method("gdpo-unweighted", overall=(0.02, 0.06))])
    assert "shown" == found["overall, GDPO without weights is above the original"].status


def test_overall_claims_show_what_they_are_made_of():
    found = claims([method("sft")])["overall, the original is above SFT"]
    assert ["difference", "target", "retained"] == [part.split()[0] for part in found.evidence.split("; ")]


@pytest.mark.parametrize("gone", NAMES)
def test_a_missing_method_leaves_its_claims_unchecked_and_is_named(gone):
    pairs = [(a, b) for a in NAMES for b in NAMES if a != b and gone not in {a, b}]
    rows = [difference(measure, a, b, (0.01, 0.02)) for a, b in pairs for measure in ("retained", "overall")]
    found = claims([method(name) for name in NAMES if name != gone], rows)
    unchecked = {claim.evidence for claim in found.values() if claim.status == "not checked"}
    assert {f"no result of {gone}"} == unchecked


def test_methods_without_a_common_seed_are_not_compared():
    found = claims([method("gdpo"), method("sft")])["GDPO retains more than SFT"]
    assert ("not checked", "no result of a common seed of both") == (found.status, found.evidence)


def test_a_method_without_retained_suites_is_not_checked():
    assert "not checked" == claims([method("sft", None)])["SFT forgets"].status


def test_other_names_may_stand_for_the_papers_methods():
    found = claims([method("mine", (-0.09, -0.05))], names=OrderNames(sft="mine"))
    assert "shown" == found["SFT forgets"].status


def test_every_claim_says_what_the_paper_reports():
    assert all(claim.paper for claim in claims([]).values())
