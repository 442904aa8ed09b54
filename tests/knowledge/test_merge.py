import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metagdpo.errors import DataError
from metagdpo.knowledge.merge import MergeParams, merge, stem, stem_form
from metagdpo.records.annotation import Annotation, SkillLabel

STEM = MergeParams(stem=True)


def annotations(labels):
    """`{question: "label label"}` as annotations."""
    return [
        Annotation(
            question_id=question,
            skills=tuple(SkillLabel(name=name, reason="") for name in names.split()),
            annotator="test",
            raw=None,
        )
        for question, names in labels.items()
    ]


def merged(labels, params=STEM, embed=None):
    return {unit.name: unit.aliases for unit in merge(annotations(labels), params, embed)}


def at(angles):
    """Embeds every label as the unit vector at an angle (degrees)."""

    def embed(texts):
        radians = np.deg2rad([angles[text] for text in texts])
        return np.stack([np.cos(radians), np.sin(radians)], axis=1)

    return embed


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("count", "counting"),
        ("counts", "counted"),
        ("divide", "dividing"),
        ("add", "adding"),
        ("stop", "stopped"),
        ("spell", "spelling"),
        ("multiply", "multiplied"),
        ("category", "categories"),
        ("class", "classes"),
        ("box", "boxes"),
        ("fractions", "fraction"),
    ],
)
def test_inflected_forms_have_one_stem(one, other):
    assert stem(one) == stem(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("divide", "division"),
        ("general", "generate"),
        ("universe", "university"),
        ("string", "str"),
        ("speed", "spe"),
        ("bus", "bu"),
        ("2", "22"),
        ("sing", "s"),
    ],
)
def test_different_words_keep_different_stems(one, other):
    assert stem(one) != stem(other)


def test_word_order_and_filler_words_do_not_matter():
    assert stem_form("counting_of_letters") == stem_form("letter_count") == ("count", "letter")


def test_order_matters_where_a_word_gives_a_direction():
    assert stem_form("inches_to_metres") != stem_form("metres_to_inches")


def test_a_unit_is_named_after_its_most_frequent_label():
    labels = {"q1": "counting_letters", "q2": "letter_counting", "q3": "letter_counting"}
    assert merged(labels) == {"letter_counting": ("counting_letters", "letter_counting")}


def test_equally_frequent_labels_are_named_alphabetically():
    assert merged({"q1": "letter_count", "q2": "count_letter"}) == {"count_letter": ("count_letter", "letter_count")}


def test_a_question_with_two_labels_of_one_unit_counts_once():
    (unit,) = merge(annotations({"q2": "count counting", "q1": "counts"}), STEM)
    assert unit.question_ids == ("q1", "q2")


def test_without_stem_every_label_is_a_unit():
    assert merged({"q1": "count counting"}, MergeParams(stem=False)) == {"count": ("count",), "counting": ("counting",)}


def test_labels_of_near_meaning_merge_under_the_most_frequent():
    labels = {"q1": "sum", "q2": "sum", "q3": "total", "q4": "logic"}
    params = MergeParams(stem=True, similarity=0.9)
    assert merged(labels, params, at({"sum": 0, "total": 20, "logic": 90})) == {
        "sum": ("sum", "total"),
        "logic": ("logic",),
    }


def test_meanings_do_not_drift_along_a_chain():
    """Cos 20 = 0.94 is near enough, cos 40 = 0.77 is not: c is near b, but b already stands under a."""
    labels = {"q1": "a b c", "q2": "a"}
    params = MergeParams(stem=True, similarity=0.9)
    assert merged(labels, params, at({"a": 0, "b": 20, "c": 40})) == {"a": ("a", "b"), "c": ("c",)}


def test_a_label_joins_the_nearest_of_two_units():
    labels = {"q1": "a b c", "q2": "a b", "q3": "a"}
    params = MergeParams(stem=True, similarity=0.9)
    assert merged(labels, params, at({"a": 0, "b": 30, "c": 20})) == {"a": ("a",), "b": ("b", "c")}


@settings(max_examples=50, deadline=None)
@given(order=st.randoms(use_true_random=False))
def test_the_order_of_annotations_does_not_matter(order):
    rows = annotations({"q1": "a b", "q2": "b c", "q3": "adding add", "q4": "c added"})
    shuffled = order.sample(rows, len(rows))
    params = MergeParams(stem=True, similarity=0.9)
    embed = at({"a": 0, "b": 20, "c": 40, "add": 90, "adding": 90, "added": 90})
    assert merge(shuffled, params, embed) == merge(rows, params, embed)


def test_no_label_at_all_is_an_error_that_names_the_way_out():
    with pytest.raises(DataError, match=r"none of 2 questions has a skill label.*min_similarity"):
        merge(annotations({"q1": "", "q2": ""}), STEM)


def test_a_question_annotated_twice_is_an_error():
    with pytest.raises(DataError, match="q1 is annotated twice"):
        merge([*annotations({"q1": "a"}), *annotations({"q1": "b"})], STEM)


def test_the_encoder_is_needed_only_for_meaning():
    assert STEM.references() == ()
    assert MergeParams(stem=True, similarity=0.9).references() == ("asset:all-minilm-l6-v2",)
