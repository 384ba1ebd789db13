"""The frozen rows: checked against their digest, then turned into tokens once.

Comes in: ``snapshot/rows.parquet`` and a tokenizer. Goes out: Arrow tables of token ids behind ``datasets.Dataset``.
The file is streamed twice, so the text of the rows is never in memory at once; the token ids are, four bytes each.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow
import pyarrow.parquet
from datasets import Dataset

from peft_trainer.errors import DataEmpty, DataInvalid
from training_contract.run_spec import DataSpec
from training_contract.snapshot import ROW_COLUMNS, RowsDigest, Split

logger = logging.getLogger(__name__)

_ROWS_A_BATCH: Final = 1000
_FREEZE_AGAIN: Final = "Freeze the rows again: clear the task that makes the snapshot."
_TOKEN_COLUMNS: Final = pyarrow.schema(
    [
        ("prompt_ids", pyarrow.list_(pyarrow.int32())),
        ("completion_ids", pyarrow.list_(pyarrow.int32())),
        ("length", pyarrow.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class HeldoutText:
    """A held-out row as people read it."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenisedRows:
    """All rows of a run as token ids.

    Attributes:
        train: Columns ``prompt_ids``, ``completion_ids`` and ``length`` (of both together).
        heldout: The same; at most ``max_heldout_rows`` rows.
        samples: The first held-out rows as text.
        too_long_row_count: Rows of both splits that are longer than ``max_length`` and left out.
    """

    train: Dataset
    heldout: Dataset
    samples: tuple[HeldoutText, ...]
    too_long_row_count: int


class TextEncoder:
    """Turns prompts and completions into token ids, as the model will see them when it serves."""

    def __init__(self, tokenizer: Any, *, is_encoder_decoder: bool) -> None:
        """Choose the shape of a row.

        Args:
            tokenizer: A tokenizer of transformers.
            is_encoder_decoder: ``True``: prompt and completion are source and target. ``False``: the completion follows
                the prompt, in the tokenizer's chat template if it has one.
        """
        self._tokenizer = tokenizer
        self._is_encoder_decoder = is_encoder_decoder
        self._has_chat_template = not is_encoder_decoder and bool(getattr(tokenizer, "chat_template", None))

    @property
    def description(self) -> str:
        """How rows are laid out, for the log."""
        if self._is_encoder_decoder:
            return "source and target"
        return "chat template, user and assistant" if self._has_chat_template else "prompt, newline, completion"

    def prompt_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of prompts, up to where the completion begins."""
        if self._has_chat_template:
            texts = [
                self._tokenizer.apply_chat_template(
                    [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
                )
                for prompt in prompts
            ]
            return self._ids(texts, special_tokens=False)
        if self._is_encoder_decoder:
            return self._ids(prompts, special_tokens=True)
        # Not with special tokens: many tokenizers would end the prompt with EOS.
        begin = [] if self._tokenizer.bos_token_id is None else [self._tokenizer.bos_token_id]
        return [begin + ids for ids in self._ids([f"{prompt}\n" for prompt in prompts], special_tokens=False)]

    def completion_ids(self, completions: Sequence[str]) -> list[list[int]]:
        """Return the token ids of completions; the last one is EOS."""
        return [[*ids, self._tokenizer.eos_token_id] for ids in self._ids(completions, special_tokens=False)]

    def _ids(self, texts: Sequence[str], *, special_tokens: bool) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=special_tokens)["input_ids"]
        return ids


def verify_rows(rows_file: Path, data: DataSpec) -> None:
    """Check that the rows are the ones that the spec is for.

    Raises:
        DataInvalid: The file is missing, torn, of other columns, or has other rows.
        DataEmpty: There is nothing to train on or nothing to judge with.
    """
    digest = RowsDigest()
    counts = dict.fromkeys(Split, 0)
    for row in _read(rows_file, ROW_COLUMNS):
        try:
            digest.add(row)
            counts[Split(row["split"])] += 1
        except ValueError as error:
            raise DataInvalid(f"{rows_file} has a row of an unknown split: {error}", remedy=_FREEZE_AGAIN) from error
    if str(digest) != data.digest:
        raise DataInvalid(
            f"the rows in {rows_file} have the digest {digest}; the spec is for {data.digest}", remedy=_FREEZE_AGAIN
        )
    for split, count in counts.items():
        if count == 0:
            raise DataEmpty(f"the snapshot has no rows to {_purpose(split)}", remedy="Label more rows.")
    logger.info(
        "The snapshot is the one of the spec: %d rows to train on, %d held out, %s.",
        counts[Split.TRAIN],
        counts[Split.HELDOUT],
        digest,
    )


def tokenise(
    rows_file: Path, encoder: TextEncoder, *, max_length: int, max_heldout_rows: int, sample_count: int
) -> TokenisedRows:
    """Turn the rows into token ids, once for the whole run.

    Args:
        rows_file: The rows, already verified.
        encoder: How a row becomes token ids.
        max_length: Longest row in tokens, prompt and completion together.
        max_heldout_rows: Held-out rows at most; the first ones in the file count.
        sample_count: Held-out rows that are kept as text too.

    Raises:
        DataEmpty: No row of a split is short enough.
        DataInvalid: The file cannot be read.
    """
    batches: dict[Split, list[Any]] = {split: [] for split in Split}
    heldout: list[HeldoutText] = []
    row_count = 0
    for rows in _batched(_rows_to_use(rows_file, max_heldout_rows)):
        row_count += len(rows)
        heldout.extend(HeldoutText(row["prompt"], row["completion"]) for row in rows if row["split"] == Split.HELDOUT)
        prompts = encoder.prompt_ids([row["prompt"] for row in rows])
        completions = encoder.completion_ids([row["completion"] for row in rows])
        for split, some in batches.items():
            of_split = zip(rows, prompts, completions, strict=True)
            pairs = [(prompt, completion) for row, prompt, completion in of_split if row["split"] == split]
            some.append(_record_batch([pair for pair in pairs if len(pair[0]) + len(pair[1]) <= max_length]))
    tables = {split: pyarrow.Table.from_batches(some, schema=_TOKEN_COLUMNS) for split, some in batches.items()}
    for split, table in tables.items():
        if table.num_rows == 0:
            raise DataEmpty(
                f"every row to {_purpose(split)} is longer than {max_length} tokens",
                remedy="Raise max_length (as far as the base model has positions), or label shorter rows.",
            )
    tokenised = TokenisedRows(
        train=Dataset(tables[Split.TRAIN]),
        heldout=Dataset(tables[Split.HELDOUT]),
        samples=tuple(heldout[:sample_count]),
        too_long_row_count=row_count - sum(table.num_rows for table in tables.values()),
    )
    _log(tokenised, encoder)
    return tokenised


def _log(rows: TokenisedRows, encoder: TextEncoder) -> None:
    lengths = rows.train["length"]
    logger.info(
        "Tokenised as %s: %d rows to train on (mean %.1f tokens, longest %d), %d held out, %d left out as too long.",
        encoder.description,
        len(rows.train),
        sum(lengths) / len(lengths),
        max(lengths),
        len(rows.heldout),
        rows.too_long_row_count,
    )


def _rows_to_use(rows_file: Path, max_heldout_rows: int) -> Iterator[Mapping[str, str]]:
    heldout_count = 0
    for row in _read(rows_file, ("prompt", "completion", "split")):
        heldout_count += row["split"] == Split.HELDOUT
        if row["split"] != Split.HELDOUT or heldout_count <= max_heldout_rows:
            yield row


def _purpose(split: Split) -> str:
    return "train on" if split is Split.TRAIN else "judge with"


def _record_batch(rows: Sequence[Sequence[Sequence[int]]]) -> Any:
    prompts = [prompt for prompt, _ in rows]
    completions = [completion for _, completion in rows]
    lengths = [len(prompt) + len(completion) for prompt, completion in rows]
    arrays = [
        pyarrow.array(values, type=field.type)
        for values, field in zip((prompts, completions, lengths), _TOKEN_COLUMNS, strict=True)
    ]
    return pyarrow.RecordBatch.from_arrays(arrays, schema=_TOKEN_COLUMNS)


def _read(rows_file: Path, columns: Sequence[str]) -> Iterator[Mapping[str, str]]:
    try:
        with pyarrow.parquet.ParquetFile(rows_file) as parquet:
            missing = [column for column in columns if column not in parquet.schema_arrow.names]
            if missing:
                raise DataInvalid(f"{rows_file} lacks the columns {', '.join(missing)}", remedy=_FREEZE_AGAIN)
            for batch in parquet.iter_batches(batch_size=_ROWS_A_BATCH, columns=list(columns)):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataInvalid(f"{rows_file} cannot be read: {error}", remedy=_FREEZE_AGAIN) from error


def _batched(rows: Iterator[Mapping[str, str]]) -> Iterator[list[Mapping[str, str]]]:
    batch: list[Mapping[str, str]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _ROWS_A_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
