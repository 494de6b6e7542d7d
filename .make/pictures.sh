#!/usr/bin/env bash
# Draws docs/pictures/demo.svg: the demo as a terminal shows it, in the moment when the bleed stands on top and slices
# still arrive. Needs tmux, which is the terminal. Run after `make demo` has worked once.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v tmux >/dev/null || { echo "tmux is needed to draw the picture" >&2; exit 1; }
session=triage-picture-$$
tmux -L "$session" new-session -d -x 128 -y 24 "exec $PWD/.venv/bin/triage demo --exit 2>&1"
trap 'tmux -L "$session" kill-server 2>/dev/null || true' EXIT
for _ in $(seq 240); do
    sleep 0.5
    screen=$(tmux -L "$session" capture-pane -e -p 2>/dev/null || true)
    case $screen in *provisional*provisional*) printf '%s' "$screen" > "/tmp/$session.txt"; break ;; esac
done
[ -s "/tmp/$session.txt" ] || { echo "the demo showed no provisional flag" >&2; exit 1; }
.venv/bin/python - "/tmp/$session.txt" docs/pictures/demo.svg <<'PY'
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

lines = Path(sys.argv[1]).read_text().rstrip().splitlines()
console = Console(record=True, width=128, file=open("/dev/null", "w"), force_terminal=True)
shown = [line for line in lines if "/tmp/" not in line]
console.print(Text.from_ansi("\n".join(shown)))
console.save_svg(sys.argv[2], title="make demo", unique_id="demo")
PY
rm -f "/tmp/$session.txt"
echo "· wrote docs/pictures/demo.svg"
