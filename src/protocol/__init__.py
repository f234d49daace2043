"""ComfyUI's own HTTP and websocket protocol, served over a given executor.

executor  the interface of what runs the prompts, and its data types
report    the events and the history entry of one run
queue     the pending prompts, the running one, and the history
bodies    what clients send, read and checked
clients   the websocket connections, by client id
server    the routes
"""
