"""Small matrices for the tests: real services, seconds instead of minutes."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SESSIONCACHE = ROOT / "workloads" / "services" / "sessioncache"
MISBEHAVE = ROOT / "tests" / "services" / "misbehave"

SMALL = f"""\
service:
  name: sessioncache
  go: {{source: {SESSIONCACHE}}}
  arguments: [-addr, "127.0.0.1:{{port}}", -live, 24MiB, -object, 4KiB, -garbage, 256KiB]
  ready: {{http: /healthz, timeout: 30s}}
configurations:
  default: {{baseline: true, go: "1.23"}}
  optimised:
    go: "1.23"
    env: {{GOGC: 20}}
    build: {{ldflags: "-s -w", trimpath: true}}
workloads:
  steady:
    scenario: cache_mix
    arrivals: {{poisson: 150/s}}
    idle: 300ms
    warmup: 300ms
    measure: 1s
    cooldown: 100ms
trials: 2
seed: 7
"""

CLOSED = SMALL.replace("arrivals: {poisson: 150/s}", "users: 2")
"""In a closed loop nothing can be sent late: its trials are valid on the busiest machine."""


def misbehaving(arguments: str, *, trials: int = 1, extra: str = "", measure: str = "1s") -> str:
    """A matrix for the service that does wrong on demand, in two equal configurations."""
    return f"""\
service:
  name: misbehave
  go: {{source: {MISBEHAVE}}}
  arguments: [-addr, "127.0.0.1:{{port}}", {arguments}]
  ready: {{http: /healthz, timeout: 2s}}
  stop_timeout: 1s
configurations:
  default: {{baseline: true, go: "1.23"}}
  other: {{go: "1.23", env: {{GOGC: 50}}}}
workloads:
  steady:
    scenario: {ROOT / "tests" / "scenarios" / "plain.py"}
    arrivals: {{constant: 50/s}}
    idle: 100ms
    warmup: 100ms
    measure: {measure}
    cooldown: 0s
trials: {trials}
seed: 7
{extra}"""


def write(folder: Path, text: str, name: str = "matrix.yaml") -> Path:
    """Write a matrix into a test's folder."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
