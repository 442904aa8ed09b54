"""A whole project in a temporary git repository: real `dvc repro`, a two-layer random model, recorded teachers.

The suites' right answers are what the tiny base itself prefers, by a clear distance: the base is then right on nearly
every item, so that a candidate that moved little keeps its skill and one that moved far loses it. Nothing else is made
easier than in the real job.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from closure import ROOT
from tiny import make_tiny_model

N_QUESTIONS = 24
N_ITEMS = 200
RECORDED = "recorded model of the tests"
POLICY = """alpha: 0.05
power: 0.8
default_margin: {margin}
margins: {{}}
min_items: 100
max_kl_per_token: null
sequential: {sequential}
"""
SUITE = """name: {name}
skill: {skill}
tier: required
metric: acc
items: {{kind: files, path: items/{name}.jsonl}}
n_items: {n}
chance: 0.5
licence: Apache-2.0
source: made by the tests; right answers are the tiny base's own
"""
PARAMS = """base: {model: tiny, dtype: float32, seed: 5, experiment: toy}
ingest:
  sources:
    - {kind: files, name: sums, path: questions.jsonl, domain: mathematical, licence: Apache-2.0, verifier: numeric}
annotate:
  annotator:
    kind: chat
    model: {kind: recorded, journal: recorded/annotator.jsonl, identity: recorded model of the tests}
    max_new_tokens: 64
merge_knowledge: {method: {kind: offline, stem: true}}
probe:
  models:
    - {name: base, model: {kind: local, model: base, batch_size: 16}}
  max_new_tokens: 4
select_metakl:
  complex_units: 5
  ratio_weak: 1.0
  ratio_mastered: 0.5
  reminders_per_unit: 2
  max_questions: null
  proficiency: average
describe_metakl: {embedding: null}
reconstruct: {model: null}
respond:
  teachers:
    - name: recorded
      model: {kind: recorded, journal: recorded/teacher.jsonl, identity: recorded model of the tests}
      n: 2
      temperature: 1.0
      max_new_tokens: 16
    - name: base
      model: {kind: local, model: base, batch_size: 4}
      n: 2
      temperature: 1.0
      max_new_tokens: 24
  reference_solution: true
reward: {correct: 1.0, format: 0.5}
preserve: {context_free: {n_train: 8, n_held_out: 4, max_new_tokens: 12, prefix: bos}}
reference: {max_length: 200, token_budget: 512}
train:
  method: full
  objective: {kind: gdpo}
  anchors: [{kind: context_free, weight: 1.0, per_step: 2}]
  learning_rate: 1e-7
  epochs: 4
  groups_per_step: 2
  checkpoint_every: 2
interpolate: {alphas: [1.0], n_items: 4, retention: 0.5}
evaluate: {batch_size: 32, noise: {batch_size: 8}}
"""


class Fake:
    """A teacher that answers by rule; used once, to fill a journal."""

    identity = RECORDED

    def __init__(self, reply: Callable) -> None:
        self._reply = reply

    def complete(self, requests, _sampling):
        """Answer every request."""
        from metagdpo.models.port import Completion

        for position, request in enumerate(requests):
            yield position, Completion(text=self._reply(request), finish_reason="stop")


def make_project(root: Path) -> Path:
    """Write, record and commit the project; nothing has run yet."""
    for name in ("metagdpo", "pipelines"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", "registry/assets.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    make_tiny_model(root / "tiny")
    (root / "params.yaml").write_text(PARAMS)
    sums = [{"question": f"{a} + {b} =", "answer": str(a + b)} for a in range(4) for b in range(6)]
    (root / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums[:N_QUESTIONS]))
    set_policy(root, margin=0.05)
    write_suites(root)
    record(root)
    (root / ".gitignore").write_text((root / ".gitignore").read_text() + "/tiny/\n")
    run(root, "git", "init", "-q")
    run(root, "git", "add", "-A")
    run(root, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "toy")
    return root


def set_policy(root: Path, *, margin: float, sequential: str = "null") -> None:
    """Write the gate's policy."""
    (root / "registry/policy.yaml").write_text(POLICY.format(margin=margin, sequential=sequential))


def set_params(root: Path, old: str, new: str) -> None:
    """Edit params.yaml as a person would."""
    text = (root / "params.yaml").read_text()
    assert old in text
    (root / "params.yaml").write_text(text.replace(old, new))


def write_suites(root: Path) -> None:
    """Two required suites whose right answers the tiny base prefers by the largest distances found."""
    import torch

    from metagdpo.models.load import load_model, load_tokenizer

    model, tokenizer = load_model(root / "tiny", "float32"), load_tokenizer(root / "tiny")
    (root / "items").mkdir()
    (root / "registry/suites").mkdir(parents=True)
    for name, skill, words in (("letters", "letters", "abcdefgh"), ("digits", "digits", "12345678")):
        rows = []
        prompts = [f"{name} {x}{y}{z} then" for x in words for y in words for z in words]
        options = [f" {words[i % 8]}{words[(i // 8) % 8]}" for i in range(len(prompts))]
        others = [f" {words[(i + 3) % 8]}{words[(i // 8 + 5) % 8]}" for i in range(len(prompts))]
        for prompt, one, two in zip(prompts, options, others, strict=True):
            scores = []
            for option in (one, two):
                context, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + option)["input_ids"]
                with torch.no_grad():
                    log_probs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
                positions = range(len(context) - 1, len(whole) - 1)
                scores.append(sum(float(log_probs[p, whole[p + 1]]) for p in positions))
            rows.append((abs(scores[0] - scores[1]), prompt, [one, two], int(scores[1] > scores[0])))
        clear = sorted(rows, reverse=True)[:N_ITEMS]
        lines = [json.dumps({"prompt": p, "options": o, "gold": g}) + "\n" for _, p, o, g in clear]
        (root / f"items/{name}.jsonl").write_text("".join(lines))
        (root / f"registry/suites/{name}.yaml").write_text(SUITE.format(name=name, skill=skill, n=N_ITEMS))


def record(root: Path) -> None:
    """Fill the journals of the recorded annotator and teacher by asking stand-ins the pipeline's own questions."""
    from metagdpo.evaluation.items import build_items
    from metagdpo.evaluation.suite import load_suites
    from metagdpo.knowledge.annotate import AnnotateParams, annotate_with_model
    from metagdpo.models.recorded import Recorded
    from metagdpo.params import BaseParams, section
    from metagdpo.responses.sample import RespondParams, sample_groups
    from metagdpo.sources.pool import IngestParams, build_pool
    from pipelines.tag_suites import questions_of

    here = Path.cwd()
    os.chdir(root)
    try:
        path = Path("params.yaml")
        seed = section("base", BaseParams, path).seed
        pool, _ = build_pool(section("ingest", IngestParams, path))
        skills = json.dumps({"integer_addition": "two numbers are added"})
        annotator = section("annotate", AnnotateParams, path).annotator
        sampling = annotator.sampling
        fake = Recorded(Path("recorded/annotator.jsonl"), Fake(lambda _: skills))
        suites = load_suites(Path("registry/suites"))
        items = [question for suite in suites for question in questions_of(suite, build_items(suite, Path("assets")))]
        list(annotate_with_model([*pool, *items], fake, sampling, seed))
        settings = section("respond", RespondParams, path)
        teachers = {
            "recorded": Recorded(Path("recorded/teacher.jsonl"), Fake(_answer)),
            "base": Fake(lambda _: "unused"),
        }
        list(sample_groups(pool, teachers, settings, seed, {}))
    finally:
        os.chdir(here)


def _answer(request) -> str:
    """Right in a box, or only wrong, as the seed has it."""
    first, second = (int(word) for word in request.messages[0].content.split() if word.isdigit())
    return f"\\boxed{{{first + second}}}" if request.seed % 2 else "about 40"


def environment() -> dict[str, str]:
    """What a person's shell would hold."""
    bin_directory = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": bin_directory + os.pathsep + os.environ["PATH"],
        "PYTHONPATH": "",
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def run(root: Path, *words: str, code: int | None = 0) -> str:
    """Run a command in the project and return everything it printed; `code` None accepts any exit code."""
    done = subprocess.run(words, cwd=root, env=environment(), capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    assert code is None or done.returncode == code, f"{words} left with {done.returncode}:\n{text[-6000:]}"
    return text


def executed(output: str) -> list[str]:
    """Stages that DVC ran, in order."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def kill_when(root: Path, words: list[str], ready: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Start a command, kill -9 it and its children as soon as `ready`, and make sure that it had not finished."""
    process = subprocess.Popen(
        words, cwd=root, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, f"{words} ended with {process.returncode} before it could be killed"
        assert time.monotonic() < deadline, f"{words} was not ready to be killed in {seconds} s"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
