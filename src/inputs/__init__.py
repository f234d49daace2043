"""The files that a job brings.

input_file  one, as the job's input names it
checks      is this a file that ComfyUI may be given: name, base64, content?
files       all of them: fetched, checked, put where ComfyUI finds them
"""
