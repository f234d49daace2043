"""ComfyUI's own API and editor on this machine; the prompts run as jobs of a RunPod endpoint.

endpoint      the endpoint's routes: run, status, cancel
node_classes  the classes and models of its workers, asked for once and kept
checking      what is wrong with a prompt for sure, before it costs a worker
input_files   the files that a prompt names, and how they travel with its job
results       the files of an answer, saved under the names that ComfyUI would give them
store         the queue and the history in a file
executor      one prompt as one job: submit, follow, report
user_data     settings and saved workflows
images        uploads, masks and /view
safe_files    which files a browser may read, and with which headers
input_lists   the lists of input files in the node classes
jobs          the queue and the history for the editor's panels
frontend      the editor's own files, stock templates, and routes of little interest
server        all of it as one HTTP server
"""
