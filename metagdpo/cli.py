"""The command line: parses, calls one library function, prints. Heavy packages load inside the commands."""

from pathlib import Path
from typing import Any, NoReturn

import click

from metagdpo.errors import MetagdpoError


class Group(click.Group):
    """A group that prints expected errors without a traceback and exits with their code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except MetagdpoError as error:
            _leave(f"{type(error).__name__}: {error}", error.exit_code)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="metagdpo")
def main() -> None:
    """Continual fine-tuning with MetaGDPO, a forgetting gate and verified releases.

    \b
    The main job:      dvc repro
    What happened:     metagdpo explain
    What was decided:  metagdpo gate check
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
        _leave("\n".join(found), 2)
    print("params.yaml, registry/assets.yaml, registry/suites, registry/policy.yaml and the ledger are valid.")


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


@main.group()
def gate() -> None:
    """Look at the forgetting gate's verdict."""


@gate.command(name="check")
def gate_check() -> None:
    """Print the verdict and exit 0 for PROMOTE, 10 for BLOCK, 11 for INCONCLUSIVE; releases nothing.

    For pull requests that must not promote:

    \b
      dvc repro gate && metagdpo gate check
    """
    from metagdpo.errors import Blocked, Inconclusive
    from metagdpo.records.verdict import Verdict
    from metagdpo.schema import read_record

    verdict = read_record(Path("reports/verdict.json"), Verdict)
    print("\n".join([verdict.decision, *(f"  {reason}" for reason in verdict.reasons), "  see reports/report.html"]))
    codes = {"PROMOTE": 0, "BLOCK": Blocked.exit_code, "INCONCLUSIVE": Inconclusive.exit_code}
    raise SystemExit(codes[verdict.decision])


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


def _leave(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    raise SystemExit(code)
