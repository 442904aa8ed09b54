"""The command line: parses, calls one library function, prints. Heavy packages load inside the commands."""

from pathlib import Path
from typing import Any

import click

from metagdpo.cli_compare import compare as compare_methods
from metagdpo.cli_knowledge import knowledge
from metagdpo.command_group import Group, leave
from metagdpo.errors import Blocked, ConfigError, DataError, Inconclusive, StoreError


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="metagdpo")
def main() -> None:
    """Continual fine-tuning with MetaGDPO, a forgetting gate and verified releases.

    \b
    The main job:      dvc repro
    What happened:     metagdpo explain
    What was selected: metagdpo knowledge units
    Which method:      metagdpo compare
    What was decided:  metagdpo gate check
    Other harnesses:   metagdpo gate compare BASE CANDIDATE

    Exit codes: 0 done or PROMOTE, 1 BLOCK, 2 INCONCLUSIVE, 3 wrong configuration or command, 4 bad data, 5 model,
    6 storage, 7 measurements that must not be compared, 70 an unexpected error.
    """


@main.command()
def check() -> None:
    """Validate params.yaml, suites, policy, assets and ledger; list every problem at once.

    \b
    Example:
      metagdpo check && dvc repro
    """
    from metagdpo.configuration import check as check_all

    found = check_all(Path())
    if found:
        leave("\n".join(found), ConfigError.exit_code)
    print("params.yaml, comparison.yaml, and registry's assets.yaml, suites, policy.yaml and ledger are valid.")


@main.command()
@click.argument("name", required=False)
@click.option("--discard", is_flag=True, help="Overwrite edits of params.yaml that are not committed.")
def use(name: str | None, discard: bool) -> None:  # noqa: FBT001  (click passes flags as they are)
    """Write params.yaml as the parameter set NAME out of params.d/ wants it; without NAME, list the sets.

    `default` is params.yaml as committed.

    \b
    Examples:
      metagdpo use sft-high-lr && dvc repro
      metagdpo use default
    """
    from metagdpo import parameter_sets

    if name is None:
        print("\n".join(parameter_sets.available(Path())))
        return
    changes = parameter_sets.use(name, Path(), discard=discard)
    print(f"params.yaml is now the set `{name}`" + (":" if changes else "; nothing changed."))
    for line in changes:
        print(f"  {line}")


@main.command()
def explain() -> None:
    """Print the last run's chain: questions -> MetaKL -> groups -> candidate -> verdict -> version.

    \b
    Example:
      metagdpo explain
    """
    from metagdpo.lineage.explain import explain as chain

    for line in chain(Path()):
        print(line)


main.add_command(compare_methods)
main.add_command(knowledge)


@main.group()
def gate() -> None:
    """Ask the forgetting gate; exit 0 for PROMOTE, 1 for BLOCK, 2 for INCONCLUSIVE, 3 and more for errors."""


@gate.command(name="check")
def gate_check() -> None:
    """Print the pipeline's verdict and exit 0 for PROMOTE, 1 for BLOCK, 2 for INCONCLUSIVE; releases nothing.

    For pull requests that must not promote:

    \b
      dvc repro gate && metagdpo gate check
    """
    from metagdpo.records.verdict import Verdict
    from metagdpo.schema import read_record

    verdict = read_record(Path("reports/verdict.json"), Verdict)
    print("\n".join([verdict.decision, *(f"  {reason}" for reason in verdict.reasons), "  see reports/report.html"]))
    raise SystemExit(_VERDICT_CODES[verdict.decision])


@gate.command(name="plan")
@click.option("--margin", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Margin of every suite.")
@click.option("--alpha", type=click.FloatRange(0, 0.5, min_open=True, max_open=True), help="Error rate of each test.")
@click.option("--power", type=click.FloatRange(0.5, 1, min_open=True, max_open=True), help="Wanted probability.")
@click.option("--flip-rate", type=click.FloatRange(0, 1), help="Share of items expected to differ from the base.")
@click.option("--markdown", "markdown_file", type=click.Path(path_type=Path), help="Write the table as Markdown.")
def gate_plan(
    margin: float | None, alpha: float | None, power: float | None, flip_rate: float | None, markdown_file: Path | None
) -> None:
    """Say what the suites can show before anything is spent: drops they see, and items a margin needs.

    Uses the base's scores if `dvc repro evaluate_base` has measured them, otherwise the accuracy that the suite's file
    states. Without options the policy's alpha, power, margins and expected flip rate count.

    \b
    Examples:
      metagdpo gate plan
      metagdpo gate plan --margin 0.02 --flip-rate 0.1
    """
    from metagdpo.evaluation.suite import load_suites
    from metagdpo.gate.plan import table
    from metagdpo.gate.policy import read_policy
    from metagdpo.planning import base_scores, make_plan, planned_suites
    from metagdpo.schema import write_text

    policy = read_policy(Path("registry/policy.yaml"))
    chosen: dict[str, Any] = {
        "alpha": alpha,
        "power": power,
        "default_margin": margin,
        "margins": {} if margin else None,
    }
    policy = policy.model_copy(update={name: value for name, value in chosen.items() if value is not None})
    measured = base_scores(Path("evaluations/base"))
    rows = make_plan(
        policy, planned_suites(policy, load_suites(Path("registry/suites")), measured), flip_rate=flip_rate
    )
    rate = policy.expected_flip_rate if flip_rate is None else flip_rate
    where = "evaluations/base" if measured else "what registry/suites states (nothing is measured yet)"
    print(f"alpha {policy.alpha:g}, power {policy.power:g}, flip rate {rate:g}; scores of the base: {where}")
    print("\n".join(["Margins, losses and gains in points of accuracy.", "", *table(rows)]))
    if markdown_file is not None:
        write_text(markdown_file, "\n".join([*table(rows, "markdown"), ""]))


@gate.command(name="history")
@click.option("--figure", type=click.Path(path_type=Path), help="Write the matrix as a picture (.png and .svg).")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write matrix and metrics as JSON.")
def gate_history(figure: Path | None, json_file: Path | None) -> None:
    """Print the matrix R[t][i] over all releases with average accuracy, BWT, FWT, forgetting and their intervals.

    Rows are the base and every release (registry/scores, written by the stage `release`), columns the suites.
    docs/continual-metrics.md defines every number.

    \b
    Examples:
      metagdpo gate history
      metagdpo gate history --figure history.png
    """
    import numpy as np

    from metagdpo.gate.continual import measure_releases, table
    from metagdpo.params import BaseParams, section
    from metagdpo.release.score_history import read_history
    from metagdpo.schema import write_record

    base = section("base", BaseParams)
    rows, notes = read_history(Path("registry/scores"), base.experiment)
    if not rows:
        raise DataError("registry/scores is empty: nothing was released yet. Run `dvc repro` to a PROMOTE first.")
    history = measure_releases(rows, np.random.default_rng(base.seed))
    print("\n".join([*table(history), *(f"note: {note}" for note in notes)]))
    if json_file is not None:
        write_record(json_file, history)
    if figure is not None:
        from metagdpo.report.figures import save
        from metagdpo.report.matrix_figure import matrix

        picture = matrix(history.matrix, history.releases, history.suites, history.trained)
        save(picture, figure.parent, figure.stem)
        print(f"written: {figure.parent / figure.stem}.png and .svg")


@gate.command(name="compare")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path), required=False)
@click.option("--champion", type=click.Path(path_type=Path), help="Scores of the current release, a second reference.")
@click.option(
    "--policy", "policy_file", type=click.Path(path_type=Path), help="Policy file; see docs/gate-anywhere.md."
)
@click.option(
    "--margin", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Accepted loss: 0.04 is 4 points."
)
@click.option("--alpha", type=click.FloatRange(0, 0.5, min_open=True, max_open=True), help="Error rate of each test.")
@click.option("--metric", "metrics", multiple=True, metavar="[SUITE=]NAME", help="lm-eval metric or Inspect scorer.")
@click.option("--filter", "filters", multiple=True, metavar="[SUITE=]NAME", help="lm-eval filter.")
@click.option("--cluster", "clusters", multiple=True, metavar="[SUITE=]FIELD", help="Field that dependent items share.")
@click.option(
    "--chance", "chances", multiple=True, metavar="[SUITE=]SHARE", help="Accuracy of guessing, if not stated."
)
@click.option("--pool", "pools", multiple=True, metavar="NAME=PATTERN", help="Make one suite of several.")
@click.option("--skip", "skips", multiple=True, metavar="PATTERN", help="Leave suites out; the report says so.")
@click.option("--accept", "accept", multiple=True, metavar="FIELD", help="Setting that may differ; the report says so.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the whole answer as JSON.")
@click.option("--markdown", "markdown_file", type=click.Path(path_type=Path), help="Write a pull request comment.")
def gate_compare(  # noqa: PLR0917  (click passes them by name)
    base: Path,
    candidate: Path | None,
    champion: Path | None,
    policy_file: Path | None,
    margin: float | None,
    alpha: float | None,
    metrics: tuple[str, ...],
    filters: tuple[str, ...],
    clusters: tuple[str, ...],
    chances: tuple[str, ...],
    pools: tuple[str, ...],
    skips: tuple[str, ...],
    accept: tuple[str, ...],
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Judge CANDIDATE against BASE on scores that another harness measured; needs no project and no pipeline.

    BASE and CANDIDATE are what one harness wrote about two models: lm-eval's output folder (with --log_samples),
    Inspect logs (.eval, .json or a folder of them), or tables (.csv, .jsonl) with the columns suite, item, score. One
    table with the columns suite, item, base, candidate does without CANDIDATE.

    Items are paired one to one. Settings, items, documents and prompts must be equal on both sides; a mismatch is
    refused and names the field. SUITE may be a pattern such as `mmlu_*`; without SUITE= a choice is for every suite.

    \b
    Exit codes: 0 PROMOTE, 1 BLOCK, 2 INCONCLUSIVE, 3 and more when nothing could be decided.

    \b
    Examples:
      metagdpo gate compare out/base out/candidate
      metagdpo gate compare out/base out/candidate --policy gate.yaml --markdown report.md --json report.json
      metagdpo gate compare logs/base.eval logs/candidate.eval --metric match --cluster passage
      metagdpo gate compare out/base out/candidate --filter gsm8k=strict-match --pool 'mmlu=mmlu_*'
      metagdpo gate compare pairs.csv --margin 0.02
    """
    from metagdpo.exchange import show
    from metagdpo.exchange.compare import DEFAULTS, compare, read, read_both
    from metagdpo.exchange.score_set import Reading, pool
    from metagdpo.gate.policy import read_policy
    from metagdpo.schema import write_record, write_text

    for path in (json_file, markdown_file):
        if path is not None:
            _remove(path)  # an older answer must not be taken for this one's
    reading = Reading(_choices(metrics), _choices(filters), _choices(clusters), skips)
    groups = _named("--pool", pools)
    sources = [*read_both(base, candidate, reading), *([read(champion, reading)] if champion else [])]
    pooled = [pool(source, groups) for source in sources]
    policy = DEFAULTS if policy_file is None else read_policy(policy_file)
    changes = {"default_margin": margin, "alpha": alpha}
    chosen = {name: value for name, value in changes.items() if value is not None}
    said = "built-in defaults" if policy_file is None else str(policy_file)
    answer = compare(
        pooled[0],
        pooled[1],
        pooled[2] if champion else None,
        policy.model_copy(update=chosen),
        policy_from=f"{said} and command line" if chosen else said,
        accept=accept,
        chances={pattern: _share("--chance", text) for pattern, text in _choices(chances).items()},
        skipped=skips,
    )
    if json_file is not None:
        write_record(json_file, answer)
    if markdown_file is not None:
        write_text(markdown_file, show.comment(answer))
    print(show.page(answer))
    raise SystemExit(_VERDICT_CODES[answer.decision])


@main.command()
@click.option("--port", default=5000, show_default=True, help="Port on this machine.")
def ui(port: int) -> None:
    """Open the MLflow UI on what was run (a server on this machine only; Ctrl-C ends it).

    \b
    Example:
      metagdpo ui --port 5001
    """
    import os
    import sys

    from metagdpo.lineage.store import shown, tracking_uri

    if tracking_uri().startswith(("http://", "https://")):
        print(f"MLflow's server is at {shown(tracking_uri())} (MLFLOW_TRACKING_URI): open that address.")
        return
    print(f"MLflow UI on http://127.0.0.1:{port} - runs, datasets and registered models of {shown(tracking_uri())}")
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    words = [
        "server",
        "--backend-store-uri",
        tracking_uri(),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", *words], environment)  # noqa: S606  (no shell)


_VERDICT_CODES = {"PROMOTE": 0, "BLOCK": Blocked.exit_code, "INCONCLUSIVE": Inconclusive.exit_code}


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot replace {path}: {error.strerror or error}. Name another file.") from error


def _choices(texts: tuple[str, ...]) -> dict[str, str]:
    """`SUITE=NAME` by pattern of suites; `NAME` alone is for every suite, after the others."""
    pairs = [text.rpartition("=")[::2] if "=" in text else ("*", text) for text in texts]
    return dict(sorted(pairs, key=lambda pair: pair[0] == "*"))


def _named(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    wrong = [text for text in texts if not all(text.partition("=")[::2])]
    if wrong:
        raise ConfigError(f"{option} {wrong[0]}: write NAME=PATTERN, such as 'mmlu=mmlu_*'.")
    return dict(text.split("=", 1) for text in texts)


def _share(option: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise ConfigError(f"{option} {text}: write a share in 0..1, such as 0.25.")
    return share
