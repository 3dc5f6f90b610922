#!/usr/bin/env bash
# What the tests need beyond Python: as root on Debian it is installed, elsewhere what is missing is
# told and the tests that need it skip with the reason.
#
# The report is looked at in a real browser, a Windows node is Windows Python under Wine,
# several machines are network namespaces, live metrics are read by a real Prometheus; all else that
# the tests need, they fetch themselves.
set -euo pipefail
missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v ip >/dev/null || missing+=(iproute2)
command -v ssh-keygen >/dev/null || missing+=(openssh-client)
command -v wineserver >/dev/null && [ -x /usr/lib/wine/wine64 ] || missing+=(wine wine64)
command -v x86_64-w64-mingw32-gcc >/dev/null || missing+=(gcc-mingw-w64-x86-64)
prometheus=$(command -v promtool >/dev/null && command -v prometheus || true)
[ ${#missing[@]} -gt 0 ] || [ -z "$prometheus" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  [ ${#missing[@]} = 0 ] || apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  if [ -z "$prometheus" ]; then
    # Its two programs alone: installed as a package it would start a server of its own.
    folder=$(mktemp -d /var/tmp/prometheus.XXXXXX)
    chmod 755 "$folder"
    (cd "$folder" && apt-get download -qq prometheus 2>/dev/null && dpkg-deb -x prometheus_*.deb . \
      && install -m 755 usr/bin/prometheus usr/bin/promtool /usr/local/bin/)
    rm -rf "$folder"
  fi
else
  [ -n "$prometheus" ] || missing+=(prometheus)
  echo "some tests will be skipped; as root on Debian: apt install ${missing[*]}"
fi
