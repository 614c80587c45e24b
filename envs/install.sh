#!/usr/bin/env bash
# Make the environment: bash envs/install.sh [FOLDER]
# torch (envs/torch.txt) comes first and for the machine at hand (ACCELERATOR=cpu or ACCELERATOR=cuda where it is for another one, as in a
# container); everything else is pinned, with hashes, in envs/lock.txt.
set -euo pipefail

venv=${1:-.venv}
torch=$(< envs/torch.txt) && torch=${torch##*==} # the last line
python=${PYTHON:-python3}
accelerator=${ACCELERATOR:-$(command -v nvidia-smi >/dev/null && echo cuda || echo cpu)}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "excise needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Name another: make PYTHON=python3.12" >&2
    exit 1
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)

echo "installing torch $torch ..." >&2
if "$venv/bin/python" -c "import sys, torch; sys.exit(torch.__version__.split('+')[0] != '$torch')" 2>/dev/null; then
    :
elif [ "$(uname -s)" != Linux ] || [ "$accelerator" = cuda ]; then
    "${pip[@]}" "torch==$torch"
elif "${pip[@]}" "torch==$torch+cpu" 2>/dev/null; then
    :
else
    # No CUDA here, and the CPU build is not where pip looks. uv knows where it is published.
    "${pip[@]}" uv
    if ! "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --torch-backend cpu "torch==$torch"; then
        echo "torch's CPU build cannot be had from here. The CUDA build works too, and is larger: ACCELERATOR=cuda make install" >&2
        exit 1
    fi
fi
echo "installing the locked packages ..." >&2
"${pip[@]}" --no-deps --require-hashes -r envs/lock.txt
"${pip[@]}" --no-deps --no-build-isolation --editable .
touch "$venv/.installed"
