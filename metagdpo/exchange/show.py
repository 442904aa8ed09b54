"""The gate's answer for people: a page for the terminal, and Markdown that fits into a comment on a pull request.

Names and answers are untrusted. Nothing in them becomes markup, a link, a mention of somebody or a terminal command.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metagdpo.exchange.compare import Outside
from metagdpo.gate.policy import Relative
from metagdpo.records.verdict import SuiteFinding
from metagdpo.report.flips import Flip
from metagdpo.report.report import markdown, plain

LONGEST_COMMENT = 60_000
"""Characters; GitHub takes 65,536."""
_SIZES = ((12, 200, 160), (3, 200, 80), (0, 200, 80), (0, 50, 80), (0, 10, 40))  # flips a kind, rows, answer's length
_LONGEST_NAME = 120
_COLUMNS = (
    "suite",
    "tier",
    "against",
    "n_items",
    "before",
    "candidate",
    "difference",
    "interval",
    "margin",
    "outcome",
)
_BADGES = {"PROMOTE": "🟢", "BLOCK": "🔴", "INCONCLUSIVE": "🟡"}
_MEANINGS = {
    "PROMOTE": "The candidate kept every required skill.",
    "BLOCK": "The candidate lost a required skill; it must not replace the base.",
    "INCONCLUSIVE": "The evidence proves neither retention nor loss; the candidate must not replace the base yet.",
}
_NO_IDENTITY = (
    "The tables state nothing about how the scores were measured: that both sides were measured alike is the word of "
    "whoever made them."
)
_ACTIVE = re.compile(r"(@|(?<![A-Za-z])(?:www|WWW)(?=\.)|#(?=\d)|GH-(?=\d))")


def page(answer: Outside) -> str:
    """The answer as text for a terminal."""
    head = [answer.decision, *(f"  {_word(reason, 600)}" for reason in _in_sight(answer)), ""]
    rows = [
        ["suite", "tier", "against", "n", "before", "candidate", "difference", "interval", "accepted loss", "outcome"]
    ]
    rows += [[row[name] for name in _COLUMNS] for row in map(_row, answer.findings)]
    tail = ["", *_word(_measured(answer), 600).splitlines()]
    tail += [
        f"ACCEPTED DIFFERENCE {_word(f.field)}: {_value(f.reference)} -> {_value(f.candidate)}" for f in answer.accepted
    ]
    tail += [f"LEFT OUT {_word(pattern)}" for pattern in answer.skipped]
    tail += [f"policy: {_policy_line(answer)}", f"next: {_next(answer)}"]
    return "\n".join([*head, *_aligned(rows), *tail])


def comment(answer: Outside) -> str:
    """The answer as Markdown of at most `LONGEST_COMMENT` characters; what does not fit is counted."""
    text = ""
    for most_flips, most_rows, longest in _SIZES:
        text = _render(answer, most_flips, most_rows, longest)
        if len(text) <= LONGEST_COMMENT:
            break
    return text


def defused(text: object) -> str:
    """A text on one line of Markdown: no markup, and nothing that GitHub makes a mention, a link or a reference of."""
    return _ACTIVE.sub("\\1\u2060", markdown(_word(str(text), 2000)))


def _render(answer: Outside, most_flips: int, most_rows: int, longest: int) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # every value goes through `defused`, which escapes HTML as well
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  (Markdown, not HTML)
    )
    environment.filters["md"] = defused
    order = {"worse": 0, "undecided": 1, "non_inferior": 2}
    findings = sorted(answer.findings, key=lambda finding: (finding.tier == "watched", order[finding.outcome]))
    reasons = [plain(reason, 600) for reason in answer.reasons[:most_rows]]
    view = {
        "badge": _BADGES[answer.decision],
        "title": answer.decision,
        "meaning": _MEANINGS[answer.decision],
        "first": reasons[0] if reasons else "",
        "reasons": reasons[1:],
        "accepted": [_shown(found) for found in answer.accepted[:most_rows]],
        "skipped": ", ".join(answer.skipped),
        "rows": [_row(finding) for finding in findings[:most_rows]],
        "n_rows_left": max(0, len(findings) - most_rows),
        "confidence": f"{100 * (1 - answer.policy.alpha):g}",
        "flips": [
            _flip_group(finding, answer.flips, most_flips, longest)
            for finding in findings[:most_rows]
            if finding.against == "base" and finding.lost + finding.gained
        ],
        "measured": _measured(answer),
        "facts": _facts(answer),
    }
    return environment.get_template("compare.md").render(view)


def _shown(found: Any) -> dict[str, str]:
    return {
        "field": found.field,
        "against": found.against,
        "reference": _value(found.reference),
        "candidate": _value(found.candidate),
    }


def _row(finding: SuiteFinding) -> dict[str, str]:
    clusters = "" if finding.n_clusters is None else f" in {finding.n_clusters:,} clusters"
    share = "" if finding.relative is None else f" ({100 * finding.relative:g} % of what is above chance)"
    gain = finding.demands_gain
    return {
        "suite": _word(finding.suite),
        "tier": finding.tier,
        "against": finding.against,
        "n_items": f"{finding.n_items:,}{clusters}",
        "before": f"{100 * finding.before:.1f}",
        "candidate": f"{100 * finding.candidate:.1f}",
        "difference": _points(finding.difference),
        "interval": f"{_points(finding.low)} to {_points(finding.high)}",
        "margin": f"gain over {abs(100 * finding.margin):.4g}" if gain else f"{100 * finding.margin:.4g}{share}",
        "lost": f"{finding.lost:,}",
        "gained": f"{finding.gained:,}",
        "outcome": finding.word,
        "needed": "" if finding.items_needed is None else f"{finding.items_needed:,}",
    }


def _flip_group(finding: SuiteFinding, flips: Sequence[Flip], most: int, longest: int) -> dict[str, Any]:
    mine = [flip for flip in flips if flip.suite == finding.suite]
    shown = [flip for kind in ("lost", "gained") for flip in [f for f in mine if f.kind == kind][:most]]
    return {
        "suite": _word(finding.suite),
        "lost": f"{finding.lost:,}",
        "gained": f"{finding.gained:,}",
        "left": len(mine) - len(shown),
        "shown": [
            {
                "item": _word(flip.item_id),
                "kind": flip.kind,
                "base": plain(flip.base_answer, longest),
                "candidate": plain(flip.candidate_answer, longest),
            }
            for flip in shown
        ],
    }


def _facts(answer: Outside) -> list[tuple[str, str]]:
    models = [
        (f"{found.against} and candidate: {found.field}", f"{_value(found.reference)} → {_value(found.candidate)}")
        for found in answer.models[:20]
    ]
    files = [(f"{side}: {name}", digest) for side, read in answer.sides.items() for name, digest in read.files.items()]
    return [("policy", _policy_line(answer)), *models, *files[:60]]


def _policy_line(answer: Outside) -> str:
    policy = answer.policy
    margin = policy.default_margin
    loss = f"relative {margin.relative:g}" if isinstance(margin, Relative) else f"{margin:g}"
    own = "".join(f", {len(values)} suites with own {name}" for name, values in _own(answer) if values)
    values = f"alpha {policy.alpha:g}, power {policy.power:g}, margin {loss}, min_items {policy.min_items}"
    return f"{answer.policy_from}: {values}{own}"


def _own(answer: Outside) -> tuple[tuple[str, Any], ...]:
    return ("margin", answer.policy.margins), ("tier", answer.policy.tiers), ("gain", answer.policy.gains)


def _measured(answer: Outside) -> str:
    if not answer.identity:
        return _NO_IDENTITY
    sides = "All three sides" if "champion" in answer.sides else "Base and candidate"
    return f"{sides} agree on {len(answer.identity)} stated settings, and on the content of every item."


def _in_sight(answer: Outside) -> list[str]:
    """The headline and one reason for each comparison that decided; the table holds the rest."""
    outcome = {"PROMOTE": "", "BLOCK": "worse", "INCONCLUSIVE": "undecided"}[answer.decision]
    n_deciding = sum(finding.tier != "watched" and finding.outcome == outcome for finding in answer.findings)
    return list(answer.reasons[: 1 + n_deciding])


def _next(answer: Outside) -> str:
    if answer.decision == "PROMOTE":
        return "the candidate may replace the base"
    if answer.decision == "BLOCK":
        return "look at the items that were lost (--markdown, --json), then train more gently or protect the skill"
    needed = [f.items_needed for f in answer.findings if f.outcome == "undecided" and f.tier != "watched"]
    most = max((n for n in needed if n is not None), default=None)
    if most is None:
        return "the difference lies at the margin itself: decide what loss is acceptable, or train another candidate"
    return f"measure more items: about {most:,} for the suite that needs the most, on base and candidate alike"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _points(share: float) -> str:
    """Points of accuracy with a sign, and no negative zero."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text


def _value(text: str | None) -> str:
    return "(not stated)" if text is None else _word(text)


def _word(text: str, longest: int = _LONGEST_NAME) -> str:
    return plain(" ⏎ ".join(text.splitlines()) if text else "", longest)
