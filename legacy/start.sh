#!/usr/bin/env bash
# The Pod: ComfyUI with its editor on 8188, JupyterLab on 8888 if there is a password, SSH if there is a key.
# What it reads is in legacy/README.md. src/start.sh becomes this with MODE_TO_RUN=pod.
set -euo pipefail

worker=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
workspace=${WORKSPACE_DIR:-/workspace}
run=${RUN_DIR:-/run/pod}
comfyui=${COMFYUI_PATH:-/comfyui}
comfyui_python=${COMFYUI_PYTHON:-python3}
worker_python=${WORKER_PYTHON:-python3}
stop_seconds=8 # that the services have to end after SIGTERM

services=()

say() { printf 'pod: %s\n' "$*"; }

# --- Before the services ---------------------------------------------------------------------------------

prepare_workspace() {
    mkdir -p "$workspace"/ComfyUI/{custom_nodes,input,output,user} "$workspace"/{models,logs} || {
        say "$workspace cannot be written: attach a volume there, or set WORKSPACE_DIR" >&2
        exit 1
    }
    mkdir -p "$run"
    chmod 700 "$run"
    export HF_HOME=${HF_HOME:-$workspace/.cache/huggingface} PIP_CACHE_DIR=${PIP_CACHE_DIR:-$workspace/.cache/pip}
}

# Everything that is said goes to the container's log and to the volume, which outlives it.
keep_log() {
    local log=$workspace/logs/pod.log
    if [[ -f $log && $(stat -c %s "$log") -gt 50000000 ]]; then mv "$log" "$log.1"; fi
    exec > >(trap '' INT TERM; exec tee -a "$log") 2>&1
}

# Whether a variable of that name may hold a secret.
is_secret() {
    [[ ${1^^} =~ ^(R2|S3|BUCKET|AWS)_|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|KEY|_(PAT|PASS|DSN|AUTH)$ ]] \
        || [[ $1 == DATABASE_URL ]]
}

# Shells that come by SSH see the environment of the container (the image's profile reads it), but not its secrets.
keep_environment() {
    local name
    while read -r name; do
        case $name in
            PWD | OLDPWD | SHLVL | HOME | _) ;;
            *) is_secret "$name" || printf 'export %s=%q\n' "$name" "${!name}" ;;
        esac
    done < <(compgen -e) > "$run/environment"
}

# Runs a command and waits for it, so that SIGTERM is heard meanwhile.
attended() {
    local process status=0
    "$@" &
    process=$!
    services+=("$process")
    wait "$process" || status=$?
    unset "services[-1]"
    return "$status"
}

hook() {
    [[ -f $1 ]] || return 0
    say "running $1"
    attended bash "$1" || say "$1 ended with $?; going on"
}

# What custom nodes of the volume need is gone with each new container; pip's cache on the volume makes it quick.
install_node_requirements() {
    local requirements constraint=()
    if [[ -f /opt/constraints.txt ]]; then constraint=(--constraint /opt/constraints.txt); fi
    for requirements in "$workspace"/ComfyUI/custom_nodes/*/requirements.txt; do
        [[ -f $requirements ]] || continue
        attended "$comfyui_python" -m pip install --quiet -r "$requirements" "${constraint[@]}" \
            || say "$requirements cannot be installed; its custom node may be missing"
    done
}

# --- The services ----------------------------------------------------------------------------------------

service() {
    local name=$1
    shift
    "$@" &
    services+=($!)
    say "started $name (process $!)"
}

start_ssh() {
    if [[ -z ${PUBLIC_KEY:-} ]]; then
        say "no SSH: PUBLIC_KEY is not set"
        return 0
    fi
    printf '%s\n' "$PUBLIC_KEY" > "$run/authorized_keys"
    chmod 600 "$run/authorized_keys"
    [[ -f $run/host_key ]] || ssh-keygen -q -t ed25519 -N '' -f "$run/host_key"
    cat > "$run/sshd_config" << EOF
Port ${SSH_PORT:-22}
HostKey $run/host_key
PidFile none
AuthorizedKeysFile $run/authorized_keys
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
EOF
    mkdir -p /run/sshd
    service "sshd on port ${SSH_PORT:-22}" "$(command -v sshd)" -D -e -f "$run/sshd_config"
}

start_jupyter() {
    if [[ -z ${JUPYTER_PASSWORD:-} ]]; then
        say "no JupyterLab: JUPYTER_PASSWORD is not set"
        return 0
    fi
    local port=${JUPYTER_PORT:-8888} origin=()
    if [[ -n ${RUNPOD_POD_ID:-} ]]; then origin=("--ServerApp.allow_origin=https://$RUNPOD_POD_ID-$port.proxy.runpod.net"); fi
    JUPYTER_TOKEN=$JUPYTER_PASSWORD service "JupyterLab on port $port" \
        "${JUPYTER:-/opt/jupyter/bin/jupyter}" lab --ip 0.0.0.0 --port "$port" --no-browser --allow-root \
        --ServerApp.root_dir="$workspace" --ServerApp.allow_remote_access=True ${origin[@]+"${origin[@]}"}
}

start_models() {
    [[ -n ${MODELS:-} && ${DOWNLOAD_MODELS:-} =~ ^(1|[Tt][Rr][Uu][Ee]|[Yy][Ee][Ss]|[Oo][Nn])$ ]] || return 0
    local sets
    IFS=, read -ra sets <<< "${MODELS// /}"
    (
        cd "$worker"
        exec "$worker_python" -m src.models fetch "${sets[@]}" --folder "$workspace/models"
    ) &
    services+=($!)
    say "fetching $MODELS into $workspace/models"
}

# Starts ComfyUI again when it ends, later each time that it ends soon. It is open to whoever knows its address, so it
# gets no secret but those that COMFYUI_PASS_ENV names.
# shellcheck disable=SC2329  # `service` calls it
keep_comfyui() {
    local process='' delay=1 began status name arguments=()
    trap '[[ -z $process ]] || { kill -TERM "$process" 2> /dev/null; wait "$process"; }; exit 0' TERM
    mapfile -t arguments < <(xargs -r -n 1 printf '%s\n' <<< "${COMFYUI_ARGS:-}")
    cat > "$run/custom_nodes.yaml" << EOF
workspace_nodes:
  base_path: $workspace/ComfyUI
  custom_nodes: custom_nodes
  is_default: true
EOF
    while read -r name; do
        if is_secret "$name" && [[ ,${COMFYUI_PASS_ENV:-}, != *,$name,* ]]; then unset "$name"; fi
    done < <(compgen -e)
    while true; do
        began=$SECONDS status=0
        (
            cd "$comfyui"
            exec "$comfyui_python" main.py --listen "${COMFYUI_LISTEN:-0.0.0.0}" --port "${COMFYUI_PORT:-8188}" \
                --disable-auto-launch --extra-model-paths-config "$worker/src/extra_model_paths.yaml" \
                "$run/custom_nodes.yaml" --input-directory "$workspace/ComfyUI/input" \
                --output-directory "$workspace/ComfyUI/output" --user-directory "$workspace/ComfyUI/user" \
                ${arguments[@]+"${arguments[@]}"}
        ) &
        process=$!
        wait "$process" || status=$?
        if ((SECONDS - began > 60)); then delay=1; fi
        say "ComfyUI ended with $status; starting it again in $delay s"
        sleep "$delay" &
        process=$!
        wait "$process" || true
        delay=$((delay * 2 > 60 ? 60 : delay * 2))
    done
}

stop() {
    local deadline=$((SECONDS + stop_seconds)) running=("${services[@]}")
    trap '' TERM INT
    say "stopping"
    kill -TERM "${services[@]}" 2> /dev/null || true
    while ((${#running[@]} && SECONDS < deadline)); do
        sleep 0.1
        mapfile -t running < <(for service in "${services[@]}"; do ! kill -0 "$service" 2> /dev/null || echo "$service"; done)
    done
    if ((${#running[@]})); then kill -KILL "${running[@]}" 2> /dev/null || true; fi
    exit 0
}

prepare_workspace
keep_log
keep_environment
trap stop TERM INT
hook "${PRE_START_HOOK:-/pre_start.sh}"
start_ssh
start_jupyter
hook "$workspace/start_user.sh"
install_node_requirements
start_models
service "ComfyUI on port ${COMFYUI_PORT:-8188}" keep_comfyui
hook "${POST_START_HOOK:-/post_start.sh}"
wait "${services[-1]}" || true
stop
