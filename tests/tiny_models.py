"""Tiny random models of every family that the project promises to train, written to disk as ordinary Hugging Face folders.

    folder = make_tiny("gpt2", tmp_path)      # config, weights (random, seeded), tokenizer, generation config

Sizes: 2 layers, width 32, 4 heads, 259-token byte-level vocabulary: milliseconds to load. The tokenizer is trained here, on the text below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch

Kind = Literal["gpt2", "codegen", "roberta", "t5", "gpt_bigcode", "starcoder2", "llama", "qwen2", "qwen3"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_TEXT = (
    """def add(a, b):
    return a + b

def count_vowels(text):
    total = 0
    for letter in text:
        if letter in "aeiou":
            total += 1
    return total
"""
    * 20
)

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(folder: Path, *, pad: bool = True, chat: bool = True, vocab_size: int = 320) -> int:
    """Train and save a byte-level BPE tokenizer; ids 0 to 3 are <pad>, <|im_start|>, <|im_end|> (end of sequence), <unk>. Returns its length."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<|im_start|>", "<|im_end|>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        [_TEXT], trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<unk>", pad_token="<pad>" if pad else None
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def make_tiny(kind: Kind, folder: Path, *, pad: bool | None = None, chat: bool | None = None, seed: int = 0, scale: float = 0.3) -> Path:
    """Write a tiny model of `kind` to `folder` (created) and return it.

    pad, chat: does the tokenizer have a pad token, a chat template? By default as the real families have it: GPT-2, CodeGen and GPT-BigCode
    have no pad token, and only llama and qwen have a template. scale: standard deviation of the random weights; large enough that the
    distributions are far from uniform, so that a wrong position or mask shows.
    """
    import transformers as tf

    tf.utils.logging.disable_progress_bar()

    folder.mkdir(parents=True, exist_ok=True)
    modern = kind in {"llama", "qwen2", "qwen3"}
    vocabulary = make_tokenizer(
        folder, pad=kind not in {"gpt2", "codegen", "gpt_bigcode"} if pad is None else pad, chat=modern if chat is None else chat
    )
    common: dict[str, Any] = {"vocab_size": vocabulary, "bos_token_id": 1, "eos_token_id": 2}
    wide = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    gpt = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
    match kind:
        case "gpt2":
            config: Any = tf.GPT2Config(**common, **gpt)
        case "codegen":
            config = tf.CodeGenConfig(**common, **gpt, n_ctx=256, rotary_dim=4, tie_word_embeddings=False)
        case "gpt_bigcode":
            config = tf.GPTBigCodeConfig(**common, **gpt, multi_query=True)
        case "roberta":
            config = tf.RobertaConfig(**(common | wide), pad_token_id=0, max_position_embeddings=258, type_vocab_size=1)
        case "t5":
            config = tf.T5Config(**common, d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4, pad_token_id=0, decoder_start_token_id=0)
        case "starcoder2":
            config = tf.Starcoder2Config(**common, **wide, num_key_value_heads=2, max_position_embeddings=256, sliding_window=None)
        case "llama":
            config = tf.LlamaConfig(**common, **wide, num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True)
        case "qwen2":
            config = tf.Qwen2Config(**common, **wide, num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True)
        case "qwen3":
            config = tf.Qwen3Config(**common, **wide, num_key_value_heads=2, head_dim=16, max_position_embeddings=256)
    build = tf.AutoModelForSeq2SeqLM if kind == "t5" else tf.AutoModelForMaskedLM if kind == "roberta" else tf.AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build.from_config(config)
        for name, parameter in model.named_parameters():
            # norms stay near one, the rest is made lively; biases too, so that a forgotten one shows
            if "norm" in name.lower() or "ln_" in name or "layer_norm" in name:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.data.normal_(0, scale)
    model.save_pretrained(folder)
    return folder
