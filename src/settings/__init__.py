"""The settings of the worker: each is an environment variable, read once into one frozen object.

settings     the table: variable, default, meaning, parser
values       what the text of a variable may be
bucket       what a bucket needs to be reached
environment  reads the table from the environment; what child processes get of it
"""

from .bucket import BucketConfig, endpoint_and_bucket
from .environment import (
    child_environment,
    may_be_secret,
    on_runpod,
    own_environment,
    read_settings,
    tame_sdk,
)
from .settings import Delivery, ImageFormat, Settings, variable, written

__all__ = [
    "BucketConfig",
    "Delivery",
    "ImageFormat",
    "Settings",
    "child_environment",
    "endpoint_and_bucket",
    "may_be_secret",
    "on_runpod",
    "own_environment",
    "read_settings",
    "tame_sdk",
    "variable",
    "written",
]
