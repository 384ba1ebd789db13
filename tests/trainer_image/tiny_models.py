"""Untrained models of a few thousand parameters, with a tokenizer trained on the rows they are tested with.

``python tests/trainer_image/tiny_models.py DIRECTORY`` builds the causal one, for other environments.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ROOMS = ("kitchen", "hall", "attic", "cellar", "garden", "study")
THINGS = ("light", "lamp", "heater", "fan", "blind", "radio")


def labelled_rows(train: int = 48, heldout: int = 12) -> list[dict[str, str]]:
    """Return rows of very different lengths whose completions are easy to learn."""
    rows = []
    for index in range(train + heldout):
        room, thing = ROOMS[index % 6], THINGS[(index // 6) % 6]
        politeness = "please " * (index % 9)
        rows.append(
            {
                "source_id": str(index),
                "created_at": f"2026-11-01T00:{index // 60:02d}:{index % 60:02d}.000000+00:00",
                "prompt": f"{politeness}turn on the {thing} in the {room}",
                "completion": f"turning on the {thing}" + f" and the {thing}" * (index % 5),
                "split": "train" if index < train else "heldout",
            }
        )
    return rows


def build_causal(directory: Path) -> None:
    """Build a causal model with a chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_trained_tokenizer(), pad_token=PAD, eos_token=EOS, unk_token=UNK, chat_template=CHAT_TEMPLATE
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.3,  # an untrained head needs room to be steered by an adapter
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def build_seq2seq(directory: Path) -> None:
    """Build a sequence-to-sequence model."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_trained_tokenizer(), pad_token=PAD, eos_token=EOS, unk_token=UNK
    )
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        )
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _trained_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=[PAD, EOS, UNK, "<user>", "<assistant>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [row[column] for row in labelled_rows() for column in ("prompt", "completion")]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


if __name__ == "__main__":
    build_causal(Path(sys.argv[1]))
