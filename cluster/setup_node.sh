#!/usr/bin/env bash
# Make a Debian-like node ready to render: Blender's system libraries, Python 3.11, the checkout's .venv, and that on PATH.
# Repeating it takes a second. Installing system packages needs root or sudo, which are not used if none is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(make python3.11 python3.11-venv libx11-6 libxrender1 libxfixes3 libxi6 libxkbcommon0 libsm6 libgl1 libegl1)
missing=()
for package in "${packages[@]}"; do
  case "$package" in
    make) command -v make >/dev/null && continue ;;
    python3.11*) command -v python3.11 >/dev/null && python3.11 -c 'import ensurepip' 2>/dev/null && continue ;;
    *) dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' && continue ;;
  esac
  missing+=("$package")
done
if ((${#missing[@]})); then
  sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

make setup
.venv/bin/python -m render.system_check

# `ray submit` runs a bare `python` and `ray down` a bare `ray`, both in a shell that reads ~/.bashrc.
line="export PATH=\"$PWD/.venv/bin:\$PATH\""
grep -qxF "$line" ~/.bashrc 2>/dev/null || echo "$line" >>~/.bashrc
