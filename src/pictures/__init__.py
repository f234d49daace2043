"""Pillow's work: pictures are checked and encoded in processes that can be ended, with bounded memory.

    metadata  the workflow in a picture's metadata: written and removed
    checking  is this a picture that can be decoded, and not too large?
    encoding  a picture in another format or size
    preview   a sampler's preview, small enough for the progress of a job
    helper    the processes: a call into one, ended when its time is over
    child     such a process

A library decodes or encodes in one long call that cannot be interrupted, and takes as much memory as the picture of a
caller needs.
"""
