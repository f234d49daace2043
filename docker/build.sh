#!/usr/bin/env bash
# Build, test and push the image. Run it from anywhere; docker/BUILD_COMMANDS.md explains each command.
set -euo pipefail

usage() {
    cat << 'EOF'
usage: docker/build.sh [options] [-- ARGUMENT…]     (arguments after -- are passed to the builder)

  --image NAME        name of the image (default: comfyui-worker; to push: YOU/comfyui-worker)
  --tag TAG           its tag (default: the git version; the variant and target are added)
  --target NAME       serverless (default), models or pod
  --variant NAME      cu130 (default), cu128 (older drivers), or cpu: the torch build to install
  --models SET,…      for --target models: the models to bake in
  --secrets FILE      file with HF_TOKEN, R2_… for --models (default: .secrets if it exists)
  --workflow FILE     build with only the node packs that it needs (repeat for several files): they are locked
                      in docker/custom_nodes.lock, and the image must accept the workflow. Needs python3 with
                      requirements.txt
  --with-models       with --workflow: bake in its models too (the target is then models)
  --custom-nodes A,B  names or groups of docker/custom_nodes.lock (default: default; '' for none)
  --platform NAME     default: linux/amd64, which RunPod runs
  --builder NAME      docker (default) or buildah
  --no-smoke-test     do not run a job in the new image
  --push              push the image if everything succeeded
  --dry-run           print the commands only
EOF
}

fail() {
    printf 'build.sh: %s\n' "$*" >&2
    exit 1
}

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
image=comfyui-worker tag='' target=serverless variant=cu130 models='' custom_nodes=default has_custom_nodes=no
secrets=$repository/.secrets platform=linux/amd64 builder=docker
smoke_test=yes push=no dry_run=no
more=() failed='' workflows=() with_models=no

value() { [[ $# -ge 2 ]] || fail "$1 needs a value"; }

while (($#)); do
    case $1 in
        --image) value "$@"; image=$2; shift 2 ;;
        --tag) value "$@"; tag=$2; shift 2 ;;
        --target) value "$@"; target=$2; shift 2 ;;
        --variant) value "$@"; variant=$2; shift 2 ;;
        --models) value "$@"; models=$2; shift 2 ;;
        --secrets) value "$@"; secrets=$2; shift 2; [[ -f $secrets ]] || fail "there is no file $secrets" ;;
        --custom-nodes) value "$@"; custom_nodes=$2 has_custom_nodes=yes; shift 2 ;;
        --workflow) value "$@"; workflows+=("$2"); [[ -f $2 ]] || fail "there is no file $2"; shift 2 ;;
        --with-models) with_models=yes; shift ;;
        --platform) value "$@"; platform=$2; shift 2 ;;
        --builder) value "$@"; builder=$2; shift 2 ;;
        --no-smoke-test) smoke_test=no; shift ;;
        --push) push=yes; shift ;;
        --dry-run) dry_run=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        --) shift; more=("$@"); break ;;
        *) usage >&2; fail "there is no option $1" ;;
    esac
done

if [[ $with_models == yes ]]; then
    ((${#workflows[@]})) || fail "--with-models requires --workflow"
    [[ $target == serverless && -z $models ]] || fail "--with-models cannot be combined with --target or --models"
    target=models models=workflow
fi

case $target in
    serverless | pod) [[ -z $models ]] || fail "--models requires --target models" ;;
    models) [[ -n $models ]] || fail "--target models needs --models SET,… (python -m src.models sets lists them)" ;;
    *) fail "--target must be serverless, models or pod, not '$target'" ;;
esac
case $variant in
    cu130 | cu128 | cpu) torch_index=https://download.pytorch.org/whl/$variant ;;
    *) fail "--variant must be cu130, cu128 or cpu, not '$variant'" ;;
esac

run() {
    printf '+' >&2
    printf ' %q' "$@" >&2
    printf '\n' >&2
    [[ $dry_run == yes ]] || "$@"
}

# --- What workflows need --------------------------------------------------------------------------------

# Lock their node packs, and with --with-models their models, before anything is built.
lock_workflows() {
    local names arguments=(needs --lock --write "$repository/docker/custom_nodes.lock")
    [[ $with_models == no ]] || arguments+=(--write-models "$repository/docker/models.json")
    names=$(cd "$repository" && run python3 -m src.workflow "${arguments[@]}" "${workflows[@]}") \
        || fail "not everything that the workflow needs could be locked; nothing was built"
    [[ $dry_run == no ]] || names=PACKS
    if [[ $has_custom_nodes == yes && -n $custom_nodes ]]; then names=$custom_nodes${names:+,$names}; fi
    custom_nodes=$names
}

if ((${#workflows[@]})); then
    for number in "${!workflows[@]}"; do
        workflows[number]=$(cd "$(dirname "${workflows[number]}")" && pwd)/$(basename "${workflows[number]}")
    done
    lock_workflows
fi

# --- Checks before the build ---------------------------------------------------------------------------

git_version() {
    git -C "$repository" describe --tags --always --dirty --match 'v*' 2> /dev/null || echo unversioned
}

check_builder() {
    case $builder in
        docker)
            command -v docker > /dev/null || fail "docker not found: install Docker (https://docs.docker.com/get-docker/), or use --builder buildah"
            docker info > /dev/null 2>&1 || fail "the Docker engine does not respond: start it (Docker Desktop, or: sudo systemctl start docker), or use --builder buildah"
            docker buildx version > /dev/null 2>&1 || fail "docker has no buildx: install the plugin docker-buildx"
            ;;
        buildah)
            command -v buildah > /dev/null || fail "buildah not found: apt-get install buildah"
            ;;
        *) fail "--builder must be docker or buildah, not '$builder'" ;;
    esac
}

# Check that we are logged in to the image's registry: better before an hour of building than after it.
check_login() {
    local registry=docker.io name=${image%%/*} file
    [[ $image == */* ]] || fail "to push, give the image's owner: --image YOU/$image"
    if [[ $name == *.* || $name == *:* || $name == localhost ]]; then registry=$name; fi
    if [[ $builder == buildah ]]; then
        buildah login --get-login "$registry" > /dev/null 2>&1 || fail "not logged in to $registry: buildah login $registry"
        return
    fi
    file=${DOCKER_CONFIG:-$HOME/.docker}/config.json
    grep -q -E "\"(https://)?(index\.)?${registry//./\\.}(/v1/)?\"|\"credsStore\"" "$file" 2> /dev/null \
        || fail "not logged in to $registry: docker login $registry"
}

check_tree() {
    [[ $version != unversioned || -n $tag ]] || fail "to push, build from a git checkout, whose version is the tag, or give --tag"
    [[ -z $(git -C "$repository" status --porcelain 2> /dev/null) ]] \
        || fail "there are modified or uncommitted files (git status): commit or stash them, so that the tag can be built again"
}

version=$(git_version)
[[ $dry_run == yes ]] || check_builder
if [[ $push == yes && $dry_run == no ]]; then
    check_tree
    check_login
fi
[[ -n $tag ]] || tag=$version-$variant
[[ $target == serverless || $tag == *-"$target" ]] || tag=$tag-$target
name=$image:$tag

# --- Build ---------------------------------------------------------------------------------------------

arguments=(
    --file "$repository/docker/Dockerfile" --target "$target" --platform "$platform" --tag "$name"
    --build-arg "TORCH_INDEX_URL=$torch_index" --build-arg "CUSTOM_NODES=$custom_nodes"
    --build-arg "VERSION=$version" --build-arg "REVISION=$(git -C "$repository" rev-parse HEAD 2> /dev/null || echo unknown)"
)
[[ -z $models ]] || arguments+=(--build-arg "MODELS=$models")
[[ ! -f $secrets ]] || arguments+=(--secret "id=secrets,src=$secrets")

if [[ $builder == docker ]]; then
    run docker buildx build --load --provenance=false "${arguments[@]}" ${more[@]+"${more[@]}"} "$repository"
else
    run buildah build --layers "${arguments[@]}" ${more[@]+"${more[@]}"} "$repository"
fi

# --- Smoke test: a job without models, on the CPU -------------------------------------------------------

if [[ $smoke_test == yes ]]; then
    job=(--test_input examples/smoke_workflow.json --output /tmp/output)
    if [[ $builder == docker ]]; then
        run docker run --rm --platform "$platform" --env MODE_TO_RUN=test --env COMFYUI_ARGS=--cpu "$name" "${job[@]}" \
            || fail "the image $name was built, but its smoke test failed; nothing was pushed"
    else
        container=$([[ $dry_run == yes ]] || buildah from "$name")
        run buildah run --env MODE_TO_RUN=test --env COMFYUI_ARGS=--cpu "${container:-CONTAINER}" -- /worker/src/start.sh "${job[@]}" \
            || failed=yes
        [[ $dry_run == yes ]] || buildah rm "$container" > /dev/null
        [[ -z $failed ]] || fail "the image $name was built, but its smoke test failed; nothing was pushed"
    fi
fi

# --- The workflows, by the ComfyUI of the new image -----------------------------------------------------

if ((${#workflows[@]})); then
    mounts=() inside=()
    for number in "${!workflows[@]}"; do
        inside+=("/tmp/workflows/$number/$(basename "${workflows[number]}")")
        mounts+=(--volume "${workflows[number]}:${inside[number]}:ro")
    done
    check=(-m src.workflow check "${inside[@]}")
    if [[ $builder == docker ]]; then
        run docker run --rm --platform "$platform" "${mounts[@]}" --env COMFYUI_ARGS=--cpu --entrypoint /opt/worker/bin/python \
            "$name" "${check[@]}" || failed=yes
    else
        container=$([[ $dry_run == yes ]] || buildah from "$name")
        run buildah run "${mounts[@]}" --env COMFYUI_ARGS=--cpu "${container:-CONTAINER}" -- /opt/worker/bin/python "${check[@]}" \
            || failed=yes
        [[ $dry_run == yes ]] || buildah rm "$container" > /dev/null
    fi
    [[ -z $failed ]] || fail "the image $name was built, but its ComfyUI does not accept the workflow; nothing was pushed"
fi

if [[ $push == yes ]]; then
    run "$builder" push "$name" || fail "the push of $name failed: does the repository exist, and do you have write access?"
fi
printf '%s\n' "$name"
