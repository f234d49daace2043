"""ComfyUI's own HTTP and websocket protocol, served over an executor that is handed in.

executor  what runs the prompts: the interface, and what goes through it
report    the events and the history entry of one run
queue     the prompts that wait, the one that runs, and the history
clients   the websockets, by client id
server    the routes
"""
