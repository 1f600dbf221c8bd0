#!/bin/sh
# Find a Python that can make the environment, then hand over to environment.py.
# PYTHON=/path/to/python3.12 overrides the search; arguments are passed on. With --addons it is the
# environment with tensorflow-addons, whose TensorFlow is older.
set -eu

case $0 in
    */*) here=${0%/*} ;;
    *) here=. ;;
esac

case " $* " in
    *" --addons "*)
        tensorflow=2.15 first="(3, 10)" after="(3, 12)"
        names="python3.11 python3.10 python3"
        needed="Python 3.10 or 3.11" example=python3.11
        ;;
    *)
        tensorflow=2.21 first="(3, 11)" after="(3, 14)"
        names="python3.11 python3.12 python3.13 python3"
        needed="Python 3.11, 3.12 or 3.13" example=python3.12
        ;;
esac

# Runs under any Python, 2.7 included, and answers in one word.
probe='
import sys
if sys.version_info < '$first':
    answer = "too-old"
elif sys.version_info >= '$after':
    answer = "too-new"
else:
    try:
        import ensurepip, venv
        answer = "fit"
    except ImportError:
        answer = "no-venv"
print("%s %d.%d" % (answer, sys.version_info[0], sys.version_info[1]))
'

tried=
without_venv=

# environment.py imports the files beside it, which this would keep it from.
unset PYTHONSAFEPATH

# hand_over CANDIDATE ARGUMENTS...: returns only when the candidate will not do.
hand_over() {
    candidate=$1
    shift
    command -v "$candidate" >/dev/null 2>&1 || return 0
    # A version manager may put names on PATH that lead nowhere: only a run tells.
    answer=$("$candidate" -c "$probe" 2>/dev/null) || answer="broken"
    version=${answer#* }
    case $answer in
        fit*) exec "$candidate" "$here/environment.py" "$@" ;;
        no-venv*) reason="$version, without venv or ensurepip" without_venv=$version ;;
        too-old*) reason="$version, too old" ;;
        too-new*) reason="$version, too new (TensorFlow $tensorflow has no wheel for it)" ;;
        *) reason="does not run" ;;
    esac
    tried="$tried
  $candidate: $reason"
}

if [ -n "${PYTHON:-}" ]; then
    hand_over "$PYTHON" "$@"
    echo "setup: PYTHON=$PYTHON cannot be used." >&2
else
    for name in $names; do
        hand_over "$name" "$@"
    done
    echo "setup: no Python that can be used was found." >&2
fi

{
    echo "Needed: $needed, with its venv module."
    echo "Tried:${tried:- nothing; no such program on PATH}"
    if [ -n "$without_venv" ]; then
        echo "Install the missing module:"
        echo "  Debian, Ubuntu: sudo apt install python$without_venv-venv"
        echo "  Fedora:         sudo dnf install python$without_venv"
    else
        echo "Install one, or name one with make PYTHON=/path/to/$example:"
        echo "  Debian 12+, Ubuntu 24.04+: sudo apt install python3 python3-venv"
        echo "  Fedora:                    sudo dnf install python3.13"
    fi
} >&2
exit 1
