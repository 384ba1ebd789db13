"""The story of a training run, from the frozen rows to ``result.json``.

Comes in: a run directory with a spec and a snapshot. Goes out: the adapter, and last the result, whose presence is what
success means. Everything that can go wrong raises; ``attempt`` turns that into an exit code.
"""

from __future__ import annotations

from datetime import UTC, datetime

import transformers

from peft_trainer import memory
from peft_trainer.adapter import adapter_state, config_for, wrap
from peft_trainer.base_model import BaseModel, load_base_model, longest_row
from peft_trainer.checkpoints import find_checkpoint, spec_digest
from peft_trainer.dataset import TextEncoder, TokenisedRows, tokenise, verify_rows
from peft_trainer.environment import installed_versions
from peft_trainer.evaluation import Evaluation, Evaluator
from peft_trainer.hardware import choose_device
from peft_trainer.logs import log_memory
from peft_trainer.reporter import Reporter
from peft_trainer.saving import save_adapter
from peft_trainer.stopping import StopRequest
from peft_trainer.training import Training, train
from peft_trainer.training_settings import check_training_settings
from training_contract.documents import write_document
from training_contract.events import Phase
from training_contract.locations import AttemptDirectory, RunDirectory
from training_contract.result import FileEntry, Sample, TrainingMetrics, TrainingResult
from training_contract.run_spec import RunSpec


def train_adapter(
    spec: RunSpec, run: RunDirectory, attempt: AttemptDirectory, reporter: Reporter, stop: StopRequest
) -> TrainingResult:
    """Train an adapter and leave it, with its result, in the attempt's directory.

    Args:
        spec: What is to be trained.
        run: Where the rows are, and earlier attempts.
        attempt: Where the adapter goes.
        reporter: Says how far it is.
        stop: Notes when we are asked to stop.

    Raises:
        TrainerError: As ``errors`` says.
        OSError: The file system refuses.
    """

    def enter(phase: Phase) -> None:
        stop.raise_if_requested()
        log_memory(memory.measure())
        reporter.enter(phase)

    def advance(done: int, total: int) -> None:
        stop.raise_if_requested()
        reporter.advance(done, total)

    check_training_settings(spec.training)
    device = choose_device(spec.limits)
    transformers.set_seed(spec.training.seed)

    enter(Phase.LOADING_DATA)
    verify_rows(run.rows_file, spec.data)

    enter(Phase.LOADING_MODEL)
    base = load_base_model(spec.base_model, device)
    config = config_for(base, spec.peft_type, spec.peft_settings)
    encoder = TextEncoder(base.tokenizer, is_encoder_decoder=base.is_encoder_decoder)
    virtual_tokens = getattr(config, "num_virtual_tokens", 0)
    max_length = longest_row(base, max_length=spec.training.max_length, virtual_tokens=virtual_tokens)
    rows = _tokenise(spec, run, encoder, max_length, reporter)
    evaluator = _evaluator(spec, base, encoder, rows)

    enter(Phase.EVALUATING_BASE)
    base_evaluation = evaluator.evaluate("base model", base.model, advance)

    enter(Phase.TRAINING)
    digest = spec_digest(run)
    model = wrap(base, config)
    initial_state = adapter_state(model)
    training = train(
        model,
        base,
        rows.train,
        spec.training,
        device=device,
        checkpoints_directory=attempt.checkpoints_directory,
        digest=digest,
        resume_from=find_checkpoint(run, attempt, digest),
        reporter=reporter,
        stop=stop,
    )

    enter(Phase.EVALUATING_ADAPTER)
    adapter_evaluation = evaluator.evaluate("adapter", model, advance)

    enter(Phase.SAVING)
    trainable_parameter_count, _ = model.get_nb_trainable_parameters()
    with stop.deferred():  # a second or two from the goal, finishing is worth more than stopping
        files = save_adapter(
            model,
            base.tokenizer,
            attempt,
            base_model=spec.base_model,
            base_model_revision=base.files.commit,
            initial_state=initial_state,
        )
        metrics = _metrics(base_evaluation, adapter_evaluation, training, rows, trainable_parameter_count)
        samples = _samples(rows, base_evaluation, adapter_evaluation)
        result = _result(spec, base.files.commit, files, metrics, samples)
        write_document(attempt.result_file, result)
        stop.ignore()  # nothing can take the result back
    return result


def _tokenise(
    spec: RunSpec, run: RunDirectory, encoder: TextEncoder, max_length: int, reporter: Reporter
) -> TokenisedRows:
    rows = tokenise(
        run.rows_file,
        encoder,
        max_length=max_length,
        max_heldout_rows=spec.limits.max_heldout_rows,
        sample_count=spec.data.sample_count,
    )
    if rows.too_long_row_count:
        reporter.warn(
            "ROWS_TOO_LONG",
            f"{rows.too_long_row_count} rows are left out: they are longer than {max_length} tokens",
        )
    return rows


def _evaluator(spec: RunSpec, base: BaseModel, encoder: TextEncoder, rows: TokenisedRows) -> Evaluator:
    return Evaluator(
        base=base,
        encoder=encoder,
        rows=rows.heldout,
        samples=rows.samples,
        batch_size=spec.training.per_device_eval_batch_size,
        max_new_tokens=spec.limits.max_new_tokens,
    )


def _metrics(
    base: Evaluation, adapter: Evaluation, training: Training, rows: TokenisedRows, trainable_parameter_count: int
) -> TrainingMetrics:
    return TrainingMetrics(
        base_heldout_loss=base.loss,
        adapter_heldout_loss=adapter.loss,
        train_loss=training.train_loss,
        global_step=training.global_step,
        trained_row_count=len(rows.train),
        trained_token_count=training.trained_token_count,
        heldout_row_count=adapter.row_count,
        too_long_row_count=rows.too_long_row_count,
        trainable_parameter_count=trainable_parameter_count,
        train_seconds=training.train_seconds,
        peak_memory_bytes=memory.peak_bytes(),
        peak_gpu_memory_bytes=memory.peak_gpu_bytes(),
    )


def _samples(rows: TokenisedRows, base: Evaluation, adapter: Evaluation) -> tuple[Sample, ...]:
    return tuple(
        Sample(prompt=text.prompt, expected=text.completion, base_answer=base_answer, adapter_answer=adapter_answer)
        for text, base_answer, adapter_answer in zip(rows.samples, base.answers, adapter.answers, strict=True)
    )


def _result(
    spec: RunSpec,
    base_model_revision: str | None,
    files: dict[str, FileEntry],
    metrics: TrainingMetrics,
    samples: tuple[Sample, ...],
) -> TrainingResult:
    return TrainingResult(
        training_run_id=spec.training_run_id,
        peft_type=spec.peft_type,
        base_model_name_or_path=spec.base_model.base_model_name_or_path,
        base_model_revision=base_model_revision,
        data_digest=spec.data.digest,
        adapter_files=files,
        metrics=metrics,
        samples=samples,
        versions=installed_versions(),
        finished_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
