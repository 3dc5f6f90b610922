"""The environment of the service: a block made from nothing, of one length in every configuration.

The length of the environment moves the stack and can change speed by itself (Mytkowicz et al.,
"Producing wrong data without doing anything obviously wrong!", ASPLOS 2009), so the shorter blocks
are padded.
"""

from __future__ import annotations

from orchestrator.matrix.matrix import Matrix
from orchestrator.matrix.model import Configuration
from orchestrator.matrix.values import share

PAD = "HEAPGATE_PAD"
TRACE = "gctrace=1,scavtrace=1"
_ALWAYS = {
    "linux": {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": ".", "LANG": "C.UTF-8", "TZ": "UTC"},
    # The node adds what Windows itself needs (SystemRoot, PATH, TEMP): only it knows their values.
    "windows": {"TZ": "UTC"},
}
Block = tuple[tuple[str, str], ...]


def environment_blocks(matrix: Matrix, run_id: str, system: str) -> dict[str, Block]:
    """The whole block of every configuration, sorted by name and padded to one length."""
    plain = {
        name: _variables(matrix, name, configuration, system) | {"HEAPGATE_RUN": run_id}
        for name, configuration in matrix.configurations.items()
    }
    longest = max(block_length(variables) for variables in plain.values())
    return {
        name: tuple(sorted(_padded(variables, longest).items()))
        for name, variables in plain.items()
    }


def block_length(variables: dict[str, str]) -> int:
    """Bytes of the block as the kernel lays it out: `NAME=value` and a zero each."""
    return sum(len(f"{name}={value}".encode()) + 1 for name, value in variables.items())


def _padded(variables: dict[str, str], longest: int) -> dict[str, str]:
    return variables | {PAD: "x" * (longest - block_length(variables))}


def _variables(
    matrix: Matrix, name: str, configuration: Configuration, system: str
) -> dict[str, str]:
    merged = _ALWAYS[system] | matrix.document.service.env | configuration.env
    if merged.get("GOMEMLIMIT", "").endswith("%"):
        limit_bytes = matrix.limits_of(name).memory_max or 0
        merged["GOMEMLIMIT"] = f"{int(limit_bytes * share(merged['GOMEMLIMIT']))}B"
    if matrix.document.gc_trace and matrix.document.service.command is None:
        own = merged.get("GODEBUG", "")
        merged["GODEBUG"] = f"{own},{TRACE}" if own else TRACE
    return merged
