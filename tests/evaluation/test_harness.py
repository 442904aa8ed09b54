import random

import pytest

from metagdpo.answers import boxed
from metagdpo.errors import DataError, ModelError
from metagdpo.evaluation import harness
from metagdpo.evaluation.harness import accuracy, evaluate
from metagdpo.evaluation.items import Item
from metagdpo.evaluation.suite import Suite
from metagdpo.models.load import identify, load_model, load_tokenizer
from metagdpo.params import validate
from metagdpo.records.question import Question
from metagdpo.schema import write_jsonl

WORDS = ["the", "answer", "is", "in", "a", "box", "and", "user", "of", "system", "four", "1", "2", "3", "yes", "no"]


def suite(name, metric="acc_norm", **changes):
    items = {"kind": "files", "path": "unused", "answer": changes.pop("answer", "first_line")}
    known = {
        "name": name, "skill": "skill", "tier": "required", "metric": metric, "items": items, "n_items": 100,
        "max_new_tokens": 12 if metric in {"exact", "graded"} else 0, "chance": 0.5, "licence": "CC0", "source": "s",
    }  # fmt: skip
    return validate({**known, **changes}, Suite, where=f"{name}.yaml")


def phrase(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def choices(n, seed=0):
    rng = random.Random(seed)
    for number in range(n):
        options = tuple(sorted({phrase(rng, rng.randint(1, 5)) for _ in range(3)}))
        yield Item(
            id=str(number), prompt=phrase(rng, rng.randint(1, 9)), options=options, gold=rng.randrange(len(options))
        )


def questions(n, verifier="exact"):
    rng = random.Random(1)
    for number in range(n):
        prompt = phrase(rng, rng.randint(3, 9))
        question = Question(
            id=str(number),
            prompt=prompt,
            domain="d",
            reference_answer="4",
            verifier=verifier,
            source="s",
            licence="CC0",
        )
        yield Item(id=str(number), prompt=prompt, question=question)


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    return load_model(tiny_model_dir, "float32"), load_tokenizer(tiny_model_dir)


@pytest.fixture
def run(tmp_path, tiny_model_dir, loaded):
    """Evaluate suites given with their items; `run.loads` counts how often the model was asked for."""

    def run(suites_and_items, **changes):
        for chosen, items in suites_and_items:
            write_jsonl(tmp_path / "items" / f"{chosen.name}.jsonl", items)

        def load():
            run.loads += 1
            return loaded

        known = {
            "dtype": "float32",
            "batch_size": 4,
            "items_per_look": 64,
            "max_items": None,
            "work": tmp_path / "work",
        }
        settings = {**known, **changes}
        identity = settings.pop("identity", identify("tiny", tiny_model_dir))
        suites = [chosen for chosen, _ in suites_and_items]
        return evaluate(load, identity, suites, tmp_path / "items", **settings)

    run.loads = 0
    return run


def plain_samples(loaded, chosen, items):
    """What lm-eval's own model class makes of the same task."""
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=loaded[0], tokenizer=loaded[1], batch_size=4, device="cpu")
    return harness._samples(chosen, items, lm)


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
def test_choices_are_decided_as_lm_eval_decides_them(run, loaded, metric):
    chosen, items = suite("c", metric), list(choices(40))
    scores, _ = run([(chosen, items)])
    plain = plain_samples(loaded, chosen, items)
    assert [sample[metric] for sample in plain] == [score.score for score in scores]
    assert 0 < accuracy(scores)["c"] < 1
    for item, score in zip(items, scores, strict=True):
        assert score.score == float(score.answer == item.options[item.gold])


def test_answers_are_written_as_lm_eval_writes_them(run, loaded):
    chosen, items = suite("w", "exact"), list(questions(12))
    scores, _ = run([(chosen, items)])
    assert [s["filtered_resps"][0] for s in plain_samples(loaded, chosen, items)] == [s.answer for s in scores]
    assert len({score.answer for score in scores}) > 1


@pytest.mark.parametrize(
    ("answer", "text", "expected"),
    [
        ("first_line", " 4\nand more", 1.0),
        ("first_line", "5\n4", 0.0),
        ("first_line", "", 0.0),
        ("boxed", f"So {boxed('3')}, no: {boxed('4')}", 1.0),
        ("boxed", "4", 0.0),
    ],
)
def test_a_written_answer_is_a_hit_or_a_miss(answer, text, expected):
    (item,) = questions(1, "numeric")
    assert expected == harness._written_score(suite("w", "exact", answer=answer), item, text)


@pytest.mark.parametrize(("metric", "expected"), [("exact", 0.0), ("graded", 0.25)])
@pytest.mark.parametrize(("answer", "text"), [("first_line", "4.1"), ("boxed", boxed("4.1"))])
def test_only_a_graded_suite_keeps_a_part_of_the_score(monkeypatch, metric, expected, answer, text):
    monkeypatch.setattr("metagdpo.answers.score_answer", lambda *_: 0.25)
    monkeypatch.setattr(harness, "score_answer", lambda *_: 0.25)
    (item,) = questions(1)
    assert expected == harness._written_score(suite("w", metric, answer=answer), item, text)


def test_the_manifest_says_what_was_run_and_how(run, tiny_model_dir):
    first, second = (suite("a"), list(choices(5))), (suite("b", "exact", chat=True), list(questions(3)))
    scores, manifest = run([first, second])
    assert [(r.suite, r.n_items, r.n_scored) for r in manifest.suites] == [("a", 5, 5), ("b", 3, 3)]
    assert [r.generation and r.generation.max_new_tokens for r in manifest.suites] == [None, 12]
    assert [score.suite for score in scores] == ["a"] * 5 + ["b"] * 3
    assert identify("tiny", tiny_model_dir) == manifest.model
    assert manifest.harness.startswith("lm-eval 0.4")
    assert ("float32", 4, 64) == (manifest.dtype, manifest.batch_size, manifest.items_per_look)


def test_the_prompt_digest_sees_the_chat_template_and_the_document_digest_does_not(run):
    items = list(questions(2))
    (plain, *_), _ = run([(suite("p", "exact"), items)])
    (chat, *_), _ = run([(suite("p", "exact", chat=True), items)])
    assert plain.prompt != chat.prompt
    assert (plain.doc, plain.target) == (chat.doc, chat.target)


def test_a_finished_suite_is_not_paid_for_twice(run, tmp_path):
    items = list(choices(5))
    first, _ = run([(suite("a"), items)])
    again, _ = run([(suite("a"), items), (suite("b"), items)])
    assert first == again[:5]
    assert run.loads == 2
    assert len(list((tmp_path / "work").iterdir())) == 2
    run([(suite("a"), items), (suite("b"), items)])
    assert run.loads == 2


def test_another_place_or_licence_of_the_model_is_the_same_model(run, tiny_model_dir):
    items = list(choices(3))
    run([(suite("a"), items)])
    run([(suite("a"), items)], identity=identify("elsewhere", tiny_model_dir, licence="MIT"))
    assert run.loads == 1


@pytest.mark.parametrize(
    "change",
    ["weights", "adapter", "metric", "items", "batch_size", "items_per_look", "dtype", "harness", "max_items"],
)
def test_whatever_decides_a_score_is_measured_again(run, tiny_model_dir, change, monkeypatch):
    identity = identify("tiny", tiny_model_dir)
    chosen, items = suite("a"), list(choices(3))
    run([(chosen, items)])
    if change in {"weights", "adapter"}:
        run([(chosen, items)], identity=identity.model_copy(update={change: "sha256:other"}))
    elif change == "metric":
        run([(suite("a", "acc"), items)])
    elif change == "items":
        run([(chosen, list(choices(3, seed=9)))])
    elif change == "harness":
        monkeypatch.setattr(harness, "SCORING", -1)
        run([(chosen, items)])
    else:
        others = {"batch_size": 2, "items_per_look": 2, "dtype": "bfloat16", "max_items": 2}
        run([(chosen, items)], **{change: others[change]})
    assert run.loads == 2


def test_another_number_of_new_tokens_is_measured_again(run):
    items = list(questions(3))
    run([(suite("a", "exact"), items)])
    run([(suite("a", "exact", max_new_tokens=5), items)])
    assert run.loads == 2


def test_scores_do_not_depend_on_what_is_scored_together(run):
    suites = [(suite("c"), list(choices(40))), (suite("w", "exact"), list(questions(12)))]
    at_once, _ = run(suites)
    for items_per_look in (1, 7):
        assert at_once == run(suites, items_per_look=items_per_look)[0]


def test_a_stopped_suite_has_the_scores_of_its_first_items(run):
    suites = [(suite("c"), list(choices(40))), (suite("w", "exact"), list(questions(12)))]
    full, _ = run(suites, items_per_look=5)
    stopped, manifest = run(
        suites, items_per_look=5, stop=lambda scores: frozenset(s for s, found in scores.items() if len(found) >= 10)
    )
    assert [(r.suite, r.n_items, r.n_scored) for r in manifest.suites] == [("c", 40, 10), ("w", 12, 10)]
    assert stopped == [*full[:10], *full[40:50]]
    assert run.loads == 1  # and nothing was scored twice


def test_the_cluster_of_an_item_stands_in_its_score(run):
    items = [item.model_copy(update={"cluster": f"passage {int(item.id) // 2}"}) for item in choices(4)]
    scores, _ = run([(suite("a"), items)])
    assert [f"passage {number}" for number in (0, 0, 1, 1)] == [score.cluster for score in scores]


def test_a_model_without_numbers_is_refused(run, monkeypatch):
    monkeypatch.setattr(
        harness,
        "continuation_log_probs",
        lambda _model, pairs, **_: ((i, (float("nan"), False)) for i in range(len(pairs))),
    )
    with pytest.raises(ModelError, match="suite a, item 0: the model gives the options the log-likelihoods"):
        run([(suite("a"), list(choices(3)))])


def test_one_bar_a_suite_and_none_of_lm_eval(run, capfd):
    run([(suite("a"), list(choices(6)))], items_per_look=2)
    shown = capfd.readouterr().err
    assert {"a"} == {line.partition(":")[0].strip() for line in shown.replace("\r", "\n").splitlines() if "it" in line}


def test_fewer_items_are_the_first_ones(run):
    items = list(choices(6))
    assert [item.id for item in items[:2]] == [score.item_id for score in run([(suite("a"), items)], max_items=2)[0]]


def test_an_empty_item_file_is_refused(run):
    with pytest.raises(DataError, match=r"suite a has no items: .*a\.jsonl is empty"):
        run([(suite("a"), [])])


def test_a_chat_suite_needs_a_chat_template(run, loaded, monkeypatch):
    monkeypatch.setattr(loaded[1], "chat_template", None)
    with pytest.raises(ModelError, match="suite a asks through the chat template"):
        run([(suite("a", "exact", chat=True), list(questions(2)))])


def test_a_prompt_that_does_not_fit_is_refused_and_not_cut(run):
    with pytest.raises(DataError, match="do not fit into the model's 512"):
        run([(suite("a", "exact", max_new_tokens=510), list(questions(2)))])


def test_worked_examples_before_every_question_change_no_answer(run, loaded):
    items = [item.model_copy(update={"prompt": "the answer is in the box " * 5 + item.prompt}) for item in questions(9)]
    chosen = suite("w", "exact")
    scores, _ = run([(chosen, items)])
    assert [s["filtered_resps"][0] for s in plain_samples(loaded, chosen, items)] == [s.answer for s in scores]
