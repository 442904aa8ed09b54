"""A model with a vocabulary so small that every text it can write is listed, so that expectations are exact sums."""

import pytest

VOCABULARY = ("<s>", "</s>", "a", "b", "c")
BOS, EOS = 0, 1


@pytest.fixture(scope="session")
def five_words_dir(tmp_path_factory):
    """Directory of a one-layer Llama over `VOCABULARY`; `</s>` ends a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("five") / "model"
    names = {"unk_token": "a", "bos_token": "<s>", "eos_token": "</s>"}
    vocabulary = {word: place for place, word in enumerate(VOCABULARY)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=names["unk_token"]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **names, clean_up_tokenization_spaces=False)
    tokenizer.save_pretrained(path)
    llama(seed=0).save_pretrained(path)
    return path


def llama(seed):
    """Random weights with a spread that makes next-token distributions far from flat."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=False,
        initializer_range=0.5,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=EOS,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()
