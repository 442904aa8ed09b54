"""The Markdown that people read in the MLflow UI: what was decided about a candidate, on which numbers."""

from metagdpo.records.candidate import Candidate
from metagdpo.records.verdict import SuiteFinding, Verdict
from metagdpo.schema import digest_record

MODEL_DESCRIPTION = (
    "Candidates that passed the forgetting gate. The alias `champion` is the model in use, `previous` the one before. "
    "Every decision, refusals included, is a line of `registry/ledger.jsonl`; a version's tags lead to its commit, "
    "data, base weights and verdict, its source run to the training curves and the gate's report."
)


def describe(verdict: Verdict, candidate: Candidate) -> str:
    """Decision, reasons, gate table and digests as Markdown."""
    drift = verdict.drift
    lines = [
        # Without markup: the list of versions shows the first line as it is.
        f"{verdict.decision}: {candidate.objective} ({candidate.method}) on {candidate.base.reference}",
        "",
        *(f"- {_plain(reason)}" for reason in verdict.reasons),
        "",
        gate_table(verdict.findings, verdict.alpha),
        "",
    ]
    if drift is not None:
        moved = (
            f"KL(base \\|\\| candidate) on held-out context-free text: {drift.kl_per_token:.4f} nats a token "
            f"[{drift.low:.4f}, {drift.high:.4f}], {drift.n_tokens} tokens."
        )
        lines += [moved, ""]
    if candidate.alpha < 1:
        lines += [f"Weights: {100 * candidate.alpha:g} % of the way from the base to the trained ones (Wise-FT).", ""]
    lines.append(
        f"Trained on {candidate.n_groups} groups in {candidate.steps} steps "
        f"({candidate.n_skipped_groups} groups without preference). Verdict `{digest_record(verdict)}`."
    )
    return "\n".join(lines)


def gate_table(findings: tuple[SuiteFinding, ...], alpha: float) -> str:
    """One row a suite; difference = candidate - base in percentage points, higher is better."""
    level = f"{100 * (1 - 2 * alpha):g} %"
    head = f"| skill | against | items | before | candidate | difference ({level}) | accepted loss | outcome |"
    rows = [
        f"| {_plain(f.skill)} ({_plain(f.suite)}, {f.tier}) | {f.against} | {f.n_items} | {f.before:.1%} "
        f"| {f.candidate:.1%} "
        f"| {100 * f.difference:+.1f} [{100 * f.low:+.1f}, {100 * f.high:+.1f}] | {100 * f.margin:.1f} "
        f"| {f.outcome.replace('_', '-')} |"
        for f in findings
    ]
    return "\n".join([head, "|---|---|--:|--:|--:|--:|--:|---|", *rows])


def _plain(text: str) -> str:
    """Outside text as one table cell: no column, no line break, no markup of its own."""
    one_line = " ".join(text.split())
    return one_line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
