"""The settings of the worker: each is an environment variable, read once into one frozen object.

settings     the table: variable, default, meaning, parser
values       parsers for the text of a variable
node_packs   which node packs are meant
bucket       the connection settings of a bucket
stored_workflows  stored workflows in a variable
environment  reads the table from the environment; the environment of child processes
"""

from .bucket import BucketConfig, endpoint_and_bucket
from .environment import (
    LOCAL_ENDPOINT,
    SECRETS_FILE,
    child_environment,
    configure_sdk_environment,
    guarded_programs,
    harmless_environment,
    local_worker_environment,
    may_be_secret,
    on_local_endpoint,
    on_runpod,
    read_settings,
    warnings_about_variables,
)
from .node_packs import PackSource, read_source
from .settings import AnswerFormat, Delivery, ImageFormat, Settings, format_value, variable

__all__ = [
    "LOCAL_ENDPOINT",
    "SECRETS_FILE",
    "AnswerFormat",
    "BucketConfig",
    "Delivery",
    "ImageFormat",
    "PackSource",
    "Settings",
    "child_environment",
    "configure_sdk_environment",
    "endpoint_and_bucket",
    "format_value",
    "guarded_programs",
    "harmless_environment",
    "local_worker_environment",
    "may_be_secret",
    "on_local_endpoint",
    "on_runpod",
    "read_settings",
    "read_source",
    "variable",
    "warnings_about_variables",
]
