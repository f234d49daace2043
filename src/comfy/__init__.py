"""ComfyUI as a subprocess, and the client of its HTTP and websocket protocol.

folders       the folders that one process has to itself
install       where ComfyUI is, what its version accepts, the command that starts it
boot_log      what its log says of its boot: packs that failed, fast paths
process       the subprocess: start, ready, alive, log tail, stop
http          HTTP with one server on this machine, over connections that stay open
client        ComfyUI's HTTP routes, one method each
events        ComfyUI's websocket: it wakes a wait and carries progress
engine        process, client and events as one: boot, restart, end
record        what is known of a prompt that ended (pure)
refusal       ComfyUI's own words about a prompt that it refused, made fit for a caller (pure)
rejection     ComfyUI's rejections and failures -> our errors (pure)
preflight     does this ComfyUI know these nodes, does it take these values?
run_limits    what may end the wait for a prompt early
liveness      does ComfyUI answer, and if not, is it busy or hung?
history_wait  the wait for the history entry of one prompt
prompt        one prompt: queue it, wait for its history entry, stop it
recovery      restart, free memory, run once more: what an engine's fault means for a job
"""
