import pytest

from metagdpo.evaluation.written import common_prefix, ending_tokens
from metagdpo.models.load import load_tokenizer


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ([[1, 2, 3, 4], [1, 2, 9], [1, 2, 3, 5]], [1, 2]),
        ([[1, 2], [2, 2]], []),
        ([[1, 2], [1, 2, 3]], [1]),  # one token must be left to predict from
        ([[1, 2, 3]], [1, 2]),
    ],
)
def test_what_all_prompts_begin_with_is_everything_but_where_they_part(prompts, expected):
    assert expected == common_prefix(prompts)


def test_a_token_ends_an_answer_when_a_stop_text_is_in_it(tiny_model_dir):
    tokenizer = load_tokenizer(tiny_model_dir)
    texts = {token: tokenizer.decode([token]) for token in range(len(tokenizer))}
    expected = {token for token, text in texts.items() if "an" in text or "x" in text}
    assert expected == ending_tokens(tokenizer, ("an", "x"))
    assert any(text not in {"an", "x"} for token, text in texts.items() if token in expected)
    assert frozenset() == ending_tokens(tokenizer, ())
