#!/usr/bin/env bash
# Makes one virtual environment from its hash-locked requirements: .make/env.sh FOLDER REQUIREMENTS
# Skips what is already there; downloads are kept in uv's cache outside the clone.
set -euo pipefail
folder=$1 requirements=$2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lesion-triage
uv_version=0.9.30

say() { printf '\033[2m· %s\033[0m\n' "$*" >&2; }

python=
for candidate in python3.11 python3; do
    if "$candidate" -c 'import sys; raise SystemExit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        python=$(command -v "$candidate"); break
    fi
done
[ -n "$python" ] || { echo "Python 3.11 is needed and was not found on PATH." >&2; exit 1; }

stamp=$folder/.made-from
want="$(cat "$requirements" pyproject.toml | sha256sum | cut -d' ' -f1) $PWD"
[ "$(cat "$stamp" 2>/dev/null || true)" = "$want" ] && exit 0

if command -v uv >/dev/null; then
    uv=uv
else
    uv=$cache/uv-$uv_version/bin/uv
    if [ ! -x "$uv" ]; then
        say "installing uv $uv_version into $cache"
        "$python" -m venv "$cache/uv-$uv_version"
        "$cache/uv-$uv_version/bin/pip" install --quiet --disable-pip-version-check "uv==$uv_version"
    fi
fi
say "setting up $folder from $requirements (downloads are cached; the first time takes a minute or more)"
[ -x "$folder/bin/python" ] || "$uv" venv --quiet --python "$python" "$folder"
"$uv" pip sync --quiet --require-hashes --python "$folder/bin/python" "$requirements"
"$uv" pip install --quiet --no-deps --no-build-isolation --python "$folder/bin/python" --editable .
echo "$want" > "$stamp"
