"""What a person starts in a terminal.

command_line  the flags, and what is said before anything runs
test_job      one job from a file or the command line, watched, what it made saved
doctor        what is there and what is missing on this machine
"""
