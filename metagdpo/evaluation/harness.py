"""Scores of one model on the suites, by lm-eval's own tasks and metrics, with each item computed once.

lm-eval builds the requests, renders the chat template and scores choices; the model behind it (`_language_model`)
computes a question once for all its options and lets finished answers leave the batch. Written answers are scored here
by the answer contract, from the raw text that is kept. Nothing is read from a network or from lm-eval's request cache,
whose keys do not name the model. A finished suite is kept in the work folder under everything that decides its scores,
so that a rerun, or a second candidate of the same base, pays only for what is new.

Left out: several GPUs, and resuming inside a suite.
"""

import importlib.metadata
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pydantic

from metagdpo.answers import score_answer, verify
from metagdpo.errors import DataError, ModelError
from metagdpo.evaluation.continuations import continuation_log_probs
from metagdpo.evaluation.items import Item
from metagdpo.evaluation.suite import Suite, task_digest
from metagdpo.models.chat import stop_ids
from metagdpo.models.local import decode
from metagdpo.models.port import Sampling
from metagdpo.progress import bar
from metagdpo.records.item_score import EvaluationManifest, ItemScore, SuiteRun
from metagdpo.records.model_identity import ModelIdentity
from metagdpo.schema import Frozen, digest_json, digest_record, read_jsonl, write_record

SCORING = 1  # raise it when this package could give other scores: older results are then neither reused nor compared


class EvaluateParams(Frozen):
    """Section `evaluate`."""

    batch_size: int = pydantic.Field(gt=0)
    """Answers written together. Scores of base and candidate are compared only at one batch size."""
    max_items: int | None = pydantic.Field(default=None, gt=0)
    """At most so many items of each suite, the first ones; null for all. For smoke runs: fewer items decide less."""


class SuiteResult(Frozen):
    """A finished suite in the work folder."""

    key: str
    """Digest of everything that decides the scores."""
    seconds: float
    scores: tuple[ItemScore, ...]


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
    max_items: int | None,
    work: Path,
) -> tuple[list[ItemScore], EvaluationManifest]:
    """Score a model on every suite.

    Args:
        load: Gives the transformers model, in evaluation mode, and its tokenizer; called only if there is work.
        identity: Which model that is.
        suites: The suites, in the order of the result.
        items: Folder with <suite>.jsonl for each.
        dtype: Of the model's weights.
        batch_size: Answers written together.
        max_items: At most so many items of each suite; None for all.
        work: Folder in which finished suites are kept.

    Returns:
        Scores in the order of suites and items, and how they were measured.

    Raises:
        DataError: A suite has no items, or an item does not fit into the model.
        ModelError: A chat suite meets a model without a chat template.
    """
    models: list[Any] = []

    def language_model() -> Any:
        if not models:
            models.append(_language_model(*load(), batch_size=batch_size))
        return models[0]

    scores: list[ItemScore] = []
    runs = []
    for suite in suites:
        asked = _read_items(suite, items / f"{suite.name}.jsonl", max_items)
        documents = digest_json([digest_record(item) for item in asked])
        run = SuiteRun(suite=suite.name, task=task_digest(suite), documents=documents, n_items=len(asked))
        result = _kept_or_computed(
            suite, asked, run, identity, language_model, dtype=dtype, batch_size=batch_size, work=work
        )
        scores += result.scores
        runs.append(run)
    manifest = EvaluationManifest(
        model=identity,
        suites=tuple(runs),
        harness=harness_version(),
        dtype=dtype,
        batch_size=batch_size,
    )
    return scores, manifest


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


def _kept_or_computed(
    suite: Suite,
    items: Sequence[Item],
    run: SuiteRun,
    identity: ModelIdentity,
    language_model: Callable[[], Any],
    *,
    dtype: str,
    batch_size: int,
    work: Path,
) -> SuiteResult:
    # Where a model lies and what its licence is do not change what it answers.
    model = identity.model_dump(mode="json", exclude={"reference", "licence"})
    key = digest_json([model, run.model_dump(mode="json"), harness_version(), dtype, batch_size])
    path = work / f"{suite.name}-{key.removeprefix('sha256:')[:16]}.json"
    if path.exists():
        try:
            kept = SuiteResult.model_validate_json(path.read_bytes())
        except pydantic.ValidationError:
            kept = None
        if kept is not None and kept.key == key:
            print(f"{suite.name}: {len(items)} scores reused from {path}", flush=True)
            return kept
    lm = language_model()
    start = time.perf_counter()
    scores = tuple(_scores(suite, items, lm))
    result = SuiteResult(key=key, seconds=time.perf_counter() - start, scores=scores)
    print(f"{suite.name}: {len(items)} items in {result.seconds:.0f} s", flush=True)
    write_record(path, result)
    return result


def _scores(suite: Suite, items: Sequence[Item], lm: Any) -> Iterator[ItemScore]:
    """Run one suite through lm-eval and pair its samples with our items."""
    _offline()
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate as run_tasks

    if suite.chat and not lm.tokenizer.chat_template:
        message = f"suite {suite.name} asks through the chat template, and {lm.tokenizer.name_or_path} has none. "
        raise ModelError(message + "Use an instruction-tuned model, or set `chat: false` in the suite.")
    lm.what = suite.name
    task = ConfigurableTask(config=_task(suite, items))
    results = run_tasks(
        lm=lm,
        task_dict={"tasks": {suite.name: task}, "groups": {}},
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=suite.chat,
    )
    samples = {sample["doc_id"]: sample for sample in results["samples"][suite.name]}
    for position, item in enumerate(items):
        yield _item_score(suite, item, samples[position])


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
        if suite.metric == "acc_norm":
            gains = [gain / len(option) for gain, option in zip(gains, item.options, strict=True)]
        score, answer = float(sample[suite.metric]), item.options[gains.index(max(gains))]
        target: Any = [list(item.options), item.gold]
    else:
        answer = sample["filtered_resps"][0]
        score, target = _written_score(suite, item, answer), item.question and item.question.model_dump(mode="json")
    return ItemScore(
        suite=suite.name,
        item_id=item.id,
        doc=digest_json([item.prompt, list(item.options)]),
        prompt=digest_json([list(arguments) for arguments in sample["arguments"]]),
        target=digest_json(target),
        score=score,
        answer=answer,
    )


def _written_score(suite: Suite, item: Item, text: str) -> float:
    """1 for an answer that gets the verifier's full score, otherwise 0: paired tests need hits and misses."""
    if item.question is None:
        raise DataError(
            f"suite {suite.name}, item {item.id}: a written answer needs `question`. Rerun `dvc repro suites`."
        )
    if suite.answer == "boxed":
        return float(verify(item.question, text) >= 1.0)
    first = text.strip().partition("\n")[0].strip()
    return float(first != "" and score_answer(item.question, first) >= 1.0)


def _offline() -> None:
    """Before lm-eval and datasets are imported: they read these switches once."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    # It warns about every choice that we make on purpose (models already loaded, documents in memory).
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def _language_model(model: Any, tokenizer: Any, *, batch_size: int) -> Any:
    """lm-eval's view of a loaded model; a class inside a function, because its parent is imported here only."""
    _offline()
    from lm_eval.models.huggingface import HFLM

    class SharedPrefixLM(HFLM):  # type: ignore[misc]  # lm_eval is untyped
        """HFLM with faster, equal ways to score continuations and to write answers."""

        what = "evaluate"

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:  # noqa: ARG002, FBT001, FBT002  (parent's)
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> Any:
            pairs = [(context, continuation) for _, context, continuation in requests]
            found = continuation_log_probs(self.model, pairs, max_length=self.max_length)
            scored = dict(bar(found, total=len(requests), what=self.what, unit="options"))
            return [scored[position] for position in range(len(requests))]

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:  # noqa: ARG002, FBT001, FBT002  (parent's)
            settings = requests[0].args[1]
            found = _written(
                self.model,
                self.tokenizer,
                [self.tok_encode(request.args[0]) for request in requests],
                until=settings["until"],
                max_new_tokens=settings["max_gen_toks"],
                batch_size=self.batch_size,
                max_length=self.max_length,
            )
            texts = dict(bar(found, total=len(requests), what=self.what, unit="answers"))
            return [texts[position] for position in range(len(requests))]

    return SharedPrefixLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device=str(model.device))


def _written(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    until: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
    max_length: int,
) -> Iterator[tuple[int, str]]:
    """Yield (position, greedy answer up to the first stop text), prompts of similar length together, longest first."""
    longest = max(len(prompt) for prompt in prompts)
    if longest + max_new_tokens > max_length:
        message = (
            f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit into the model's {max_length}. "
        )
        raise DataError(message + "Shorten the suite's prompt or its max_new_tokens.")
    stops = stop_ids(tokenizer, model)
    # A token that contains the stop text ends the answer; what it says before that text is kept below.
    ends = stops | {i for i in range(len(tokenizer)) if until and any(text in tokenizer.decode([i]) for text in until)}
    sampling = Sampling(temperature=0.0, max_new_tokens=max_new_tokens)
    prefix = _common_prefix(prompts)
    order = sorted(range(len(prompts)), key=lambda position: -len(prompts[position]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        rests = [prompts[position][len(prefix) :] for position in batch]
        for row, tokens, _ in decode(model, rests, [0] * len(batch), sampling, ends, prefix=prefix):
            ended = bool(tokens) and tokens[-1] in stops
            text = tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True)
            for stop in until:
                text = text.partition(stop)[0]
            yield batch[row], text


def _common_prefix(prompts: Sequence[list[int]]) -> list[int]:
    """Tokens with which all prompts begin (worked examples, chat opening), at most all but the last of the shortest."""
    first, last = min(prompts), max(prompts)  # in the order of lists, these two differ first
    limit = min(len(prompt) for prompt in prompts) - 1
    return first[: next((t for t in range(limit) if first[t] != last[t]), limit)]
