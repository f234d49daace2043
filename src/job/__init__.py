"""One job, from its input to its answer.

fields   the fields of a job's input, and what is said of one that does not fit
request  job dict -> checked, frozen Request
info     what a worker can tell about itself
run      one job on a booted ComfyUI
handler  what RunPod calls with each job
"""
