from releases import make_candidate, make_verdict

from metagdpo.release.describe import describe


def test_outside_text_cannot_break_the_table_or_bring_markup(tmp_path):
    candidate = make_candidate(tmp_path)
    verdict = make_verdict(tmp_path, candidate)
    hostile = verdict.findings[0].model_copy(update={"skill": "a|b\n<script>`x`"})
    text = describe(verdict.model_copy(update={"findings": (hostile,)}), candidate)
    assert "| a\\|b &lt;script>'x' (arc_easy, required) | base | 500 |" in text


def test_the_description_names_decision_level_and_verdict(tmp_path):
    candidate = make_candidate(tmp_path)
    text = describe(make_verdict(tmp_path, candidate), candidate)
    assert text.startswith("PROMOTE: gdpo (lora) on asset:tiny\n")
    assert "difference (90 %)" in text
    assert "0.0100 nats a token [0.0050, 0.0150]" in text


def test_only_interpolated_weights_are_told(tmp_path):
    for alpha, told in ((1.0, False), (0.35, True)):
        candidate = make_candidate(tmp_path, alpha=alpha)
        text = describe(make_verdict(tmp_path, candidate), candidate)
        assert ("Weights: 35 % of the way from the base to the trained ones (Wise-FT)." in text) == told
