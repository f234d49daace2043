"""ComfyUI as a subprocess, and as a server that is asked.

folders    the folders that one process has to itself
install    where ComfyUI is, what its version accepts, the command that starts it
process    the subprocess: start, ready, alive, log tail, stop, restart
http       HTTP with one server on this machine, over connections that stay open
client     ComfyUI's HTTP routes, one method each
events     ComfyUI's websocket: what wakes a wait and carries progress
engine     process, client and events as one: boot, restart, leave
record     what is known of a prompt that ended (pure)
rejection  ComfyUI's "no" and its failures -> our errors (pure)
preflight  does this ComfyUI know these nodes, does it take these values?
prompt     one prompt: queue it, wait for its history entry, stop it
recovery   restart, free memory, run once more: what an engine's fault does to a job
"""
