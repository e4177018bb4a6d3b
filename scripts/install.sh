#!/usr/bin/env bash
# Installs nast_s2x into a virtual environment, in the order that its heavy parts need.
#
#   bash scripts/install.sh                 inference only (under a minute)
#   bash scripts/install.sh train           + fairseq, for fairseq-train (a compiler, 3 to 4 minutes)
#   bash scripts/install.sh simuleval dev   + SimulEval (a C compiler for one small package), + the tools of the tests
#   bash scripts/install.sh evaluate        + SimulEval, sacrebleu and matplotlib, for nast-s2x evaluate
#   bash scripts/install.sh units           + scikit-learn and transformers, to make units of speech (half a minute)
#   bash scripts/install.sh all             everything of these
#   bash scripts/install.sh whisper         + faster-whisper, a recogniser for nast-s2x evaluate
#
# Environment:
#   VENV             the virtual environment (default: .venv here), made if it is not there
#   PYTHON           the interpreter to make it with (default: the first of python3, python3.13, 3.12, 3.11 that is new enough)
#   TORCH_INDEX_URL  where torch comes from, such as https://download.pytorch.org/whl/cpu for a small CPU build;
#                    without it pip's own configuration decides. A torch that is already there is kept.
# Running it again takes a second: it does nothing if what was asked for is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}
CONSTRAINTS=configs/constraints.txt

say() { printf '[install] %s\n' "$*"; }
die() { printf '[install] error: %s\n' "$*" >&2; exit 1; }

extras=""
for extra in $(printf '%s ' "$@" | tr ',' ' '); do
    case $extra in
        train | simuleval | evaluate | units | whisper | dev) extras="$extras $extra" ;;
        all) extras="$extras train simuleval evaluate units dev" ;;
        -h | --help) sed -n '2,/^set -euo/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) die "unknown extra '$extra': choose from train, simuleval, evaluate, units, whisper, dev, all" ;;
    esac
done

# What is installed: the first line of the stamp says from which files, the second which extras.
stamp=$VENV/.nast-s2x-install
signature=$({ pwd; cat setup.py "$CONSTRAINTS" scripts/install.sh; } | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(sed -n 1p "$stamp")" = "$signature" ]; then
    installed=$(sed -n 2p "$stamp")
    missing=""
    for extra in $extras; do [[ " $installed " == *" $extra "* ]] || missing="$missing $extra"; done
    if [ -z "$missing" ] && [ -x "$VENV/bin/nast-s2x" ]; then
        say "already installed in $VENV"
        exit 0
    fi
    extras="$extras $installed"
fi
extras=$(printf '%s\n' $extras | sort -u | tr '\n' ' ' | sed 's/ *$//')
wants() { [[ " $extras " == *" $1 "* ]]; }

# 1. What the system has to bring.
if [ ! -x "$VENV/bin/python" ]; then
    new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
    python=""
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c "$new_enough" 2>/dev/null; then python=$candidate; break; fi
    done
    [ -n "$python" ] || die "Python 3.11 or newer is needed (Debian, Ubuntu: apt-get install python3.11), or set PYTHON"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        die "$python cannot make virtual environments (Debian, Ubuntu: apt-get install python3-venv)"
else
    python=$VENV/bin/python
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$VENV holds $("$python" --version), but Python 3.11 or newer is needed; remove it or set VENV"
fi
# Two packages have no wheels: fairseq (C++), and bitarray (C), which SimulEval pins.
there() { [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c "import importlib.util as u, sys; sys.exit(not u.find_spec('$1'))"; }
check_compiler() { # PACKAGE LANGUAGE COMPILER...
    local package=$1 language=$2 include compiler
    shift 2
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
    [ -f "$include/Python.h" ] ||
        die "$package is compiled and needs Python's headers, $include/Python.h (Debian, Ubuntu: apt-get install python3-dev)"
    for compiler; do if command -v "$compiler" >/dev/null; then return; fi; done
    die "$package is compiled and needs a $language compiler (Debian, Ubuntu: apt-get install g++)"
}
if wants train && ! there fairseq; then check_compiler fairseq C++ "${CXX:-c++}" g++; fi
if { wants simuleval || wants evaluate; } && ! there bitarray; then check_compiler "bitarray, which SimulEval needs," C "${CC:-cc}" gcc; fi

# 2. The environment. A torch that is there already is kept, whatever its version.
if [ ! -x "$VENV/bin/python" ]; then
    say "making $VENV with $("$python" --version)"
    "$python" -m venv "$VENV"
fi
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
cp "$CONSTRAINTS" "$constraints"
torch=$("$VENV/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null || true)
if [ -n "$torch" ]; then
    sed -i "s/^torch==.*/torch==$torch/" "$constraints"
fi
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }
install() { pip install -qq -c "$constraints" "$@" || die "pip install $* failed"; }

# 3. The packages, heavy ones first: fairseq is built against the torch and numpy that are there.
say "build tools"
install setuptools wheel
if [ -z "$torch" ]; then
    say "torch"
    # torch alone from its own index; what it needs comes with the rest.
    if [ -n "${TORCH_INDEX_URL:-}" ]; then install --no-deps --index-url "$TORCH_INDEX_URL" torch; else install torch; fi
else
    say "torch $torch is there"
fi
if wants train; then
    say "fairseq (compiled, about 2.5 minutes the first time)"
    install torch numpy cython
    install --no-build-isolation fairseq-fixed
fi
say "nast_s2x${extras:+ with $extras}"
install --no-build-isolation -e ".${extras:+[${extras// /,}]}"
pip check >/dev/null || { pip check >&2 || true; die "the installed packages do not fit together (see above)"; }
printf '%s\n%s\n' "$signature" "$extras" >"$stamp"
say "done: $VENV/bin/nast-s2x"
