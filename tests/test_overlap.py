"""Overlap of training texts with suites: planted repetitions are found, templates and chance words are not."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metagdpo.evaluation.items import Item, build_items
from metagdpo.evaluation.suite import ProceduralItems, Suite, load_suites
from metagdpo.gate.policy import OverlapSettings
from metagdpo.overlap import (
    Index,
    TrainingText,
    dialogue_texts,
    group_texts,
    item_forms,
    own_grams,
    pool_overlaps,
    pool_texts,
    sample_text,
    training_overlaps,
)
from metagdpo.records.group import ResponseGroup, ScoredResponse
from metagdpo.records.question import Question
from metagdpo.records.sample import ContextFreeSample
from metagdpo.records.self_dialogue import SelfDialogue, SelfTurn
from metagdpo.sources.procedural import ProceduralSource
from metagdpo.words import words

ROOT = Path(__file__).parents[1]
SUM = "State the final answer to the following arithmetic problem: {} ="
STORY = (
    "Anna keeps {} hens behind the old mill and sells their eggs at the market every Friday for two coins each, "
    "but her brother Tom takes {} of them home. How many eggs does she sell in a week if every hen lays one a day?"
)
SETTINGS = OverlapSettings()


def question(prompt, solution=None):
    return Question(
        id="q",
        prompt=prompt,
        domain="d",
        reference_answer="1",
        solution=solution,
        verifier="exact",
        source="s",
        licence="l",
    )


def written(number, prompt, cluster=None):
    return Item(id=f"i{number}", prompt=prompt, question=question(prompt), cluster=cluster)


def choice(number, prompt, right, wrong="something else", cluster=None):
    return Item(id=f"i{number}", prompt=prompt, options=(right, wrong), gold=0, cluster=cluster)


def suite_of(*prompts):
    return [written(number, prompt) for number, prompt in enumerate(prompts)]


def found(items, text, *, is_question=True, settings=SETTINGS):
    """(kind, item, share) of what a text overlaps in one suite, or None."""
    rows = Index({"s": items}, settings).find(TrainingText("t", text, is_question))
    return (rows[0].kind, rows[0].item_id, rows[0].share) if rows else None


# --- one item, planted in every way ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "planted",
    [
        STORY.format(12, 3),
        STORY.format(12, 3).upper(),
        "  " + STORY.format(12, 3).replace(" ", "\n\t"),
        STORY.format(12, 3).replace(",", "").replace("?", ""),
        f"I found this. {STORY.format(12, 3)} Can you help me?",
        STORY.format("ＡＢ", 3).replace("ＡＢ", "１２"),
    ],
)
@pytest.mark.parametrize("is_question", [True, False])
def test_a_repeated_item_is_found_however_it_is_set(planted, is_question):
    assert found(suite_of(STORY.format(12, 3)), planted, is_question=is_question) == ("exact", "i0", 1.0)


@pytest.mark.parametrize(
    ("planted", "broken"),
    [
        (STORY.format(12, 4), 1),
        (STORY.format(99, 3), 1),
        (STORY.format(12, 3).replace("market", "harbour"), 1),
        (STORY.format(12, 3).replace("Tom", "Otto").replace("mill", "barn"), 2),
    ],
)
def test_the_share_of_a_changed_item_is_what_its_changed_words_leave(planted, broken):
    """Share = n-grams without a changed word / n-grams of the item, by counting."""
    item, text = words(STORY.format(12, 3)), words(planted)
    changed = [a != b for a, b in zip(item, text, strict=True)]
    assert sum(changed) == broken
    intact = [not any(changed[at : at + 8]) for at in range(len(item) - 7)]
    assert found(suite_of(STORY.format(12, 3)), planted) == ("ngram", "i0", sum(intact) / len(intact))


def test_a_share_below_the_threshold_is_no_overlap():
    half = " ".join(STORY.format(12, 3).split()[:24])
    share = (len(words(half)) - 7) / (len(words(STORY.format(12, 3))) - 7)
    items = suite_of(STORY.format(12, 3))
    assert found(items, half, settings=OverlapSettings(share=share)) == ("ngram", "i0", share)
    assert found(items, half, settings=OverlapSettings(share=share + 1e-9)) is None


letters = st.lists(st.sampled_from("abcd"), max_size=24)


@given(
    st.lists(letters, min_size=1, max_size=7),
    st.tuples(letters, letters),
    st.integers(0, 7),
    st.integers(3, 5),
    st.sampled_from([0.2, 0.5, 1.0]),
)
def test_the_index_finds_what_the_definition_says(items, around, planted, n, share):
    """Against brute force: own n-grams by counting the items that hold them, whole items by sliding over the text."""
    # Ends of its own for each item, so that nothing is stripped; words of two letters, so that all is prose.
    spoken = [(f"h{end}", *(f"w{w}" for w in item), f"t{end}") for item, end in zip(items, "abcdefg", strict=False)]
    middle = spoken[planted] if planted < len(spoken) else ()
    told = (*(f"w{w}" for w in around[0]), *middle, *(f"w{w}" for w in around[1]))

    def slices(sequence, length=n):
        return [sequence[at : at + length] for at in range(len(sequence) - length + 1)]

    expected = []
    for number, item in enumerate(spoken):
        starts = [at for at, gram in enumerate(slices(item)) if sum(gram in slices(other) for other in spoken) >= 3]
        taken = {at + place for at in starts for place in range(n)}
        own = {gram for at, gram in enumerate(slices(item)) if not taken & set(range(at, at + n))}
        matched = len(own & set(slices(told))) / max(1, len(set(slices(item))))
        if len(item) >= n and item in slices(told, len(item)):
            expected.append((False, -1.0, f"i{number}"))
        elif matched >= share:
            expected.append((True, -matched, f"i{number}"))
    settings = OverlapSettings(ngram=n, share=share, common=3)
    row = found(suite_of(*(" ".join(item) for item in spoken)), " ".join(told), is_question=False, settings=settings)
    best = min(expected, default=None)
    assert row == (best and ("ngram" if best[0] else "exact", best[2], -best[1]))


# --- templates ------------------------------------------------------------------------------------------------------


def test_the_same_sum_counts_and_another_sum_of_the_template_does_not():
    items = suite_of(*(SUM.format(f"{a} + {a + 3}") for a in range(10, 40)))
    assert found(items, SUM.format("12 + 15"))[:2] == ("exact", "i2")
    assert found(items, SUM.format("12 - 15")) is None
    assert found(items, SUM.format("12 + 16")) is None
    assert found(items, SUM.format("15 + 12")) is None
    assert found(items, SUM.format("12 + 15 + 2")) is None


def test_an_expression_that_goes_on_is_another_one():
    items = suite_of("Please work out the value of this for me now: 12 + 5", "Please say aloud: 7")
    assert found(items, "Please work out the value of this for me now: 12 + 5")[0] == "exact"
    assert found(items, "Please work out the value of this for me now: 12 + 5 = 17", is_question=False)[0] == "exact"
    longer = found(items, "Please work out the value of this for me now: 12 + 5 * 3")
    assert longer is None or longer[0] == "ngram"


def test_rows_of_a_matrix_are_no_line_of_a_larger_one():
    template = "Find the distance to the nearest zero for each cell of this matrix:\n{}"
    items = suite_of(*(template.format(f"{a} 0 1\n{a} 0 0\n1 1 {a}") for a in range(4)))
    assert found(items, template.format("0 0 1 0 0 0 1 1 0\n1 0 1 0 0 0 1 1 1")) is None
    assert found(items, template.format("0 0 1\n0 0 0\n1 1 0"))[:2] == ("exact", "i0")


def test_an_n_gram_of_common_many_items_is_boilerplate_and_of_one_fewer_is_not():
    shared = "the hens behind the old mill lay their eggs at night"
    items = suite_of(*(f"{name} says that {shared} {name} knows" for name in ("anna", "bert", "cora")))
    assert found(items, shared, settings=OverlapSettings(common=4, share=0.2))[0] == "ngram"
    assert found(items, shared, settings=OverlapSettings(common=3, share=0.2)) is None


def test_numbers_in_a_story_that_many_items_share_make_other_questions():
    items = suite_of(*(STORY.format(a, a % 7 + 2) for a in range(20, 40)))
    assert found(items, STORY.format(21, 9)) is None
    assert found(items, STORY.format(20, 8))[:2] == ("exact", "i0")


def test_items_that_really_repeat_count_once():
    """Three times the same question with other options: its words are its own."""
    items = [choice(n, STORY.format(12, 3), "two coins", f"wrong {n}") for n in range(5)]
    assert found(items, STORY.format(12, 4))[0] == "ngram"


def test_a_passage_that_a_cluster_shares_is_the_items_own():
    passage = STORY.format(12, 3)
    asked = [f"{passage}\nWhat about the number {n} in the story that was just told?" for n in range(5)]
    assert found([written(n, text, cluster="hens") for n, text in enumerate(asked)], passage)[0] == "ngram"
    assert found([written(n, text) for n, text in enumerate(asked)], passage) is None


def test_a_constant_prompt_is_no_question():
    """Which sentence is right is asked of every item; the right sentence is what tells them apart."""
    items = [
        choice(n, "Which of these sentences is good English, please?", f"Some turtles number {n} do alarm Kim.")
        for n in range(4)
    ]
    assert found(items, "Which of these sentences is good English, please?") is None
    assert (
        found(items, "Which of these sentences is good English, please? Some turtles number 2 do alarm Kim.")[1] == "i2"
    )


def test_a_question_under_a_label_is_found_without_it():
    goals = [
        "How do I open a jar of plums without any tool at hand?",
        "Can one dry wet shoes over night in winter?",
    ]
    items = [choice(n, f"Question: {goal}\nAnswer:", "Wait.") for n, goal in enumerate(goals)]
    assert found(items, goals[1], is_question=False) == ("ngram", "i1", 1.0)
    assert found(items, goals[1]) == ("exact", "i1", 1.0)


def test_worked_examples_are_no_part_of_an_item():
    shots = "Is 1 even? no\n\nIs 4 even? yes\n\n"
    items = [choice(n, f"{shots}Is {n + 10} even?", "yes") for n in range(5)]
    assert found(items, "Is 12 even?") == ("exact", "i2", 1.0)
    assert found(items, "Is 1 even? no") is None


def test_a_question_and_its_right_option_are_found_in_running_text():
    items = [choice(0, "My neighbour is Russian.", "He is very quiet and never drinks.", "You should not eat salt.")]
    text = "She said: my neighbour is Russian. He is very quiet and never drinks! That was all."
    assert found(items, text, is_question=False) == ("exact", "i0", 1.0)
    assert found(items, text.replace("He is very quiet and never drinks", "He sings"), is_question=False) is None


# --- short and empty items ------------------------------------------------------------------------------------------


def test_a_short_item_is_found_where_a_question_or_a_line_of_it_says_nothing_else():
    items = suite_of("What is 12 + 5?", "Name a colour.")
    assert found(items, "what is 12+5")[:2] == ("exact", "i0")
    assert found(items, "What is 12 + 5?\nPut the final answer in \\boxed{}.")[:2] == ("exact", "i0")
    assert found(items, "What is 12 + 5 + 3?") is None
    assert found(items, "First: what is 12 + 5? And then?") is None
    assert found(items, "What is 12 + 5?", is_question=False) is None


def test_an_item_of_one_word_is_found_only_as_a_whole_question():
    items = suite_of("Tomatoes", "Name a colour.")
    assert found(items, "tomatoes!") == ("exact", "i0", 1.0)
    assert found(items, "We grow tomatoes.") is None
    assert found(items, "tomatoes", is_question=False) is None


@pytest.mark.parametrize("prompt", ["?!", "...", "****  ----\n----  ****\n" * 4 + "a drawing"])
def test_an_item_without_words_is_counted_and_found_nowhere(prompt):
    index = Index({"s": suite_of(prompt, "Name a colour.")}, SETTINGS)
    assert (index.n_items, index.n_without_words) == (2, 1)
    assert index.find(TrainingText("t", prompt, is_question=True)) == []


def test_a_list_of_digits_is_not_layout():
    assert found(suite_of("0, 1, 1, 2, ?", "3, 6, 9, ?"), "0, 1, 1, 2, ?") == ("exact", "i0", 1.0)


@pytest.mark.parametrize("text", ["", "   ", "?!"])
def test_an_empty_text_overlaps_nothing(text):
    assert found(suite_of("Name a colour."), text) is None


def test_a_suite_without_items_is_searched_in_vain():
    assert found([], STORY) is None


# --- several suites, order, records ---------------------------------------------------------------------------------


def test_equal_items_of_two_suites_are_listed_for_both():
    index = Index({"b": suite_of(STORY.format(1, 2)), "a": suite_of("Name a colour.", STORY.format(1, 2))}, SETTINGS)
    rows = index.find(TrainingText("t", STORY.format(1, 2), is_question=True))
    assert [(row.suite, row.item_id, row.kind) for row in rows] == [("a", "i1", "exact"), ("b", "i0", "exact")]


@given(st.randoms())
def test_the_order_of_items_and_suites_changes_nothing(rng):
    first = suite_of(*(SUM.format(f"{a} + {a}") for a in range(9)), STORY.format(1, 2), STORY.format(1, 3))
    second = suite_of("Name a colour.", STORY.format(1, 2))
    texts = [STORY.format(1, 4), STORY.format(1, 2), SUM.format("3 + 3"), "Name a colour."]
    shuffled = [rng.sample(items, len(items)) for items in (first, second)]
    one, other = Index({"a": first, "b": second}, SETTINGS), Index({"b": shuffled[1], "a": shuffled[0]}, SETTINGS)
    for text in texts:
        assert one.find(TrainingText("t", text, True)) == other.find(TrainingText("t", text, True)) != []


def test_own_grams_touch_no_word_of_boilerplate():
    form = ("aa", "bb", "cc", "dd", "ee", "ff", "gg", "hh")
    grams = [form[at : at + 3] for at in range(6)]
    assert own_grams(form, 3, {grams[0]}) == {*grams[3:]}
    assert own_grams(form, 3, set()) == {*grams}
    assert own_grams(form, 3, {grams[0], grams[3], grams[5]}) == set()
    assert own_grams(("aa",), 3, set()) == set()


def test_own_grams_are_prose():
    """At least half of the words are words: `12 + hens eggs` is, `12 + 5 eggs` is not, a letter of Han is a word."""
    assert own_grams(("12", "+", "hens", "eggs", "5", "x"), 4, set()) == {
        ("12", "+", "hens", "eggs"),
        ("+", "hens", "eggs", "5"),
        ("hens", "eggs", "5", "x"),
    }
    assert own_grams(("12", "+", "5", "eggs"), 4, set()) == set()
    assert own_grams(tuple("我喜欢数"), 4, set()) == {tuple("我喜欢数")}


def test_an_item_in_a_script_without_spaces_is_found_in_running_text():
    items = suite_of("我喜欢数学和语文，你喜欢什么？", "他在哪里买了这么多苹果？")
    assert found(items, "老师问：我喜欢数学和语文，你喜欢什么？我说音乐。", is_question=False) == ("exact", "i0", 1.0)


def test_forms_are_the_question_and_what_is_left_without_shared_ends():
    forms = item_forms([choice(0, "Q: one?\nA:", "yes"), choice(1, "Q: two?\nA:", "no")], common=3)
    assert [tuple(" ".join(form) for form in kind) for kind in forms[0]] == [
        ("q one a", "q one a yes"),
        ("one", "one yes"),
    ]


def test_everything_that_is_trained_on_of_a_question_is_compared():
    index = Index({"s": suite_of(STORY.format(1, 2), "What is 12 + 5?")}, SETTINGS)
    clean = question("Who?", "Nobody.")
    assert pool_overlaps(index, clean) == []
    assert [row.text_id for row in pool_overlaps(index, question("What is 12 + 5?"))] == ["q"]
    solved = question("Who?", f"As it was asked: {STORY.format(1, 2)} The final answer is \\boxed{{1}}")
    assert [row.text_id for row in pool_overlaps(index, solved)] == ["q/solution"]
    assert [text.is_question for text in pool_texts(solved)] == [True, False]


def test_prompts_and_responses_of_a_group_and_samples_are_named():
    response = ScoredResponse(
        index=1,
        teacher="big",
        text="Two.",
        finish_reason="stop",
        correct=1.0,
        well_formed=True,
        reward=1.0,
        advantage=0.0,
    )
    group = ResponseGroup(question_id="q", prompt="Which?", responses=(response,), degenerate=True)
    sample = ContextFreeSample(
        index=7,
        prefix="bos",
        prefix_ids=(0,),
        token_ids=(1,),
        text="Once.",
        ended=True,
        model="m",
        temperature=1.0,
        top_p=1.0,
        max_new_tokens=1,
        seed=0,
    )
    assert [*group_texts(group), sample_text(sample)] == [
        ("q", "Which?", True),
        ("q/response 1 of big", "Two.", False),
        ("context-free sample 7", "Once.", False),
    ]


def dialogue(*texts):
    turns = tuple(
        SelfTurn(role=("user", "assistant")[i % 2], template_ids=(1,), token_ids=(2,), text=text, ended=True, seed=i)
        for i, text in enumerate(texts)
    )
    return SelfDialogue(index=3, turns=turns, model="m", temperature=0.7, top_p=0.9, max_new_tokens=9)


def test_turns_of_a_self_dialogue_are_named_and_the_users_ask():
    assert [*dialogue_texts(dialogue("Who?", "Me.", "Why?"))] == [
        ("self-dialogue 3, turn 1 (user)", "Who?", True),
        ("self-dialogue 3, turn 2 (assistant)", "Me.", False),
        ("self-dialogue 3, turn 3 (user)", "Why?", True),
    ]


def test_an_item_that_the_base_knows_by_heart_is_found_in_its_dialogues():
    """A short one where the user says nothing else, a long one also in the assistant's words."""
    index = Index({"s": suite_of(STORY.format(1, 2), "What is 12 + 5?")}, SETTINGS)
    talk = dialogue("What is 12 + 5?", "What is 12 + 5?", "Go on.", f"Well. {STORY.format(1, 2)} Good.")
    found = [row.text_id for text in dialogue_texts(talk) for row in index.find(text)]
    assert found == ["self-dialogue 3, turn 1 (user)", "self-dialogue 3, turn 4 (assistant)"]


def test_counts_know_all_overlaps_and_examples_the_first_of_each_suite():
    index = Index({"a": suite_of(STORY.format(1, 2)), "b": suite_of("Name a colour.")}, SETTINGS)
    texts = [TrainingText(f"t{n}", STORY.format(1, 2), is_question=False) for n in range(5)]
    texts += [TrainingText("u", "name a colour", is_question=True), TrainingText("v", "nothing", is_question=True)]
    result = training_overlaps(index, texts, examples=2)
    assert (result.n_texts, result.suites) == (7, {"a": 5, "b": 1})
    assert [(row.suite, row.text_id) for row in result.examples] == [("a", "t0"), ("a", "t1"), ("b", "u")]


def test_a_row_shows_the_beginnings():
    long = STORY.format(1, 2) + " " + STORY.format(3, 4)
    row = Index({"s": suite_of(long)}, SETTINGS).find(TrainingText("t", long, is_question=True))[0]
    assert row.text == row.item == long[:160] + "…"


# --- real families and suites ---------------------------------------------------------------------------------------


def procedural(family, seed, n, **config):
    suite = Suite(
        name="s",
        skill="k",
        tier="watched",
        metric="exact",
        items=ProceduralItems(kind="procedural", family=family, config=config, seed=seed, size=n),
        n_items=n,
        max_new_tokens=8,
        chance=0.0,
        licence="l",
        source="s",
    )
    return build_items(suite, Path("none"))


@pytest.mark.parametrize("family", ["chain_sum", "gcd", "word_sorting", "basic_arithmetic", "leg_counting"])
def test_a_pool_of_the_suites_own_family_overlaps_exactly_where_questions_are_equal(family):
    """Same template everywhere, other seed: only literally the same question may be found, and must be."""
    items = procedural(family, 7_000_000, 150)
    asked = {" ".join(item.question.prompt.split()).casefold() for item in items}
    source = ProceduralSource(kind="procedural", name="p", family=family, n_questions=150, seed=5, domain="d")
    pool = [found for found in source.questions() if isinstance(found, Question)]
    planted = [question(item.question.prompt) for item in items[:20]]
    index = Index({"s": items}, SETTINGS)
    for each in [*pool, *planted]:
        expected = " ".join(each.prompt.split()).casefold() in asked
        assert bool(pool_overlaps(index, each)) == expected, each.prompt


def test_every_procedural_item_of_the_registry_is_found_and_its_neighbour_is_not():
    for suite in load_suites(ROOT / "registry" / "suites"):
        if not isinstance(suite.items, ProceduralItems):
            continue
        items = list(build_items(suite, Path("none")))
        rng = random.Random(1)
        rng.shuffle(items)
        known, fresh = items[: len(items) // 2], items[len(items) // 2 :]
        index = Index({suite.name: known}, SETTINGS)
        assert index.n_without_words == 0
        assert all(pool_overlaps(index, item.question) for item in known)
        texts = {" ".join(words(item.question.prompt)) for item in known}
        strangers = [item for item in fresh if " ".join(words(item.question.prompt)) not in texts]
        assert [item.question.prompt for item in strangers if pool_overlaps(index, item.question)] == []
