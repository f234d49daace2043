"""The commands that a user runs in a terminal.

command_line  the flags, and what is printed before anything runs
local_test    one job from a file or the command line: its progress shown, its files saved
doctor        what this machine has and what is missing
models        the commands of `python -m src.models`
workflow      the command of `python -m src.workflow`
"""
