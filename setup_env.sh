#!/usr/bin/env bash
# Install everything Parallax needs into .venv: the pinned libraries of requirements.txt, the project itself
# (editable) and, through apt-get, the system libraries that Open3D loads.
#
#   ./setup_env.sh                     torch as the package index gives it: runs on CUDA and on the CPU
#   ./setup_env.sh --cpu               the smaller build of torch without CUDA
#   ./setup_env.sh --cuda              also the optional CUDA extensions, each tried on its own
#   PYTHON=python3.12 ./setup_env.sh   another interpreter (3.11 or newer)
#
# The choice is remembered: a later run without a flag keeps it. When nothing changed a run takes a moment;
# a damaged .venv is rebuilt. Exit code 2 means that the user has something to do, and the last line says what.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")"
unset PYTHONHOME PYTHONPATH # they would reach into .venv
PATH=${PATH//"$PWD/.venv/bin:"/} # an activated .venv must not build itself

readonly STAMP=.venv/parallax-setup
readonly MINIMUM=3.11

say() { printf '%s\n' "setup: $*" >&2; }
die() {
    printf '%s\n' "error: $*" >&2
    exit 2
}

# --- what was asked for -----------------------------------------------------------------------------------

asked=""
for argument in "$@"; do
    case "$argument" in
    --cpu | --cuda)
        [ -z "$asked" ] || [ "$asked" = "${argument#--}" ] || die "--cpu and --cuda exclude each other: choose one"
        asked=${argument#--}
        ;;
    -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' setup_env.sh
        exit 0
        ;;
    *) die "unknown argument '$argument': ./setup_env.sh --help lists the flags" ;;
    esac
done

# The stamp has two lines: build and digest of what was installed; where it was (scripts in .venv/bin hold the path).
before="" place=$PWD
if [ -f "$STAMP" ]; then { read -r before _ && read -r place; } <"$STAMP" || true; fi
build=${asked:-${before:-default}}
digest=$(cat requirements.txt pyproject.toml setup_env.sh | sha256sum | cut -d' ' -f1)

# --- the interpreter --------------------------------------------------------------------------------------

check_python() {
    command -v "$1" >/dev/null || die "$1 is not there: install Python $MINIMUM or newer, or name one with PYTHON=..."
    "$1" - "$MINIMUM" <<'END' || die "$1 is $("$1" --version 2>&1), Parallax needs $MINIMUM or newer: PYTHON=python3.12 ./setup_env.sh names another"
import sys
sys.exit(list(sys.version_info[:2]) < [int(part) for part in sys.argv[1].split(".")])
END
    "$1" -c 'import venv, ensurepip' 2>/dev/null || die "$1 has no venv module: sudo apt-get install -y python3-venv"
}

# The interpreter that a .venv is made from (or that a plain interpreter is).
base_of() { "$1" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))' 2>/dev/null; }

# PYTHON if given, else the one .venv was made from, else python3.
choose_python() {
    local base
    if [ -n "${PYTHON:-}" ]; then
        echo "$PYTHON"
    elif base=$(base_of .venv/bin/python) && [ -x "$base" ]; then
        echo "$base"
    else
        echo python3
    fi
}

# --- system libraries -------------------------------------------------------------------------------------

missing_packages() { # what Open3D's wheel links against but does not bring
    [ "$(uname -s)" = Linux ] || return 0
    "$python" - <<'END'
import ctypes

needed = {
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libGL.so.1": "libgl1",
    "libgomp.so.1": "libgomp1",
    "libEGL.so.1": "libegl1",
    "libX11.so.6": "libx11-6",
}
for library, package in needed.items():
    try:
        ctypes.CDLL(library)
    except OSError:
        print(package)
END
}

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

install_system_libraries() {
    local packages
    mapfile -t packages < <(missing_packages)
    [ "${#packages[@]}" -gt 0 ] || return 0
    local by_hand="sudo apt-get update && sudo apt-get install -y ${packages[*]}"
    command -v apt-get >/dev/null || die "Open3D needs the libraries of these Debian packages: ${packages[*]}; install your system's equivalents"
    [ "$(id -u)" -eq 0 ] || die "Open3D needs system libraries that only root can install: $by_hand"
    say "installing ${packages[*]} with apt-get"
    apt_install "${packages[@]}" </dev/null || die "apt-get could not install what Open3D needs: $by_hand"
    [ -z "$(missing_packages)" ] || die "still missing after apt-get: $(missing_packages | tr '\n' ' ')"
}

# --- the environment --------------------------------------------------------------------------------------

# Are the pinned versions there, and every file of every library? Half a second for 40 000 files.
healthy() {
    .venv/bin/python -I - <<'END'
import re
import sys
from importlib import metadata
from pathlib import Path


def recorded(distribution):
    lines = (distribution.read_text("RECORD") or "").splitlines()
    files = (line.rsplit(",", 2)[0] for line in lines if not line.startswith('"'))
    return [file for file in files if not file.endswith(".pyc")]


for name, version in re.findall(r"^([\w.-]+)==(\S+)", Path("requirements.txt").read_text(), re.M):
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        sys.exit(f"setup: {name} is not installed")
    if installed.partition("+")[0] != version:
        sys.exit(f"setup: {name} is {installed}, not {version}")
for distribution in metadata.distributions():
    for file in recorded(distribution):
        if not Path(distribution.locate_file(file)).exists():
            sys.exit(f"setup: {file} of {distribution.name} is missing")
END
}

up_to_date() {
    [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$build $digest"$'\n'"$PWD" ] && [ "$asked" != cuda ] &&
        [ -x .venv/bin/python ] && same_python && healthy
}

same_python() { [ -z "${PYTHON:-}" ] || [ "$(base_of .venv/bin/python)" -ef "$(base_of "$python")" ]; }

# A .venv that cannot be built upon: broken, moved, or made from another Python.
unusable() { ! .venv/bin/python -m pip --version >/dev/null 2>&1 || [ "$place" != "$PWD" ] || ! same_python; }

# The pin of torch fits both of its builds, so uv would keep the one that is there.
other_torch() { [ -n "$before" ] && [ "$before" != "$build" ] && [[ "$before $build" == *cpu* ]]; }

create() {
    say "creating .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || die "$python could not create .venv (it says why above)"
}

# Compiled at once, so that already the first start of every command is quick.
uv_install() { .venv/bin/uv pip install --compile-bytecode --python .venv/bin/python "$@"; }

backend() { if [ "$build" = cpu ]; then echo "--torch-backend=cpu"; fi; }

libraries_failed() {
    [ "$build" != cpu ] || die "the CPU build could not be had (uv says why above): ./setup_env.sh without --cpu takes the usual one, which runs on the CPU too"
    die "requirements.txt could not be installed (uv says why above)"
}

# Can the libraries be had at all? Asked before throwing away an environment that works.
resolve() {
    # shellcheck disable=SC2046 # one word or none
    .venv/bin/uv pip compile --quiet --python .venv/bin/python $(backend) requirements.txt >/dev/null || libraries_failed
}

install() {
    local uv
    uv=$(grep -m1 '^uv==' requirements.txt)
    if [ "$(.venv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "${uv#uv==}" ]; then
        .venv/bin/python -m pip install --quiet --disable-pip-version-check "$uv" ||
            die "pip could not install $uv (it says why above): is the network there?"
    fi
    say "installing requirements.txt"
    # shellcheck disable=SC2046 # one word or none
    uv_install $(backend) -r requirements.txt || libraries_failed
    uv_install --quiet -e . --no-deps || die "the project could not be installed (uv says why above)"
}

report() {
    .venv/bin/python - <<'END' || die "the libraries are installed but cannot be loaded (see above): rm -rf .venv and run ./setup_env.sh again"
import platform

import cv2, open3d, pycolmap, torch, torchvision  # noqa: all load native libraries

device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device: runs on the CPU"
print(f"setup: Python {platform.python_version()}, torch {torch.__version__} ({device}), Open3D {open3d.__version__}")
END
}

# --- optional CUDA extensions -----------------------------------------------------------------------------

# name, what is used without it, where it comes from
extensions() {
    cat <<'END'
nvdiffrast|Embree rasterises meshes on the CPU|nvdiffrast @ git+https://github.com/NVlabs/nvdiffrast
tinycudann|the Triton and PyTorch hash grids are used|tinycudann @ git+https://github.com/NVlabs/tiny-cuda-nn#subdirectory=bindings/torch
pytorch3d|points are splatted in PyTorch|pytorch3d @ git+https://github.com/facebookresearch/pytorch3d
gsplat|Gaussians are rasterised in PyTorch|gsplat==1.5.3
END
}

build_extension() { # name, source; on failure `reason` says why
    if .venv/bin/python -c "import $1" 2>/dev/null; then return; fi
    reason="nvcc, the CUDA compiler it is built with, is not on PATH"
    command -v nvcc >/dev/null || return
    say "fetching and building $1, which can take minutes"
    reason="it could not be fetched or built, see .venv/$1.log"
    {
        uv_install setuptools wheel ninja && # what their builds take for granted
            uv_install --no-build-isolation -c requirements.txt "$2"
    } </dev/null >".venv/$1.log" 2>&1
}

install_extensions() {
    local name instead source reason=""
    while IFS='|' read -r name instead source; do
        if build_extension "$name" "$source"; then
            say "$name is installed"
        else
            say "$name is not installed ($reason); without it $instead."
        fi
    done < <(extensions)
}

# --- all of it --------------------------------------------------------------------------------------------

python=$(choose_python)
check_python "$python"
install_system_libraries
if up_to_date; then
    say "nothing to do, .venv is up to date"
    exit 0
fi
if unusable; then
    create
elif other_torch; then
    resolve
    create
fi
rm -f "$STAMP"
install
if ! healthy; then
    say "rebuilding .venv, which is damaged"
    create
    install
    healthy || die "the environment is incomplete even after rebuilding it"
fi
if [ "$build" = cuda ]; then install_extensions; fi
report
printf '%s %s\n%s\n' "$build" "$digest" "$PWD" >"$STAMP"
say "ready after $SECONDS s"
