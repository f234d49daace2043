"""A RunPod endpoint on this machine: the same routes, shapes and rules, with real SDK workers behind it.

What a client learns here holds in the cloud; only host and key differ. Facts: RunPod's documentation of queue
endpoints, and what its SDK 1.12 was seen to send and to expect.

    jobs           the queue: who waits, who runs where, how each ended
    client_routes  what callers use: run, runsync, status, cancel, stream, health, purge-queue, retry
    worker_routes  what the SDK in a worker uses: job-take, job-done, job-stream, job-stop, ping
    workers        the worker processes
    server         all of it as one HTTP server
"""
