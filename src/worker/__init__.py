"""RunPod's side of the worker.

boot_timeline    where the seconds of a cold start go
fitness          is this machine fit to take jobs?
progress         the progress that is sent to RunPod while a job runs
warm_up          the workflow that runs before the first job is taken
job_take         jobs from RunPod's queue, read entry by entry
result_delivery  results on their way to RunPod, tried until they are accepted
jobs_in_hand     each job until it is answered, and which of them hold a slot
sdk_loop         RunPod's own loop over jobs, patched where it loses some, or time
start            from the start of ComfyUI to RunPod's jobs
"""
