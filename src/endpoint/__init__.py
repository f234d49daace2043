"""A RunPod endpoint on this machine: the same routes, shapes and rules, with real SDK workers behind it.

A client that works with it works in the cloud; only host and key differ. Sources: RunPod's documentation of
queue-based endpoints, and what its SDK 1.12 was observed to send and to expect.

    jobs           the queue: which jobs wait, which worker runs which, how each ended
    client_routes  what clients use: run, runsync, status, cancel, stream, health, purge-queue, retry
    worker_routes  what the SDK in a worker uses: job-take, job-done, job-stream, job-stop, ping
    workers        the worker processes
    openapi        the description of the client routes, with the schemas of jobs
    server         all of it as one HTTP server
"""
