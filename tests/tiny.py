"""A two-layer random Llama with a byte-level BPE tokenizer and a ChatML template: real code paths in milliseconds.

It leaves out everything that makes a model good: it writes noise. Tests that need skill use recorded completions.
Run as a script, `python tests/tiny.py DIRECTORY [SEED]` makes one.
"""

import json
import sys
from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
NAMED = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), (*SPECIAL, SPECIAL[2]), strict=True))


def make_tiny_model(path: Path, seed: int = 0) -> Path:
    """Write the model into a directory and return it; the same seed gives the same bytes.

    Args:
        path: Directory to create.
        seed: Of the random weights; the tokenizer is always the same.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe(),
        **NAMED,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(path)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        # A large spread makes next-token distributions peaked, so that different prompts get different answers.
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(path)
    return path


def _byte_level_bpe():
    """256 bytes, the special tokens and a few merges learnt from digits and English: about 300 entries."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        ["the answer is in the box", "system user assistant", "boxed final answer"] * 4, trainer
    )
    return tokenizer


if __name__ == "__main__":
    made = make_tiny_model(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(json.dumps(sorted(p.name for p in made.iterdir())))
