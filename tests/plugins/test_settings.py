"""Settings: one table, validated once, all problems together."""

from __future__ import annotations

import dataclasses

import pytest

from peft_retraining.settings import Runner, Settings, SettingsInvalid, make_settings, param_names, param_schema


def test_the_defaults_are_the_seeds_preset() -> None:
    settings = Settings()

    assert settings.base_model_name_or_path == "google/flan-t5-small"
    assert settings.max_train_rows == 2000
    assert (settings.labelled_table, settings.prompt_column) == ("ask_ai_queries", "original_query")
    assert settings.runner is Runner.DOCKER


def test_a_value_in_the_dag_file_wins_over_the_configuration() -> None:
    settings = make_settings({"min_new_rows": "7", "seed": "1"}, min_new_rows=9)

    assert (settings.min_new_rows, settings.seed) == (9, 1)


def test_an_empty_text_in_the_configuration_means_not_set() -> None:
    assert make_settings({"cpu_threads": "", "min_new_rows": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("allow_model_download", "True", True),
        ("gpu", "never", "never"),
        ("cpu_threads", "2", 2),
        ("learning_rate", "1e-4", 1e-4),
        ("peft_settings", '{"r": 8}', {"r": 8}),
    ],
)
def test_text_becomes_the_settings_own_type(name: str, text: str, value: object) -> None:
    assert getattr(make_settings({name: text}), name) == value


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("min_new_rows", 0, "at least 1"),
        ("min_new_rows", "many", "whole number"),
        ("min_new_rows", 1.5, "whole number"),
        ("min_new_rows", True, "number"),
        ("min_new_rows", None, "a value is needed"),
        ("learning_rate", float("nan"), "finite"),
        ("learning_rate", 0, "more than 0"),
        ("adapter_name", "../etc", "matches"),
        ("runner", "podman", "docker, process"),
        ("peft_settings", "[1]", "JSON object"),
        ("allow_model_download", "perhaps", "true or false"),
        ("base_model_name_or_path", "", "characters"),
        ("prompt_column", 3, "text"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(name: str, value: object, words: str) -> None:
    with pytest.raises(SettingsInvalid, match=words) as caught:
        make_settings({}, **{name: value})

    assert name in str(caught.value)
    assert caught.value.remedy


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingsInvalid) as caught:
        make_settings({"nonsense": "1", "seed": "-1"}, gpu="sometimes")

    assert len(caught.value.problems) == 3


def test_a_run_overrides_only_what_is_a_param() -> None:
    settings = Settings().with_params({"learning_rate": 0.5, "runs_directory": "/elsewhere", "note": "x"})

    assert settings.learning_rate == 0.5
    assert settings.runs_directory == Settings().runs_directory


def test_every_setting_says_what_it_is_for() -> None:
    assert all(item.metadata["description"].endswith(".") for item in dataclasses.fields(Settings))


def test_every_default_obeys_its_own_bounds() -> None:
    values = {item.name: getattr(Settings(), item.name) for item in dataclasses.fields(Settings)}

    assert make_settings({}, **values) == Settings()


def test_a_wrong_peft_type_in_the_settings_leaves_the_dag_parsable() -> None:
    assert "NO_SUCH_TYPE" in param_schema("peft_type", "NO_SUCH_TYPE")["enum"]
    assert set(param_names()) >= {"base_model_name_or_path", "peft_type", "min_new_rows", "learning_rate"}
