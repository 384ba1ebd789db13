from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_retraining.errors import FailureClass
from peft_retraining.outcome.evidence import Evidence
from peft_retraining.outcome.signatures import read_signatures
from peft_retraining.outcome.verdict import MAX_REASON_CHARACTERS, Outcome, judge
from training_contract.events import Phase
from training_contract.exit_codes import ExitCode
from training_contract.failure import ExceptionEntry, FailureReport
from training_contract.result import FileEntry, TrainingMetrics, TrainingResult
from training_contract.run_spec import BaseModelSpec, DataSpec, RunSpec

SPEC = RunSpec(
    training_run_id="run",
    adapter_name="assistant",
    base_model=BaseModelSpec(base_model_name_or_path="model"),
    peft_type="LORA",
    data=DataSpec(digest="sha256:1", train_row_count=8, heldout_row_count=2),
)
METRICS = TrainingMetrics(
    base_heldout_loss=3.0,
    adapter_heldout_loss=2.0,
    train_loss=2.5,
    global_step=10,
    trained_row_count=8,
    trained_token_count=100,
    heldout_row_count=2,
    too_long_row_count=0,
    trainable_parameter_count=64,
    train_seconds=1.5,
    peak_memory_bytes=1,
)
RESULT = TrainingResult(
    training_run_id="run",
    peft_type="LORA",
    base_model_name_or_path="model",
    data_digest="sha256:1",
    adapter_files={"weights.safetensors": FileEntry(sha256="0", size_bytes=1)},
    metrics=METRICS,
    finished_at="2026-11-23T02:00:00+00:00",
)
REPORT = FailureReport(
    exit_code=61,
    failure_code="gpu_out_of_memory",
    message="CUDA out of memory. Tried to allocate 2 GiB",
    remedy="Halve the batch.",
    phase="training",
    failed_at="2026-11-23T02:00:00+00:00",
    exceptions=(ExceptionEntry(type="torch.OutOfMemoryError", message="CUDA out of memory. Tried to allocate 2 GiB"),),
)
TRACEBACK = 'Traceback (most recent call last):\n  File "train.py", line 7\n    step()\n'


def died(**facts: Any) -> Outcome:
    return judge(Evidence(**{"exit_code": 1, **facts}), SPEC)


def test_a_run_with_all_its_evidence_succeeded() -> None:
    assert judge(Evidence(exit_code=0, result=RESULT), SPEC) == Outcome(succeeded=True)


@pytest.mark.parametrize(
    ("facts", "code", "reason"),
    [
        pytest.param({"result": None}, "no_result", "without a result", id="no result"),
        pytest.param(
            {"result": None, "stderr_end": TRACEBACK + "KeyError: 'x'"},
            "no_result",
            "KeyError",
            id="swallowed exception",
        ),
        pytest.param(
            {"result": None, "result_problem": "r is missing"},
            "result_invalid",
            "r is missing",
            id="breaks the contract",
        ),
        pytest.param(
            {"result": replace(RESULT, training_run_id="other")}, "result_of_another_run", "other", id="another run"
        ),
        pytest.param(
            {"result": replace(RESULT, data_digest="sha256:2")}, "result_of_another_run", "sha256:2", id="other rows"
        ),
        pytest.param(
            {"result": None, "result_problem": f"{'/runs' * 50} is not valid: metrics.train_loss is not finite"},
            "training_diverged",
            ": metrics.train_loss is not finite",
            id="loss not finite",
        ),
        pytest.param(
            {"result": None, "result_problem": "result.json is not valid: metrics.train_seconds is not finite"},
            "result_invalid",
            "metrics.train_seconds is not finite",
            id="another number not finite",
        ),
        pytest.param(
            {"result": replace(RESULT, metrics=replace(METRICS, trained_token_count=0))},
            "nothing_trained",
            "trained_token_count is 0",
            id="all labels masked",
        ),
        pytest.param({"adapter_problems": ("'w' is missing",)}, "adapter_damaged", "'w' is missing", id="file missing"),
        pytest.param(
            {"result": None, "oom_killed": True}, "host_out_of_memory", "for memory", id="child killed for memory"
        ),
        pytest.param({"result": None, "stop_requested": True}, "stopped", "asked to stop", id="stopped"),
    ],
)
def test_exit_code_0_alone_is_no_success(facts: dict[str, Any], code: str, reason: str) -> None:
    outcome = judge(Evidence(**{"exit_code": 0, "result": RESULT, **facts}), SPEC)

    assert not outcome.succeeded
    assert outcome.failure_code == code
    assert reason in outcome.failure_reason


def test_a_whole_result_does_not_make_up_for_a_death() -> None:
    assert not judge(Evidence(exit_code=139, signal=11, result=RESULT), SPEC).succeeded


@pytest.mark.parametrize(
    "code", [code for code in ExitCode if code is not ExitCode.SUCCESS], ids=lambda code: code.name
)
def test_the_trainers_own_exit_codes_are_believed(code: ExitCode) -> None:
    report = replace(REPORT, exit_code=int(code), failure_code=code.failure_code, message="what", exceptions=())

    outcome = died(exit_code=int(code), failure=report)

    assert outcome.failure_code == code.failure_code
    if code is not ExitCode.STOPPED:
        assert "what" in outcome.failure_reason
    assert outcome.remedy == "Halve the batch."


def test_an_exit_code_without_a_report_is_explained_by_the_last_error_line() -> None:
    outcome = died(exit_code=61, stderr_end=TRACEBACK + "torch.OutOfMemoryError: CUDA out of memory.\nbye\n")

    assert outcome.failure_code == "gpu_out_of_memory"
    assert outcome.failure_reason == ("gpu out of memory (exit code 61): torch.OutOfMemoryError: CUDA out of memory.")
    assert "per_device_train_batch_size" in outcome.remedy


def test_a_report_of_another_end_is_not_this_ends_reason() -> None:
    outcome = died(exit_code=139, signal=11, failure=REPORT)

    assert outcome.failure_code == "segmentation_fault"
    assert outcome.remedy != REPORT.remedy


@pytest.mark.parametrize(
    ("facts", "code", "failure_class", "retryable"),
    [
        pytest.param(
            {"exit_code": 137, "signal": 9, "oom_killed": True}, "host_out_of_memory", "platform", False, id="oom"
        ),
        pytest.param(
            {"exit_code": 1, "oom_killed": True}, "host_out_of_memory", "platform", False, id="oom of a child"
        ),
        pytest.param({"exit_code": 137, "oom_killed": False}, "killed_from_outside", "infra", True, id="kill -9"),
        pytest.param({"exit_code": 137, "oom_killed": None}, "killed", "infra", True, id="kill -9, cause not counted"),
        pytest.param({"exit_code": 143}, "terminated_from_outside", "infra", True, id="SIGTERM by someone else"),
        pytest.param({"exit_code": 143, "stop_requested": True}, "stopped", "infra", True, id="SIGTERM by us"),
        pytest.param(
            {"exit_code": 137, "stop_requested": True, "oom_killed": False}, "stopped", "infra", True, id="grace over"
        ),
        pytest.param({"exit_code": 75, "stop_requested": True}, "stopped", "infra", True, id="stopped with checkpoint"),
        pytest.param({"exit_code": 139}, "segmentation_fault", "platform", False, id="SIGSEGV"),
        pytest.param({"exit_code": 134}, "aborted", "platform", False, id="SIGABRT"),
        pytest.param({"exit_code": 132}, "illegal_instruction", "platform", False, id="SIGILL"),
        pytest.param({"exit_code": 135}, "shared_memory_exhausted", "platform", False, id="SIGBUS"),
        pytest.param({"exit_code": 124}, "timed_out", "platform", False, id="timeout"),
        pytest.param({"exit_code": 125}, "container_not_started", "platform", True, id="engine"),
        pytest.param({"exit_code": 126}, "command_not_executable", "platform", False, id="not executable"),
        pytest.param({"exit_code": 127}, "command_not_found", "platform", False, id="not found"),
        pytest.param({"exit_code": 2}, "usage_error", "user", False, id="argparse"),
        pytest.param({"exit_code": None}, "end_not_seen", "infra", True, id="nobody saw it"),
        pytest.param(
            {"exit_code": None, "runner_error": "connection refused"}, "trainer_not_started", "infra", True, id="runner"
        ),
        pytest.param(
            {"exit_code": 1, "runner_error": "python: No module named peft_trainer"},
            "dependency_missing",
            "platform",
            False,
            id="trainer not installed",
        ),
        pytest.param({"exit_code": 1}, "unknown", "platform", True, id="nothing to go by"),
        pytest.param({"exit_code": 3}, "unknown", "platform", True, id="exit code of nobody"),
        pytest.param({"exit_code": 255}, "unknown", "platform", True, id="not a signal"),
    ],
)
def test_the_state_at_the_end_decides(facts: dict[str, Any], code: str, failure_class: str, retryable: bool) -> None:
    outcome = died(**facts)

    assert (outcome.failure_code, outcome.failure_class, outcome.retryable) == (
        code,
        FailureClass(failure_class),
        retryable,
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB", "gpu_out_of_memory"),
        ("RuntimeError: CUDA out of memory.", "gpu_out_of_memory"),
        ("MemoryError", "host_out_of_memory"),
        ("OSError: [Errno 12] Cannot allocate memory", "host_out_of_memory"),
        ("OSError: [Errno 28] No space left on device: '/runs/x'", "disk_full"),
        ("OSError: [Errno 28] No space left on device: '/dev/shm/psm_1'", "shared_memory_exhausted"),
        ("OSError: [Errno 30] Read-only file system: '/runs/x'", "read_only_file_system"),
        ("PermissionError: [Errno 13] Permission denied: '/runs/x'", "permission_denied"),
        ("RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed.", "worker_killed"),
        ("RuntimeError: DataLoader worker (pid(s) 7) exited unexpectedly", "worker_killed"),
        ("requests.exceptions.ConnectTimeout: HTTPSConnectionPool(host='hub', port=443)", "hub_unreachable"),
        ("socket.gaierror: [Errno -2] Name or service not known", "hub_unreachable"),
        ("huggingface_hub.errors.LocalEntryNotFoundError: cannot find the requested files", "model_not_cached"),
        ("huggingface_hub.errors.GatedRepoError: 403 Client Error.", "model_access_denied"),
        ("huggingface_hub.errors.RevisionNotFoundError: 404 Client Error.", "model_not_found"),
        ("ModuleNotFoundError: No module named 'peft'", "dependency_missing"),
        (
            "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
            "shared_library_missing",
        ),
        ("FloatingPointError: the loss became nan at step 7", "training_diverged"),
        ("RuntimeError: can't start new thread", "process_limit_reached"),
        ("ZeroDivisionError: division by zero", "uncaught_exception"),
    ],
)
def test_error_lines_tell_the_cause(line: str, code: str) -> None:
    outcome = died(stderr_end=TRACEBACK + line + "\n")

    assert outcome.failure_code == code
    assert outcome.failure_reason.startswith(line.partition(":")[0])


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory",
        "No space left on device",
        "Killed",
        "Connection refused",
        "No module named 'peft'",
        "loss is nan",
    ],
)
@pytest.mark.parametrize("place", ["stdout_end", "stderr_end"])
def test_words_in_a_row_or_a_warning_are_no_cause(words: str, place: str) -> None:
    printed = f"sample: User: why is it {words}?\nUserWarning: {words}\n"
    real = {"stderr_end": TRACEBACK + "KeyError: 'x'\n"}
    real[place] = printed + real.get(place, "")

    assert died(**real).failure_reason == "KeyError: 'x'"


def test_a_whole_traceback_in_a_training_row_is_no_cause_of_a_silent_death() -> None:
    outcome = died(stdout_end=TRACEBACK + "RuntimeError: CUDA out of memory.\nstep 7\n")

    assert outcome.failure_code == "unknown"


def test_a_traceback_that_ends_stdout_is_believed_when_stderr_is_silent() -> None:
    assert died(stdout_end=TRACEBACK + "RuntimeError: CUDA out of memory.\n").failure_code == "gpu_out_of_memory"


def test_the_trainers_own_chain_goes_before_what_was_printed() -> None:
    report = replace(
        REPORT,
        exit_code=79,
        failure_code="internal_error",
        exceptions=(
            ExceptionEntry(type="RuntimeError", message="could not save"),
            ExceptionEntry(type="OSError", message="[Errno 28] No space left on device"),
        ),
    )

    outcome = died(exit_code=79, failure=report, stderr_end=TRACEBACK + "KeyError: 'x'\n")

    assert outcome.failure_code == "disk_full"
    assert outcome.failure_reason == "OSError: [Errno 28] No space left on device"


def test_neither_the_error_nor_its_root_cause_is_cut_off_by_the_other() -> None:
    cause = "\n\nThe above exception was the direct cause of the following exception:\n\n"
    printed = TRACEBACK + f"KeyError: {'r' * 500}" + cause + TRACEBACK + f"ValueError: {'o' * 500}\n"

    reason = died(stderr_end=printed).failure_reason

    assert reason.startswith("ValueError: ooo")
    assert "(cause: KeyError: rrr" in reason
    assert len(reason) <= MAX_REASON_CHARACTERS


def test_the_unknown_is_said_to_be_unknown_and_shows_the_last_words() -> None:
    outcome = died(exit_code=3, stderr_end="one\nthe last words\n\n")

    assert outcome.failure_reason == "exit code 3, cause unknown; the last it said: the last words"


def test_the_phase_is_told() -> None:
    assert "during loading model" in died(exit_code=137, last_phase=Phase.LOADING_MODEL).failure_reason


def test_a_row_of_ones_own_goes_before() -> None:
    own = read_signatures(
        """
        [[signature]]
        name = "licence_server_away"
        failure_class = "infra"
        retryable = true
        remedy = "Start it."
        match = { exception_types = "LicenceError", phases = "loading_model" }
        """
    )
    evidence = Evidence(
        exit_code=1, last_phase=Phase.LOADING_MODEL, stderr_end=TRACEBACK + "acme.LicenceError: no seat\n"
    )

    assert judge(evidence, SPEC, own).failure_code == "licence_server_away"
    assert judge(replace(evidence, last_phase=Phase.SAVING), SPEC, own).failure_code == "unknown"


@given(
    st.builds(
        Evidence,
        exit_code=st.none() | st.integers(0, 255),
        signal=st.none() | st.integers(1, 64),
        oom_killed=st.none() | st.booleans(),
        stop_requested=st.booleans(),
        last_phase=st.none() | st.sampled_from(Phase),
        failure=st.none() | st.builds(replace, st.just(REPORT), message=st.text(), exit_code=st.integers(0, 255)),
        result_problem=st.text(),
        stdout_end=st.text(),
        stderr_end=st.text().map(lambda text: TRACEBACK + "KeyError: " + text),
        runner_error=st.text(),
    )
)
@settings(deadline=None)
def test_every_failure_has_a_code_a_reason_a_class_and_a_remedy(evidence: Evidence) -> None:
    outcome = judge(evidence, SPEC)

    assert not outcome.succeeded
    assert outcome.failure_code
    assert outcome.failure_reason.isprintable()
    assert 0 < len(outcome.failure_reason) <= MAX_REASON_CHARACTERS
    assert outcome.failure_class is not None
    assert outcome.remedy
