#!/usr/bin/env bash
# Install nast_s2x into a virtual environment, with the tested versions of configs/constraints.txt.
#
#   bash scripts/install.sh                 inference only
#   bash scripts/install.sh train           + fairseq, for training
#   bash scripts/install.sh evaluate        + sacrebleu, matplotlib and Jinja2, for nast-s2x evaluate, score and compare
#   bash scripts/install.sh simuleval       + SimulEval, for the agents
#   bash scripts/install.sh units           + scikit-learn and transformers, for units of speech
#   bash scripts/install.sh data            + pyarrow and huggingface_hub, for parquet corpora and released models
#   bash scripts/install.sh serve           + starlette, uvicorn and websockets, for nast-s2x serve
#   bash scripts/install.sh live            + sounddevice and websockets, for nast-s2x live
#   bash scripts/install.sh japanese        + MeCab with a dictionary, sacreBLEU's tokenizer of Japanese
#   bash scripts/install.sh whisper         + faster-whisper, a recogniser for nast-s2x evaluate
#   bash scripts/install.sh dev             + the tools of scripts/test.sh
#   bash scripts/install.sh all             all of these but japanese and whisper
#   bash scripts/install.sh simulstream     + simulstream, for the speech processor
#   bash scripts/install.sh clients         + simulstream and OmniSTEval, which tests compare with
#
# Several extras can be given. An extra that is installed stays installed; a second run with the same extras does nothing.
#
# Requirements: Linux or macOS, Python 3.11 or newer with venv. On Linux (x86_64) with Python 3.11 or 3.12 everything
# is installed from wheels. On other systems and with Python 3.13, the extra "train" compiles fairseq, which needs a C++
# compiler and Python's headers and takes about 3 minutes.
#
# Environment variables:
#   VENV             the virtual environment (default: .venv), created if it does not exist
#   PYTHON           the interpreter to create it with (default: python3, if it is new enough, or python3.12, 3.11, 3.13)
#   TORCH_INDEX_URL  package index for torch, for example https://download.pytorch.org/whl/cpu for a CPU build
#                    (default: pip's own configuration). An installed torch is kept, whatever its version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}
CONSTRAINTS=configs/constraints.txt

log() { printf '[install] %s\n' "$*"; }
fail() { printf '[install] error: %s\n' "$*" >&2; exit 1; }

extras=""
for extra in $(printf '%s ' "$@" | tr ',' ' '); do
    case $extra in
        train | evaluate | simuleval | units | data | serve | live | simulstream | clients | japanese | whisper | dev) extras="$extras $extra" ;;
        all) extras="$extras train simuleval evaluate units data serve live dev" ;;
        -h | --help) sed -n '2,/^set -euo/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) fail "unknown extra '$extra': choose from train, evaluate, simuleval, units, data, serve, live, simulstream, clients, japanese, whisper, dev, all" ;;
    esac
done

# The stamp records what is installed: a checksum of the files that decide it, then the extras.
stamp=$VENV/.nast-s2x-install
signature=$({ pwd; cat setup.py "$CONSTRAINTS" scripts/install.sh; } | cksum)
if [ -f "$stamp" ]; then
    installed=$(sed -n 2p "$stamp")
    missing=""
    for extra in $extras; do [[ " $installed " == *" $extra "* ]] || missing="$missing $extra"; done
    if [ -z "$missing" ] && [ "$(sed -n 1p "$stamp")" = "$signature" ] && [ -x "$VENV/bin/nast-s2x" ]; then
        log "already installed in $VENV"
        exit 0
    fi
    extras="$extras $installed"
fi
extras=$(printf '%s\n' $extras | sort -u | tr '\n' ' ' | sed 's/ *$//')
wants() { [[ " $extras " == *" $1 "* ]]; }

# 1. Check the system.
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
if [ -x "$VENV/bin/python" ]; then
    python=$VENV/bin/python
    "$python" -c "$new_enough" ||
        fail "$VENV has $("$python" --version), but Python 3.11 or newer is required: remove it or set VENV"
else
    python=""
    for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.13}; do
        if "$candidate" -c "$new_enough" 2>/dev/null; then python=$candidate; break; fi
    done
    [ -n "$python" ] || fail "Python 3.11 or newer is required (Debian, Ubuntu: apt-get install python3), or set PYTHON"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python cannot create virtual environments (Debian, Ubuntu: apt-get install python3-venv)"
fi
# Two builds of fairseq provide the same package: ve-fairseq has wheels, fairseq-fixed is compiled. The markers in
# setup.py state the same rule.
fairseq_build=$("$python" -c '
import platform, sys
wheel = sys.version_info < (3, 13) and (sys.platform, platform.machine()) == ("linux", "x86_64")
print("ve-fairseq" if wheel else "fairseq-fixed")')
version() { # DISTRIBUTION: its installed version, or nothing
    [ ! -x "$VENV/bin/python" ] || "$VENV/bin/python" -c '
import importlib.metadata as metadata, sys
print(*{d.version for d in metadata.distributions() if d.name.lower().replace("_", "-") == sys.argv[1]})' "$1"
}
compile_fairseq=""
if wants train && [ "$fairseq_build" = fairseq-fixed ] && [ -z "$(version fairseq-fixed)" ]; then
    compile_fairseq=yes
    advice="on Linux (x86_64), PYTHON=python3.12 needs no compiler"
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
    [ -f "$include/Python.h" ] ||
        fail "fairseq is compiled and needs $include/Python.h (Debian, Ubuntu: apt-get install python3-dev); $advice"
    command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null ||
        fail "fairseq is compiled and needs a C++ compiler (Debian, Ubuntu: apt-get install g++); $advice"
fi

# 2. Create the environment.
if [ ! -x "$VENV/bin/python" ]; then
    log "creating $VENV with $("$python" --version)"
    "$python" -m venv "$VENV"
fi
temporary=$(mktemp -d)
trap 'rm -r "$temporary"' EXIT
torch=$(version torch)
sed "s/^torch==.*/torch==${torch:-$(sed -n 's/^torch==//p' "$CONSTRAINTS")}/" "$CONSTRAINTS" >"$temporary/constraints.txt"
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }
install() { pip install -qq --no-warn-conflicts -c "$temporary/constraints.txt" "$@" || fail "pip install $* failed"; }

# 3. Install the packages, first those that others are built with.
install setuptools wheel
if [ -n "$torch" ]; then
    log "torch $torch is installed and kept"
else
    log "torch"
    # Only torch comes from TORCH_INDEX_URL; its requirements come with the other packages.
    if [ -n "${TORCH_INDEX_URL:-}" ]; then install --no-deps --index-url "$TORCH_INDEX_URL" torch; else install torch; fi
fi
if wants train; then
    for other in fairseq fairseq-fixed ve-fairseq; do
        [ "$other" != "$fairseq_build" ] && [ -n "$(version "$other")" ] || continue
        log "replacing $other by $fairseq_build"
        pip uninstall -qq -y "$other" "$fairseq_build"
    done
fi
if [ -n "$compile_fairseq" ]; then
    log "fairseq-fixed, compiled (about 3 minutes)"
    install torch numpy cython
    install --no-build-isolation fairseq-fixed
fi
: >"$temporary/requirements.txt"
if wants simuleval; then
    # SimulEval 1.1.4 requires bitarray 2.6.0, which has no wheel for these versions of Python, and never imports it.
    # It is installed without its requirements, then these, with a newer bitarray.
    log "simuleval"
    install --no-deps simuleval
    "$VENV/bin/python" -c '
import importlib.metadata as metadata
for requirement in metadata.requires("simuleval"):
    print("bitarray" if requirement.startswith("bitarray") else requirement)' >"$temporary/requirements.txt"
fi
with=$(printf '%s\n' $extras | grep -vx simuleval | tr '\n' ',' | sed 's/,$//' || true)
log "nast_s2x${extras:+ with $extras}"
install --no-build-isolation -e ".${with:+[$with]}" -r "$temporary/requirements.txt"

# 4. Check that the versions fit together. The one accepted difference is SimulEval's bitarray, see above.
problems=$(pip check 2>&1 | grep -vE '^(No broken requirements|simuleval 1.1.4 has requirement bitarray==2.6.0, )' || true)
[ -z "$problems" ] || fail "the installed packages do not fit together:
$problems"
printf '%s\n%s\n' "$signature" "$extras" >"$stamp"
log "done: $VENV/bin/nast-s2x"
