"""One job, from its input to its answer.

fields   the fields of a job's input, and the messages for values that do not fit
request  job dict -> checked, frozen Request
json_schemas  JSON Schemas of a job's input and output
examples  example inputs of the stored workflows
info     what a worker reports about itself
info_parts  the large parts of that, which a job has to name
one_file the one file that a job brings and the one that its workflow misses
prepare  what a job asks for besides its run: bucket, delivery, encoding, extra data
check    checks of a job without running it
editable what a person may want to change in a job's workflow
turn     a job's turn at ComfyUI, and clearing up after it
run      one job on a booted ComfyUI: overrides, files, run, gather, deliver, answer
handler  what RunPod calls with each job
"""
