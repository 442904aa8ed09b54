"""Claim: at the accepted loss our gate promotes no more often than it promises, where other gates do; power beside it.

The same simulated pairs go to every tool. What the candidate truly lost is known, so each table counts how often a tool
promotes, blocks, or leaves open. Peers that are not installed are left out; the script then prints the pip line.

Left out: what peers do besides deciding (running benchmarks, judging, dashboards), and real models: with those nobody
knows the truth. Results are kept in a file and not measured again; docs/gate-peers.md is written from it.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import _gate_peers_files as files
import numpy as np
from _gate_peers_data import Flips, Graded, Passages, shuffled
from _gate_peers_tools import (
    PEERS,
    TOOLS,
    Outcome,
    Pairs,
    Tool,
    all_suites,
    flips,
    how_to_install,
    installed,
    paired_scores,
)  # fmt: skip

from metagdpo.schema import write_json

MARGIN = 0.04
RESULTS = Path(".work/benchmarks/gate_peers.json")
MARKS = ("<!-- measured: begin -->", "<!-- measured: end -->")
FULL = ("ours", "ours_half", "nel_gate", "statgate", "statgate_5", "evalsig_interval", "nel_compare", "mcnemar", "z")
ALIKE = (10, 50, 100)
ALIKE_TOOLS = (*FULL, "evalsig_gate", "retention")
LOOKS = range(50, 401, 50)
EXAMPLES = """examples:
  python benchmarks/gate_peers.py                                       what is not known yet, half an hour
  python benchmarks/gate_peers.py --only margin power                   some tables
  python benchmarks/gate_peers.py --report-only --publish docs/gate-peers.md
"""


@dataclass(frozen=True)
class Case:
    """One row of a table."""

    label: str
    data: Flips | Passages | Graded
    margin: float = MARGIN
    draws: int = 2000


@dataclass(frozen=True)
class Table:
    """Rows of cases, columns of tools, one kind of outcome counted."""

    title: str
    counted: Outcome
    tools: Sequence[str]
    cases: Sequence[Case]
    mark_excess: bool = False
    """Whether the count is an error that a tool promises to keep below its level."""


TABLES = {
    "margin": Table(
        "Promoted although the loss is just the margin: right-or-wrong items",
        "promote",
        (*FULL, "retention"),
        (
            Case("10 items, only losses", Flips(10, 0.04, 0)),
            Case("20 items, only losses", Flips(20, 0.04, 0)),
            Case("50 items, only losses", Flips(50, 0.04, 0)),
            Case("100 items, only losses", Flips(100, 0.04, 0)),
            Case("400 items, only losses", Flips(400, 0.04, 0)),
            Case("164 items, margin 1.5 points, only losses", Flips(164, 0.015, 0), 0.015),
            Case("100 items, 10 % flip", Flips(100, 0.07, 0.03)),
            Case("400 items, 6 % flip", Flips(400, 0.05, 0.01)),
            Case("400 items, 10 % flip", Flips(400, 0.07, 0.03)),
            Case("400 items, 30 % flip", Flips(400, 0.17, 0.13)),
            Case("400 items, 6 % flip, base 98 % right", Flips(400, 0.05, 0.01, base=0.98), draws=1000),
            Case("400 items, 10 % flip, base 10 % right", Flips(400, 0.07, 0.03, base=0.1), draws=1000),
            Case("1,500 items, 10 % flip", Flips(1500, 0.07, 0.03), draws=200),
        ),
        mark_excess=True,
    ),
    "power": Table(
        "Promoted although nothing was lost (5 % of the items flip, as often to the better): power",
        "promote",
        (*FULL, "evalsig_gate", "retention"),
        (
            Case("100 items", Flips(100, 0.025, 0.025), draws=1000),
            Case("400 items", Flips(400, 0.025, 0.025), draws=1000),
            Case("1,500 items", Flips(1500, 0.025, 0.025), draws=200),
        ),
    ),
    "loss": Table(
        "Blocked when the loss is three times the margin (15 % of the items flip)",
        "block",
        (*FULL, "evalsig_gate", "retention"),
        (
            Case("100 items", Flips(100, 0.135, 0.015), draws=1000),
            Case("400 items", Flips(400, 0.135, 0.015), draws=1000),
            Case("1,500 items", Flips(1500, 0.135, 0.015), draws=200),
        ),
    ),
    "clusters": Table(
        "Promoted although the loss is just the margin: passages with 20 questions each",
        "promote",
        ("ours", "nel_gate", "statgate_5", "statgate_cases", "evalsig_interval"),
        (
            Case("20 passages, share lost varies (correlation 0.29)", Passages(0.07, 0.03, whole=False), draws=500),
            Case("20 passages, few forgotten as a whole", Passages(0.04, 0, whole=True), draws=500),
            Case("100 passages, share lost varies", Passages(0.07, 0.03, whole=False, passages=100), draws=150),
        ),
        mark_excess=True,
    ),
    "clusters_power": Table(
        "Promoted when nothing was lost: passages with 20 questions each, 5 % of the items flip",
        "promote",
        ("ours", "nel_gate", "statgate_5", "statgate_cases", "evalsig_interval"),
        (
            Case("20 passages", Passages(0.025, 0.025, whole=False), draws=200),
            Case("100 passages", Passages(0.025, 0.025, whole=False, passages=100), draws=100),
        ),
    ),
    "graded": Table(
        "Promoted although the mean loss is just the margin: graded scores, few items drop to zero",
        "promote",
        ("ours", "nel_gate", "statgate", "statgate_5", "evalsig_interval"),
        (
            Case("30 items", Graded(30, 0.04), draws=1000),
            Case("100 items", Graded(100, 0.04), draws=1000),
            Case("400 items", Graded(400, 0.04), draws=500),
        ),
        mark_excess=True,
    ),
    "graded_power": Table(
        "Promoted when nothing was lost: graded scores with small noise",
        "promote",
        ("ours", "nel_gate", "statgate", "statgate_5", "evalsig_interval"),
        (
            Case("30 items", Graded(30, 0), draws=200),
            Case("100 items", Graded(100, 0), draws=200),
            Case("400 items", Graded(400, 0), draws=200),
        ),
    ),
}
SUITE_ROWS = {
    "nothing lost": [Flips(400, 0.025, 0.025)] * 5,
    "one suite lost three margins": [*[Flips(400, 0.025, 0.025)] * 4, Flips(400, 0.135, 0.015)],
    "one suite lost just the margin": [*[Flips(400, 0.025, 0.025)] * 4, Flips(400, 0.07, 0.03)],
}
SUITE_TOOLS = {
    "ours": "metagdpo, every suite", "nel_gate": "nel gate, every suite", "statgate_5": "statgate 5 %, one file",
    "evalsig_interval": "evalsig interval 5 %, one file", "mcnemar": "McNemar pooled, not flagged",
    "z": "lm-eval z, every suite", "retention": "finetunecheck pattern",
}  # fmt: skip
LOOK_ROWS = {
    "loss just the margin, 10 % flip": Flips(400, 0.07, 0.03),
    "loss just the margin, only losses": Flips(400, 0.04, 0),
    "nothing lost, 5 % flip": Flips(400, 0.025, 0.025),
    "loss three times the margin": Flips(400, 0.135, 0.015),
}


def main() -> None:
    """Measure what is not known, print all tables, publish."""
    arguments = _arguments()
    if not arguments.report_only:
        print(how_to_install())
        for name, measure in measurements().items():
            if not arguments.only or name in arguments.only:
                start = time.perf_counter()
                for row in measure([] if arguments.again else read().get(name, []), arguments.tools):
                    print(f"  {row['label']}: {row['shares']}", flush=True)
                    keep(name, row)
                print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    page = report(read())
    print(page)
    if arguments.publish is not None:
        publish(arguments.publish, page)


def read() -> dict[str, Any]:
    """What was measured so far."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def keep(name: str, row: dict[str, Any]) -> None:
    """Put a row in the place of an earlier one of the same label."""
    results = read()
    labels = [old["label"] for old in results.setdefault(name, [])]
    if row["label"] in labels:
        results[name][labels.index(row["label"])] = row
    else:
        results[name].append(row)
    write_json(RESULTS, results | {"made with": results.get("made with", {}) | made_with()})


Row = dict[str, Any]
Rows = list[Row]
"""Label, draws and, by tool, what was counted."""


def measurements() -> dict[str, Callable[[Rows, Sequence[str] | None], Iterator[Row]]]:
    """Everything that can be measured, by the name that --only takes; given what is known and the tools wanted."""
    return {
        "alike": measure_alike,
        **{name: partial(measure_table, table) for name, table in TABLES.items()},
        "suites": measure_suites,
        "looks": measure_looks,
        "files": measure_files,
    }


def wanting(
    names: Iterable[str], known: Rows, label: str, wanted: Sequence[str] | None
) -> tuple[list[str], dict[str, Any]]:
    """Tools that a row still lacks, and what it has."""
    has: dict[str, Any] = next((row["shares"] for row in known if row["label"] == label), {})
    if wanted is not None:  # asked for by name: measured again
        return [name for name in names if name in wanted], has
    return [name for name in names if name not in has], has


def made_with() -> dict[str, str]:
    """Versions behind the numbers of this run; a peer that is absent added none."""
    packages = {name: installed(name) for name in ("numpy", "scipy", *PEERS)}
    return {"python": platform.python_version()} | {name: found for name, found in packages.items() if found}


def measure_alike(known: Rows, wanted: Sequence[str] | None) -> Iterator[Row]:
    """What each tool says when no item flips."""
    for n in ALIKE:
        label = f"{n} items, no flip"
        names, shares = wanting([name for name in ALIKE_TOOLS if TOOLS[name].there], known, label, wanted)
        scores = np.repeat([1.0, 0.0], [round(0.8 * n), n - round(0.8 * n)])
        found = {name: TOOLS[name].judge(Pairs(scores, scores), MARGIN) for name in names}
        yield {"label": label, "shares": shares | found}


def measure_table(table: Table, known: Rows, wanted: Sequence[str] | None) -> Iterator[Row]:
    """Share of the draws with the counted outcome, for every case and tool."""
    for number, case in enumerate(table.cases):
        usable_tools = [name for name in table.tools if TOOLS[name].there and usable(TOOLS[name], case)]
        names, shares = wanting(usable_tools, known, case.label, wanted)
        draws = list(case.data.draw(case.draws, seed=1000 + number)) if names else []
        found = {name: share_of(table.counted, TOOLS[name], draws, case.margin) for name in names}
        yield {"label": case.label, "draws": case.draws, "shares": shares | found}


def usable(tool: Tool, case: Case) -> bool:
    """The fixed limit of finetunecheck is our margin at the usual base accuracy only; some tools want 0 and 1."""
    if tool is TOOLS["retention"]:
        return isinstance(case.data, Flips) and case.margin == MARGIN and case.data.base == Flips(1, 0, 0).base
    return not (tool.binary_only and isinstance(case.data, Graded))


def share_of(counted: Outcome, tool: Tool, draws: Iterable[Pairs], margin: float) -> float:
    """How often a tool gives an outcome; equal tables of flips are judged once."""
    outcomes = [remembered(tool, pairs, margin) for pairs in draws]
    return outcomes.count(counted) / len(outcomes)


_JUDGED: dict[tuple[str, int, int, int, float], Outcome] = {}


def remembered(tool: Tool, pairs: Pairs, margin: float) -> Outcome:
    """The tool's outcome, out of memory when it can only depend on numbers seen before."""
    scores = {*pairs.before.tolist(), *pairs.candidate.tolist()}
    if not tool.flips_only or pairs.clusters is not None or not scores <= {0.0, 1.0}:
        return tool.judge(pairs, margin)
    key = (tool.name, len(pairs.before), *flips(pairs), margin)
    if key not in _JUDGED:
        _JUDGED[key] = tool.judge(pairs, margin)
    return _JUDGED[key]


def measure_suites(known: Rows, wanted: Sequence[str] | None, draws: int = 150) -> Iterator[Row]:
    """Outcomes of one decision over five suites."""
    for number, (label, parts) in enumerate(SUITE_ROWS.items()):
        drawn = list(zip(*(part.draw(draws, seed=2000 + 10 * number + i) for i, part in enumerate(parts)), strict=True))
        names, shares = wanting([name for name in SUITE_TOOLS if TOOLS[name].there], known, label, wanted)
        found = {}
        for name in names:
            decide = all_suites(name)
            outcomes = [decide(suites, MARGIN) for suites in drawn]
            found[name] = {kind: outcomes.count(kind) / draws for kind in ("promote", "block")}
        yield {"label": label, "draws": draws, "shares": shares | found}


def measure_looks(known: Rows, wanted: Sequence[str] | None, draws: int = 250) -> Iterator[Row]:
    """Outcomes and items used when the data are looked at every 50 items and the first decision stands."""
    for number, (label, data) in enumerate(LOOK_ROWS.items()):
        rng = np.random.default_rng(3000 + number)
        drawn = [shuffled(pairs, rng) for pairs in data.draw(draws, seed=3100 + number)]
        there = [name for name, (_, package) in LOOKERS.items() if package is None or installed(package)]
        names, shares = wanting(there, known, label, wanted)
        found = {}
        for name in names:
            ended = [LOOKERS[name][0](pairs) for pairs in drawn]
            outcomes = [outcome for outcome, _ in ended]
            counts = {kind: outcomes.count(kind) / draws for kind in ("promote", "block")}
            found[name] = {**counts, "items": float(np.mean([items for _, items in ended]))}
        yield {"label": label, "draws": draws, "shares": shares | found}


def measure_files(known: Rows, wanted: Sequence[str] | None) -> Iterator[Row]:
    """What the commands answer to damaged files."""
    for damage in files.DAMAGES:
        names, answers = wanting(files.there(), known, damage, wanted)
        yield {"label": damage, "shares": answers | files.answers(damage, names)}


Ended = tuple[Outcome, int]


def peeking(tool: Tool) -> Callable[[Pairs], Ended]:
    """A test made for one look, looked at again and again; nobody recommends it, many do it."""

    def decide(pairs: Pairs) -> Ended:
        for n in LOOKS:
            outcome = remembered(tool, Pairs(pairs.before[:n], pairs.candidate[:n]), MARGIN)
            if outcome != "undecided":
                return outcome, n
        return "undecided", LOOKS[-1]

    return decide


def our_sequence(pairs: Pairs) -> Ended:
    """`sequential: {items_per_look: 50}` of the policy."""
    from metagdpo.gate.hypotheses import absolute
    from metagdpo.gate.policy import Sequential
    from metagdpo.gate.sequential import decide_sequentially

    scores = paired_scores(pairs)
    for n in LOOKS:
        looked = decide_sequentially(scores[:n], absolute(MARGIN), 0.05, Sequential(items_per_look=50), len(scores))
        if looked.outcome != "undecided":
            return "promote" if looked.outcome == "non_inferior" else "block", n
    return "undecided", LOOKS[-1]


def statgate_sequence(pairs: Pairs) -> Ended:
    """`statgate sequential --alpha 0.1` with batches of 50: its mixture SPRT against minus the margin."""
    from statgate.core.sequential import MixtureSPRT

    test = MixtureSPRT(theta0=-MARGIN, alpha=0.1)
    difference = pairs.candidate - pairs.before
    for n in LOOKS:
        found = test.update(difference[n - 50 : n])
        if found.decided:
            return "promote" if found.direction > 0 else "block", n
    return "undecided", LOOKS[-1]


def evalsig_sequence(pairs: Pairs) -> Ended:
    """The confidence sequence of evalsig at each look; its `watch` tests against zero, so the margin is added first."""
    from evalsig.inference.sequential import confidence_sequence

    excess = pairs.candidate - pairs.before + MARGIN
    for n in LOOKS:
        low, high = confidence_sequence(excess[:n], alpha=0.1).ci
        if low > 0 or high < 0:
            return "promote" if low > 0 else "block", n
    return "undecided", LOOKS[-1]


LOOKERS: dict[str, tuple[Callable[[Pairs], Ended], str | None]] = {
    "metagdpo, sequential": (our_sequence, None),
    "statgate, sequential 5 %": (statgate_sequence, "statgate"),
    "evalsig, sequence 5 %": (evalsig_sequence, "evalsig"),
    "nel gate, peeking": (peeking(TOOLS["nel_gate"]), None),
    "statgate 5 %, peeking": (peeking(TOOLS["statgate_5"]), "statgate"),
    "metagdpo fixed, peeking": (peeking(TOOLS["ours"]), None),
}


def report(results: dict[str, Any]) -> str:
    """All tables that were measured, as Markdown."""
    parts = []
    if "alike" in results:
        parts.append(_words("No item flips", results["alike"], {name: TOOLS[name].name for name in ALIKE_TOOLS}))
    parts += [_rates(table, results[name]) for name, table in TABLES.items() if name in results]
    if "suites" in results:
        parts.append(
            _outcomes("Five suites of 400 items: promoted / blocked, %", results["suites"], SUITE_TOOLS, items=False)
        )
    if "looks" in results:
        title = "A look every 50 of 400 items, the first decision stands: promoted / blocked, %, and mean items"
        parts.append(_outcomes(title, results["looks"], {name: name for name in LOOKERS}, items=True))
    if "files" in results:
        title = f"{files.ITEMS} equal answers of both models, the candidate's file damaged"
        parts.append(_words(title, results["files"], {name: name for name in files.ALL}))
    versions = ", ".join(f"{name} {version}" for name, version in results.get("made with", {}).items())
    return "\n\n".join([*parts, f"Made with {versions}."])


def _rates(table: Table, rows: Sequence[dict[str, Any]]) -> str:
    names = [name for name in table.tools if any(name in row["shares"] for row in rows)]
    body = [
        [row["label"], *(_share(table, TOOLS[name], row["shares"].get(name), row["draws"]) for name in names)]
        for row in rows
    ]
    draws = sorted({row["draws"] for row in rows})
    note = f"Per cent of {' to '.join(f'{n:,}' for n in (draws[0], draws[-1]))} draws." if len(draws) > 1 else ""
    note = note or f"Per cent of {draws[0]:,} draws."
    if table.mark_excess:
        note += " Bold: proven above the promised rate (Clopper-Pearson, one-sided 2.5 %)."
    return f"### {table.title}\n\n{note}\n\n" + _markdown(["", *(TOOLS[name].name for name in names)], body)


def _share(table: Table, tool: Tool, share: float | None, draws: int) -> str:
    from scipy import stats

    if share is None:
        return ""
    text, hits = f"{100 * share:.1f}", round(share * draws)
    if not table.mark_excess or tool.level is None or hits == 0:
        return text
    lowest = float(stats.beta.ppf(0.025, hits, draws - hits + 1))
    return f"**{text}**" if lowest > tool.level else text


def _outcomes(title: str, rows: Sequence[dict[str, Any]], names: dict[str, str], *, items: bool) -> str:
    def cell(found: dict[str, float] | None) -> str:
        if found is None:
            return ""
        text = f"{100 * found['promote']:.0f} / {100 * found['block']:.0f}"
        return f"{text}, {found['items']:.0f}" if items else text

    there = [name for name in names if any(name in row["shares"] for row in rows)]
    body = [[row["label"], *(cell(row["shares"].get(name)) for name in there)] for row in rows]
    return f"### {title}\n\n{rows[0]['draws']} draws.\n\n" + _markdown(["", *(names[name] for name in there)], body)


def _words(title: str, rows: Rows, names: Mapping[str, str]) -> str:
    there = [name for name in names if name in rows[0]["shares"]]
    body = [[row["label"], *(row["shares"].get(name, "") for name in there)] for row in rows]
    return f"### {title}\n\n" + _markdown(["", *(names[name] for name in there)], body)


def _markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]
    return "\n".join(lines)


def publish(page: Path, text: str) -> None:
    """Replace what stands between the marks.

    Raises:
        SystemExit: The page has no marks.
    """
    begin, end = MARKS
    before, mark, rest = page.read_text(encoding="utf-8").partition(begin)
    if not mark or end not in rest:
        message = f"{page} has no {begin} ... {end}."
        raise SystemExit(message)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(measurements()), metavar="TABLE", help="measure these only")
    parser.add_argument("--tools", nargs="+", metavar="TOOL", help="measure these only, even if they are known")
    parser.add_argument("--again", action="store_true", help="forget what is known")
    parser.add_argument("--report-only", action="store_true", help="measure nothing")
    parser.add_argument("--publish", type=Path, metavar="FILE", help="write the tables into this page")
    return parser.parse_args()


if __name__ == "__main__":
    main()
