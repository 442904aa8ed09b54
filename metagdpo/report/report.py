"""The release report: report.md, report.html and figures/, from the verdict and its evidence.

Answers of models and names of suites are untrusted text: HTML escapes them (no scripts, no remote resources at all),
and Markdown shows them with every active character defused. Equal input gives equal bytes.
"""

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metagdpo.records.candidate import Candidate
from metagdpo.records.drift import Drift
from metagdpo.records.interpolation import Interpolation
from metagdpo.records.noise import Noise
from metagdpo.records.overlap import TrainingOverlaps
from metagdpo.records.verdict import SuiteFinding, Verdict
from metagdpo.report import figures
from metagdpo.report.flips import Flip
from metagdpo.report.skill_profile import profile_caption, profile_rows, skill_profile
from metagdpo.schema import digest_record, write_text

TITLES = {"PROMOTE": "Promoted", "BLOCK": "Refused", "INCONCLUSIVE": "Undecided"}
MEANINGS = {
    "PROMOTE": "The candidate may become a release.",
    "BLOCK": "The candidate must not be released.",
    "INCONCLUSIVE": "The candidate is not released: the evidence proves neither retention nor loss.",
}
REPRODUCE = ("dvc repro gate", "metagdpo explain")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_MARKDOWN_ACTIVE = re.compile(r"([\\`*_\[\]|~$]|^[-+#]|(?<=:)/)")  # `:/` so that no address becomes a link


def write_report(
    out_dir: Path,
    verdict: Verdict,
    candidate: Candidate,
    *,
    metrics: Sequence[Mapping[str, float]] = (),
    flips: Sequence[Flip] = (),
    drift_samples: Sequence[float] = (),
    drift_cap: float | None = None,
    interpolation: Interpolation | None = None,
    unit_fdr: float = 0.1,
    reproduce: Sequence[str] = REPRODUCE,
    most_flips: int = 12,
    longest_answer: int = 400,
) -> list[Path]:
    """Write the report and return the paths written.

    Args:
        out_dir: Folder for report.md, report.html and figures/; files in it are replaced.
        verdict: The decision with its findings.
        candidate: Manifest of the judged model.
        metrics: One mapping per logged training step, `step` included; names as in `figures.CURVES`.
        flips: Items lost and gained with both answers.
        drift_samples: Per-sample log-ratio in nats a token, for the histogram.
        drift_cap: The policy's cap in nats a token.
        interpolation: How alpha was chosen; its curve is shown when alphas were measured.
        unit_fdr: Largest expected share of false names among the units called lost or gained.
        reproduce: Command lines that lead to the same verdict.
        most_flips: Flips shown per suite and kind; the rest is counted.
        longest_answer: Characters shown of an answer; the rest is counted.

    Raises:
        StoreError: The folder cannot be written.
    """
    pictures = _draw(out_dir / "figures", verdict, metrics, drift_samples, drift_cap, interpolation, unit_fdr)
    view = {
        "verdict": verdict,
        "title": TITLES[verdict.decision],
        "meaning": MEANINGS[verdict.decision],
        "n_first": _n_deciding(verdict),
        "tally": _tally(verdict),
        "rows": [_row(finding) for finding in verdict.findings],
        "confidence": f"{100 * (1 - verdict.alpha):g}",
        "units": profile_rows(verdict.units),
        "noise": [_noise_row(noise) for noise in verdict.noise],
        "champion": verdict.champion.version,
        "drift": _drift_text(verdict.drift),
        "overlaps": _overlaps(verdict.overlaps, longest_answer),
        "pictures": pictures,
        "flips": [
            _flip_group(finding, flips, most_flips, longest_answer)
            for finding in verdict.findings
            if finding.against == "base"
        ],
        "training": _training_facts(candidate),
        "identities": _identities(verdict),
        "reproduce": list(reproduce),
    }
    written = [out_dir / "report.md", out_dir / "report.html"]
    for path in written:
        write_text(path, _environment().get_template(path.name).render(view))
    return [*written, *(out_dir / "figures" / f"{p['name']}.{kind}" for p in pictures for kind in ("png", "svg"))]


def plain(text: str, longest: int) -> str:
    """A text without control and direction-override characters, cut with the number of characters left out."""
    clean = _CONTROLS.sub("\ufffd", text)
    return clean if len(clean) <= longest else f"{clean[:longest]} … ({len(clean) - longest} more characters)"


def markdown(text: object) -> str:
    """A text as it is, on one line of Markdown: nothing in it is markup, HTML or a table cell's end."""
    line = " ⏎ ".join(str(text).splitlines())
    return _MARKDOWN_ACTIVE.sub(r"\\\1", html.escape(line, quote=False))


def _draw(  # noqa: PLR0917  (one for each picture)
    folder: Path,
    verdict: Verdict,
    metrics: Sequence[Mapping[str, float]],
    drift_samples: Sequence[float],
    drift_cap: float | None,
    interpolation: Interpolation | None,
    unit_fdr: float,
) -> list[dict[str, str]]:
    plans = [
        ("retention", "What was retained", figures.retention(verdict.findings), _RETENTION),
        ("accuracy", "Accuracy of base and candidate", figures.accuracy(verdict.findings), _ACCURACY),
        ("skills", "Skill profile", skill_profile(verdict.units), profile_caption(verdict.units, unit_fdr)),
        ("training", "How training went", figures.training(metrics), _TRAINING),
    ]
    if verdict.drift is not None:
        picture = figures.drift(verdict.drift, drift_samples, drift_cap)
        plans.append(("drift", "Drift on context-free text", picture, _DRIFT))
    if interpolation is not None and interpolation.points:
        caption = f"{_INTERPOLATION} {_items_chosen_on(interpolation)} Chosen: {interpolation.rule}."
        plans.append(("interpolation", "Choice of alpha", figures.interpolation(interpolation), caption))
    pictures = []
    for name, title, figure, caption in plans:
        if figure is not None:
            svg = figures.save(figure, folder, name)
            pictures.append(
                {"name": name, "title": title, "caption": caption, "svg": figures.inline(svg, name, caption)}
            )
    return pictures


_RETENTION = (
    "Difference in accuracy, candidate - reference, with its interval. A skill is retained when its whole interval "
    "lies to the right of the red line (the accepted loss), and lost when it lies to the left."
)
_ACCURACY = "Share of items answered correctly. A skill that the base has only at chance could not be forgotten."
_TRAINING = (
    "Logged at every optimiser step. Log-ratios start at 0, where the candidate equals the base; a growing distance "
    "between best and worst response is what the objective asks for."
)
_DRIFT = (
    "KL(base || candidate) estimated on held-out text that the base wrote from its start symbol alone. Zero means that "
    "the candidate would write the same; single samples may lie below zero, their mean only by chance."
)
_INTERPOLATION = (
    "Mean accuracy along the way from the base (alpha 0) to the trained weights (alpha 1), on items that the gate does "
    "not see. The best of several noisy points is too good on average, so these numbers prove nothing."
)


def _items_chosen_on(interpolation: Interpolation) -> str:
    counts = ", ".join(
        f"{suite.suite} {suite.n_items:,}"
        + (f" of {suite.n_wanted:,} wanted" if suite.n_items < suite.n_wanted else "")
        for suite in interpolation.suites
    )
    return f"Items: {counts}."


def _row(finding: SuiteFinding) -> dict[str, Any]:
    stopped = finding.n_items < finding.n_planned
    return {
        "skill": finding.skill,
        "suite": finding.suite,
        "tier": finding.tier,
        "against": finding.against,
        "n_items": f"{finding.n_items:,} of {finding.n_planned:,}" if stopped else f"{finding.n_items:,}",
        "before": f"{100 * finding.before:.1f}",
        "candidate": f"{100 * finding.candidate:.1f}",
        "chance": f"{100 * finding.chance:.0f}",
        "difference": _signed(finding.difference),
        "interval": f"{_signed(finding.low)} to {_signed(finding.high)}",
        "margin": _signed(-finding.margin),
        "lost": finding.lost,
        "gained": finding.gained,
        "power": "" if finding.power_if_unchanged is None else f"{finding.power_if_unchanged:.2f}",
        "needed": "" if finding.items_needed is None else f"{finding.items_needed:,}",
        "outcome": finding.word,
        "colour": figures.OUTCOMES[finding.outcome][0],
    }


def _noise_row(noise: Noise) -> dict[str, str]:
    return {
        "suite": noise.suite,
        "flips": f"{noise.flips:,} of {noise.n_items:,}",
        "difference": _signed(noise.difference),
        "floor": f"{100 * noise.floor:.1f}",
    }


def _tally(verdict: Verdict) -> list[tuple[str, str, int, int]]:
    """For each outcome: word, colour, how many deciding comparisons have it, of how many."""
    outcomes = [finding.outcome for finding in verdict.findings if finding.tier != "watched"]
    words = {"non_inferior": "passed", "worse": "failed", "undecided": "undecided"}
    return [
        (words[name], colour, sum(outcome == name for outcome in outcomes), len(outcomes))
        for name, (colour, _, _) in figures.OUTCOMES.items()
    ]


def _n_deciding(verdict: Verdict) -> int:
    """How many reasons stay in sight: the headline and one for each suite that decided; the table holds the rest."""
    deciding = {"PROMOTE": "", "BLOCK": "worse", "INCONCLUSIVE": "undecided"}[verdict.decision]
    decided = sum(f.tier != "watched" and f.outcome == deciding for f in verdict.findings)
    repeated = verdict.overlaps is not None and bool(verdict.overlaps.suites)
    return 1 + decided + (repeated and decided > 0)  # the headline over the suites comes after that of the overlaps


def _signed(share: float) -> str:
    """Points of accuracy with a sign, and no negative zero."""
    return f"{100 * share:+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0").replace("-", "\u2212")


def _drift_text(drift: Drift | None) -> dict[str, str] | None:
    if drift is None:
        return None
    return {
        "value": f"{drift.kl_per_token:.4f}",
        "interval": f"{drift.low:.4f} to {drift.high:.4f}",
        "samples": f"{drift.n_samples:,}",
        "tokens": f"{drift.n_tokens:,}",
    }


def _overlaps(overlaps: TrainingOverlaps | None, longest: int) -> dict[str, Any] | None:
    """The texts that repeat an item, by suite; None when they were not looked for."""
    if overlaps is None:
        return None
    rows = [
        {
            "suite": row.suite,
            "text_id": plain(row.text_id, longest),
            "text": plain(row.text, longest),
            "item_id": plain(row.item_id, longest),
            "item": plain(row.item, longest),
            "how": "whole item" if row.kind == "exact" else f"{100 * row.share:.0f} % of its n-grams",
        }
        for row in overlaps.examples
    ]
    total = sum(overlaps.suites.values())
    counts = ", ".join(f"{suite} {count:,}" for suite, count in overlaps.suites.items())
    return {
        "rows": rows,
        "texts": f"{overlaps.n_texts:,}",
        "counts": counts,
        "total": total,
        "hidden": total - len(rows),
    }


def _flip_group(finding: SuiteFinding, flips: Sequence[Flip], most: int, longest: int) -> dict[str, Any]:
    mine = [flip for flip in flips if flip.suite == finding.suite]
    lost, gained = ([flip for flip in mine if flip.kind == kind][:most] for kind in ("lost", "gained"))
    shown = [
        {
            "item": plain(flip.item_id, longest),
            "kind": flip.kind,
            "base": plain(flip.base_answer, longest),
            "candidate": plain(flip.candidate_answer, longest),
            "units": plain(", ".join(unit.replace("_", " ") for unit in flip.units if unit != flip.suite), longest),
        }
        for flip in (*lost, *gained)
    ]
    return {"skill": finding.skill, "lost": finding.lost, "gained": finding.gained, "shown": shown, "total": len(mine)}


def _training_facts(candidate: Candidate) -> list[tuple[str, str]]:
    method = {"lora": "LoRA adapter", "full": "all weights"}[candidate.method]
    return [
        ("Base", candidate.base.reference),
        ("Objective", candidate.objective),
        ("Trained", method),
        *_alpha_fact(candidate),
        ("Steps", f"{candidate.steps:,}"),
        ("Groups", f"{candidate.n_groups:,} trained on, {candidate.n_skipped_groups:,} degenerate and skipped"),
    ]


def _alpha_fact(candidate: Candidate) -> list[tuple[str, str]]:
    """Nothing where the weights are what training left."""
    if candidate.alpha == 1:
        return []
    return [("Weights", f"{100 * candidate.alpha:g} % of the way from the base to the trained ones (Wise-FT)")]


def _identities(verdict: Verdict) -> list[tuple[str, str]]:
    fields = ("weights", "adapter", "config", "tokenizer", "chat_template")
    models = [
        (f"{who} {field.replace('_', ' ')}", getattr(getattr(verdict, who), field))
        for who in ("candidate", "base")
        for field in fields
    ]
    files = [(f"data: {name}", digest) for name, digest in sorted(verdict.data.items())]
    evidence = [(f"evidence: {name}", digest) for name, digest in sorted(verdict.evidence.items())]
    head = [("verdict", digest_record(verdict)), ("policy", verdict.policy), ("training run key", verdict.run_key)]
    return [(name, digest) for name, digest in (*head, *models, *files, *evidence) if digest]


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(("html",), default=False, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = markdown
    environment.filters["picture"] = Markup  # only SVG that figures.py drew itself
    return environment
