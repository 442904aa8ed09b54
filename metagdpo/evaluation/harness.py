"""Scores of one model on the suites, by lm-eval's own tasks and metrics, with each item computed once.

lm-eval builds the requests, renders the chat template and scores choices; the model behind it (`_language_model`)
computes a question once for all its options and lets finished answers leave the batch. Written answers are scored here
by the answer contract, from the raw text that is kept. Nothing is read from a network or from lm-eval's request cache,
whose keys do not name the model. Every finished batch is kept in the work folder (`rounds`), so that a rerun, or a
second candidate of the same base, pays only for what is new. A batch is one run of lm-eval, which costs 6 ms.

Left out: several GPUs.
"""

import functools
import importlib.metadata
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pydantic

from metagdpo.answers import score_answer, verify
from metagdpo.errors import DataError, ModelError
from metagdpo.evaluation.continuations import continuation_log_probs
from metagdpo.evaluation.items import Item
from metagdpo.evaluation.rounds import Asked, Stop, score_in_rounds
from metagdpo.evaluation.suite import Suite, task_digest
from metagdpo.evaluation.written import ending_tokens, written_answers
from metagdpo.records.item_score import EvaluationManifest, ItemScore, SuiteRun, documents_digest
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.schema import Frozen, digest_json, read_jsonl, write_jsonl, write_record

PACK_TOKENS = 16
"""Tokens of a pack of choices for each answer of a batch: at 32 answers 512, the fastest on a CPU."""
SCORING = 2  # raise it when this package could give other scores: older results are then neither reused nor compared


class NoiseParams(Frozen):
    """The second measurement of the base: its differences from the first are what numerics alone can change."""

    batch_size: int = pydantic.Field(gt=0)
    """Another one than `evaluate.batch_size`; a smaller one regroups every suite."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Another dtype of the weights; null for that of `base`."""


class EvaluateParams(Frozen):
    """Section `evaluate`."""

    batch_size: int = pydantic.Field(gt=0)
    """Answers written together; choices are read 16 times as many tokens at a time. Scores of base and candidate are
    compared only at one batch size."""
    max_items: int | None = pydantic.Field(default=None, gt=0)
    """At most so many items of each suite, the first ones; null for all. For smoke runs: fewer items decide less."""
    items_per_look: int = pydantic.Field(default=32, gt=0)
    """Items scored together: what a kill loses at most, and how often a sequential evaluation may stop. Scores of base
    and candidate are compared only at one value, sequential or not."""
    noise: NoiseParams | None = None
    """How the noise floor is measured; null: it is not."""


def harness_version() -> str:
    """Name and version of what computes scores, as it stands in the manifest."""
    return f"lm-eval {importlib.metadata.version('lm_eval')}, metagdpo scoring {SCORING}"


def evaluate(
    load: Callable[[], tuple[Any, Any]],
    identity: ModelIdentity,
    suites: Sequence[Suite],
    items: Path,
    *,
    dtype: str,
    batch_size: int,
    items_per_look: int,
    max_items: int | None,
    work: Path,
    stop: Stop | None = None,
) -> tuple[list[ItemScore], EvaluationManifest]:
    """Score a model on every suite.

    Args:
        load: Gives the transformers model, in evaluation mode, and its tokenizer; called only if there is work.
        identity: Which model that is.
        suites: The suites, in the order of the result.
        items: Folder with <suite>.jsonl for each.
        dtype: Of the model's weights.
        batch_size: Answers written together.
        items_per_look: Items scored together, with or without a stopping rule; see `rounds`.
        max_items: At most so many items of each suite; None for all.
        work: Folder in which finished batches are kept.
        stop: After every round, from the scores so far to the suites that need no more; None to score all items.

    Returns:
        Scores in the order of suites and items, and how they were measured.

    Raises:
        DataError: A suite has no items, or an item does not fit into the model.
        ModelError: A chat suite meets a model without a chat template.
    """

    @functools.cache
    def language_model() -> Any:
        return _language_model(*load(), batch_size=batch_size)

    asked, runs = [], []
    for suite in suites:
        chosen = _read_items(suite, items / f"{suite.name}.jsonl", max_items)
        run = _run(suite, chosen)
        # Where a model lies and what its licence is do not change what it answers.
        model = identity.model_dump(mode="json", exclude={"reference", "licence"})
        settings = [harness_version(), dtype, batch_size, items_per_look]
        asked.append(Asked(suite, chosen, digest_json([model, run.model_dump(mode="json"), *settings])))
        runs.append(run)
    scores = score_in_rounds(
        asked,
        lambda suite, batch: list(_scores(suite, batch, language_model())),
        items_per_look=items_per_look,
        work=work,
        stop=stop,
    )
    manifest = EvaluationManifest(
        model=identity,
        suites=tuple(run.model_copy(update={"n_scored": len(scores[run.suite])}) for run in runs),
        harness=harness_version(),
        dtype=dtype,
        batch_size=batch_size,
        items_per_look=items_per_look,
    )
    return [score for run in runs for score in scores[run.suite]], manifest


def evaluate_to(
    out: Path,
    load: Callable[[], tuple[Any, Any]],
    identity: ModelIdentity,
    suites: Sequence[Suite],
    settings: EvaluateParams,
    *,
    dtype: str,
    stop: Stop | None = None,
) -> str:
    """Score a model of this project as `evaluate` does, write scores.jsonl and manifest.json, and say what was found.

    Raises:
        DataError: A suite has no items, or an item does not fit into the model.
        ModelError: A chat suite meets a model without a chat template.
        StoreError: The scores cannot be written.
    """
    scores, manifest = evaluate(
        load,
        identity,
        suites,
        Path("data/suites"),
        dtype=dtype,
        batch_size=settings.batch_size,
        items_per_look=settings.items_per_look,
        max_items=settings.max_items,
        work=Path(".work/evaluate"),
        stop=stop,
    )
    write_jsonl(out / "scores.jsonl", scores)
    write_record(out / "manifest.json", manifest)
    listed = ", ".join(f"{suite} {100 * value:.1f} %" for suite, value in accuracy(scores).items())
    planned = sum(run.n_items for run in manifest.suites)
    spared = f" of {planned}, the verdict is certain" if len(scores) < planned else ""
    return f"{len(scores)} scores{spared} to {out}/scores.jsonl ({listed})"


def accuracy(scores: Sequence[ItemScore]) -> dict[str, float]:
    """Mean score of each suite."""
    by_suite: dict[str, list[float]] = {}
    for score in scores:
        by_suite.setdefault(score.suite, []).append(score.score)
    return {suite: sum(values) / len(values) for suite, values in by_suite.items()}


def _read_items(suite: Suite, path: Path, max_items: int | None) -> list[Item]:
    items = list(read_jsonl(path, Item))[:max_items]
    if not items:
        raise DataError(f"suite {suite.name} has no items: {path} is empty. Run `dvc repro -f suites`.")
    return items


def _run(suite: Suite, items: Sequence[Item]) -> SuiteRun:
    """A full run of a suite."""
    return SuiteRun(
        suite=suite.name,
        task=task_digest(suite),
        generation=suite.generation,
        documents=documents_digest((item.id, item.doc, item.target, item.cluster) for item in items),
        n_items=len(items),
        n_scored=len(items),
    )


def _scores(suite: Suite, items: Sequence[Item], lm: Any) -> Iterator[ItemScore]:
    """Score a batch of one suite."""
    if suite.chat and not lm.tokenizer.chat_template:
        message = f"suite {suite.name} asks through the chat template, and {lm.tokenizer.name_or_path} has none. "
        raise ModelError(message + "Use an instruction-tuned model, or set `chat: false` in the suite.")
    for item, sample in zip(items, _samples(suite, items, lm), strict=True):
        yield _item_score(suite, item, sample)


def _samples(suite: Suite, items: Sequence[Item], lm: Any) -> list[dict[str, Any]]:
    """What lm-eval's own run says about each item, with any model class of lm-eval."""
    _offline()
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate as run_tasks

    results = run_tasks(
        lm=lm,
        task_dict={"tasks": {suite.name: ConfigurableTask(config=_task(suite, items))}, "groups": {}},
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=suite.chat,
    )
    return sorted(results["samples"][suite.name], key=lambda sample: sample["doc_id"])


def _task(suite: Suite, items: Sequence[Item]) -> dict[str, Any]:
    """lm-eval's configuration of a suite; the documents are handed over in memory, without a data set cache."""
    from datasets import Dataset

    documents = [
        {"id": item.id, "prompt": item.prompt, "options": list(item.options), "gold": item.gold or 0} for item in items
    ]
    common = {
        "task": suite.name,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(documents)},
        "test_split": "test",
        "doc_to_text": "prompt",
        "num_fewshot": 0,
    }
    if suite.form == "choice":
        metric = {"metric": suite.metric, "aggregation": "mean", "higher_is_better": True}
        choice = {"output_type": "multiple_choice", "doc_to_choice": "options", "doc_to_target": "gold"}
        return {**common, **choice, "metric_list": [metric]}
    settings = {"until": list(suite.stop), "max_gen_toks": suite.max_new_tokens, "do_sample": False}
    metric = {"metric": "bypass", "aggregation": "bypass", "higher_is_better": True}
    return {
        **common,
        "output_type": "generate_until",
        "doc_to_target": "id",
        "generation_kwargs": settings,
        "metric_list": [metric],
    }


def _item_score(suite: Suite, item: Item, sample: dict[str, Any]) -> ItemScore:
    if suite.form == "choice":
        gains = [log_prob for log_prob, _ in sample["filtered_resps"]]
        if not all(math.isfinite(gain) for gain in gains):
            message = f"suite {suite.name}, item {item.id}: the model gives the options the log-likelihoods {gains}. "
            raise ModelError(message + "Such a model answers nothing; look at its training.")
        if suite.metric == "acc_norm":
            gains = [gain / len(option) for gain, option in zip(gains, item.options, strict=True)]
        score, answer = float(sample[suite.metric]), item.options[gains.index(max(gains))]
    else:
        answer = sample["filtered_resps"][0]
        score = _written_score(suite, item, answer)
    return ItemScore(
        suite=suite.name,
        item_id=item.id,
        doc=item.doc,
        prompt=digest_json([list(arguments) for arguments in sample["arguments"]]),
        target=item.target,
        score=score,
        answer=answer,
        cluster=item.cluster,
    )


def _written_score(suite: Suite, item: Item, text: str) -> float:
    """The verifier's score of an answer; with `exact` only the full score counts, so that there are hits and misses."""
    if item.question is None:
        raise DataError(
            f"suite {suite.name}, item {item.id}: a written answer needs `question`. Rerun `dvc repro suites`."
        )
    if suite.answer == "boxed":
        score = verify(item.question, text)
    else:
        first = text.strip().partition("\n")[0].strip()
        score = score_answer(item.question, first) if first else 0.0
    return score if suite.metric == "graded" else float(score >= 1.0)


def _offline() -> None:
    """Before lm-eval and datasets are imported: they read these switches once."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    # It warns about every choice that we make on purpose (models already loaded, documents in memory).
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval.api import task
    from tqdm import tqdm

    # It would show a bar of its own for every batch whose prompts it builds.
    task.tqdm = functools.partial(tqdm, disable=True)


def _language_model(model: Any, tokenizer: Any, *, batch_size: int) -> Any:
    """lm-eval's view of a loaded model; a class inside a function, because its parent is imported here only."""
    _offline()
    from lm_eval.models.huggingface import HFLM

    @functools.cache
    def ends(until: tuple[str, ...]) -> frozenset[int]:
        return ending_tokens(tokenizer, until)

    class SharedPrefixLM(HFLM):  # type: ignore[misc]  # lm_eval is untyped
        """HFLM with faster, equal ways to score continuations and to write answers; the bars are those of `rounds`."""

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:  # noqa: ARG002, FBT001, FBT002  (parent's)
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> Any:
            pairs = [(context, continuation) for _, context, continuation in requests]
            pack_tokens = PACK_TOKENS * int(self.batch_size)
            found = continuation_log_probs(self.model, pairs, max_length=self.max_length, pack_tokens=pack_tokens)
            scored = dict(found)
            return [scored[position] for position in range(len(requests))]

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:  # noqa: ARG002, FBT001, FBT002  (parent's)
            settings = requests[0].args[1]
            texts = dict(
                written_answers(
                    self.model,
                    self.tokenizer,
                    [self.tok_encode(request.args[0]) for request in requests],
                    until=settings["until"],
                    ends=ends(tuple(settings["until"])),
                    max_new_tokens=settings["max_gen_toks"],
                    batch_size=self.batch_size,
                    max_length=self.max_length,
                )
            )
            return [texts[position] for position in range(len(requests))]

    return SharedPrefixLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device=str(model.device))
