"""A build is found by what goes into it, the modules beside the service's own among that."""

from __future__ import annotations

from pathlib import Path

from orchestrator.builds.builds import build_go
from orchestrator.builds.toolchains import Toolchain

MAIN = 'package main\n\nimport "example/beside"\n\nfunc main() { println(beside.Word) }\n'
REPLACED = "\n\ngo 1.22\n\nrequire example/beside v0.0.0\n\nreplace example/beside => ../beside\n"


def test_a_module_that_takes_anothers_place_is_part_of_the_content(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    source, beside = tmp_path / "service", tmp_path / "beside"
    _write(source / "main.go", MAIN)
    _write(source / "go.mod", "module example/service" + REPLACED)
    _write(beside / "beside.go", 'package beside\n\nconst Word = "one"\n')
    _write(beside / "go.mod", "module example/beside\n\ngo 1.21\n")
    first = build_go(toolchain, source)
    assert build_go(toolchain, source).cached
    _write(beside / "beside.go", 'package beside\n\nconst Word = "two"\n')
    second = build_go(toolchain, source)
    assert (second.cached, second.sha256 != first.sha256) == (False, True)
    # The language version of a module changes what its source means.
    _write(beside / "go.mod", "module example/beside\n\ngo 1.22\n")
    assert not build_go(toolchain, source).cached


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
