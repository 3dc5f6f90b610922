#!/usr/bin/env bash
# What the tests need beyond Python: as root on Debian it is installed, elsewhere what is missing is
# told and the tests that need it skip with the reason.
#
# The report is looked at in a real browser, a Windows node is Windows Python under Wine, and
# several machines are network namespaces; all else that the tests need, they fetch themselves.
set -euo pipefail
missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v ip >/dev/null || missing+=(iproute2)
command -v ssh-keygen >/dev/null || missing+=(openssh-client)
command -v wineserver >/dev/null && [ -x /usr/lib/wine/wine64 ] || missing+=(wine wine64)
command -v x86_64-w64-mingw32-gcc >/dev/null || missing+=(gcc-mingw-w64-x86-64)
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "some tests will be skipped; as root on Debian: apt install ${missing[*]}"
fi
