# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts beside it: makes .venv, builds deltaimg in it, and says what it does.

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${DELTAIMG_VENV:-$project/.venv}

say() { printf '\n== %s\n' "$*"; }

# Install Debian packages, where that is possible; say so where it is not.
need_packages() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "not root, or no apt-get: going on without ${missing[*]}" >&2
        return 0
    fi
    say "installing Debian packages: ${missing[*]}"
    apt-get -qq update >/dev/null || true
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "${missing[@]}" >/dev/null
}

# Install Debian packages that are not worth failing for.
want_packages() {
    need_packages "$@" || echo "going on without $*" >&2
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    echo "no Python 3.11 or newer found; set PYTHON to one" >&2
    return 1
}

# prepare EXTRAS: a virtual environment with deltaimg and these of its extras, built again when sources of the build changed.
# One that has more extras serves as well.
prepare() {
    local python sources built
    python=$(find_python)
    # Debian keeps the headers and ensurepip apart; only its own Python needs them from there.
    case "$("$python" -c 'import sys; print(sys.base_prefix)')" in
        /usr) need_packages python3-venv python3-dev gcc ;;
    esac
    if [ ! -x "$venv/bin/python" ]; then
        say "making a virtual environment in $venv"
        "$python" -m venv "$venv"
    fi
    sources=$(cat "$project"/pyproject.toml "$project"/setup.py $(find "$project/native" -name '*.[ch]' -o -name '*.py' | sort) \
        | sha256sum | cut -c1-16)
    built=$(cat "$venv/deltaimg-built" 2>/dev/null || true)
    if [ "${built%%-*}" != "$sources" ] || ! has_extras "${built#*-}" "$1"; then
        say "building deltaimg${1:+ with $1} in $venv: half a minute if pip has what is needed in its cache"
        (
            set -o pipefail
            "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off -e "$project${1:+[$1]}" 2>&1 \
                | tee "$venv/build.log" | sed -un 's/^ *\(Collecting [^ ]*\|Building .*\|Installing [^:]*\).*/   \1/p'
        ) || { tail -n 40 "$venv/build.log" >&2; return 1; }
        echo "$sources-$1" >"$venv/deltaimg-built"
    fi
    PATH="$venv/bin:$PATH"
    # Without bytecode each start of the program compiles 270 modules, for a quarter of a second, and tests start it thousands of times.
    unset PYTHONDONTWRITEBYTECODE
}

# has_extras BUILT WANTED: whether all extras of a comma-separated list are in another.
has_extras() {
    local extra
    for extra in ${2//,/ }; do
        [[ ",$1," == *",$extra,"* ]] || return 1
    done
}
