"""The environment is read once, and a value that cannot be used says so."""

from __future__ import annotations

from dataclasses import fields

import pytest

from src.errors import InvalidSetting
from src.settings import Settings, child_environment, read_settings, variable


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read_settings({}) == Settings()
    assert read_settings({variable(setting): " " for setting in fields(Settings)}) == Settings()


def test_values_are_parsed() -> None:
    read = read_settings(
        {"JOB_TIMEOUT": "1.5", "SAVE_METADATA": "Yes", "COMFYUI_CACHE": "LRU:4", "COMFYUI_PASS_ENV": "A, B"}
    )
    assert (read.job_timeout, read.save_metadata, read.comfyui_cache, read.comfyui_pass_env) == (
        1.5,
        True,
        "lru:4",
        ("A", "B"),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JOB_TIMEOUT", "0"),
        ("JOB_TIMEOUT", "nan"),
        ("COMFYUI_BOOT_TIMEOUT", "soon"),
        ("RESULT_LIMIT_MB", "-1"),
        ("COMFYUI_PORT", "70000"),
        ("COMFYUI_PORT", "-1"),
        ("COMFYUI_CACHE", "lru"),
        ("COMFYUI_CACHE", "ram:"),
        ("COMFYUI_CACHE", "ram:much"),
        ("SAVE_METADATA", "perhaps"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_a_bad_value_names_the_variable_and_what_would_be_right(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=f"{name} must be .*, not '{value}'"):
        read_settings({name: value})


def test_comfyui_sees_no_secret_unless_it_is_passed_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = (
        *("RUNPOD_AI_API_KEY", "RUNPOD_WEBHOOK_GET_JOB", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "R2_SECRET_ACCESS_KEY"),
        *(
            "R2_ENDPOINT",
            "BUCKET_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "COMFY_ORG_API_KEY",
            "CIVITAI_TOKEN",
            "MY_PASSWORD",
        ),
    )
    for name in secrets:
        monkeypatch.setenv(name, "secret-value")
    monkeypatch.setenv("HF_HOME", "/models")
    seen = child_environment(Settings())
    assert not set(secrets) & seen.keys()
    assert "secret-value" not in seen.values()
    assert seen["HF_HOME"] == "/models"
    assert "PATH" in seen
    assert child_environment(Settings(comfyui_pass_env=("CIVITAI_TOKEN",)))["CIVITAI_TOKEN"] == "secret-value"
