"""A matrix that can't be meant is refused with its place, the rule and what would be right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matrices
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.matrix.matrix import Matrix, MatrixError, load_matrix
from orchestrator.matrix.source import FILE_BYTES_MAX
from results.errors import UserError


def changed(old: str, new: str) -> str:
    """The good matrix with one thing made bad."""
    assert matrices.SMALL.count(old) == 1, old
    return matrices.SMALL.replace(old, new)


def with_value(setting: str, value: str) -> str:
    """The good matrix with a variable of `optimised`, in line 10, column 14 + the name's length."""
    return changed("env: {GOGC: 20}", f"env: {{{setting}: {value}}}")


def measuring(text: str) -> str:
    return changed("measure: 1s", f"measure: {text}")


def at_rate(text: str) -> str:
    return changed("poisson: 150/s", f"poisson: {text}")


def also(text: str) -> str:
    """The good matrix with one more line, the 22nd."""
    return f"{matrices.SMALL}{text}\n"


@dataclass(frozen=True)
class Bad:
    """A bad matrix, and what the first line of its refusal has to say."""

    text: str
    want_place: str
    want_text: str


BAD = {
    "unknown key": Bad(changed("trials:", "trails:"), "20:1", "did you mean 'trials'?"),
    "unknown key deep inside": Bad(changed("ldflags:", "ldflgas:"), "11:13", "mean 'ldflags'?"),
    "unknown key in a workload": Bad(changed("measure:", "mesure:"), "18:5", "mean 'measure'?"),
    "a key like no other": Bad(also("colour: red"), "22:1", "known: service, configurations"),
    "unknown metric": Bad(
        also("objectives: [peak_rs <= 1GiB]"), "22:14", "did you mean 'peak_rss'?"
    ),
    "limit without a unit": Bad(also("objectives: [p99 <= 40]"), "22:14", "has no unit"),
    "objective's unknown key": Bad(
        also('objectives: [{require: "p99 <= 40ms", sevrity: warn}]'), "22:39", "mean 'severity'?"
    ),
    "objectives that exclude each other": Bad(
        also("objectives: [gc_cycles >= 5, gc_cycles <= 3]"), "22:30", "can't both hold"
    ),
    "objective twice": Bad(
        also("objectives: [p99 <= 40ms, p99 <= 40ms]"), "22:27", "is there twice"
    ),
    "objective for nobody": Bad(
        also('objectives: [{require: "p99 <= 40ms", configurations: [optimisd]}]'),
        "22:55",
        "did you mean 'optimised'?",
    ),
    "waiver without a day": Bad(
        also('waivers: [{objective: "p99 <= 40ms", owner: Jane, reason: soon}]'),
        "22:11",
        "'expires' is missing",
    ),
    "waiver of nothing": Bad(
        also('waivers: [{objective: p99 <= 40ms, owner: J, reason: x, expires: "2027-01-31"}]'),
        "22:23",
        "there is no objective 'p99 <= 40ms'",
    ),
    "waiver by nobody": Bad(
        also('waivers: [{objective: p99 <= 40ms, owner: "", reason: x, expires: "2027-01-31"}]'),
        "22:43",
        "who answers for it",
    ),
    "no policy file": Bad(also("policy: nowhere.yaml"), "22:9", "there is no policy file"),
    "no baseline": Bad(changed("baseline: true, ", ""), "7:3", "write `baseline: true` in one"),
    "two baselines": Bad(
        changed("optimised:\n", "optimised:\n    baseline: true\n"), "9:15", "a second baseline"
    ),
    "memory limit of Java": Bad(with_value("GOMEMLIMIT", "1280M"), "10:23", "mean 1280MiB?"),
    "memory limit with fraction": Bad(with_value("GOMEMLIMIT", "1.5GiB"), "10:23", "1536MiB?"),
    "memory limit below zero": Bad(with_value("GOMEMLIMIT", "-1"), "10:23", "for example 1280MiB"),
    "memory limit of nothing": Bad(with_value("GOMEMLIMIT", '""'), "10:23", "for example 1280MiB"),
    "share without a limit": Bad(with_value("GOMEMLIMIT", "90%"), "10:23", "limits.memory_max"),
    "GOGC in percent": Bad(with_value("GOGC", "30%"), "10:17", "Did you mean 30?"),
    "GOGC of nothing": Bad(with_value("GOGC", '""'), "10:17", "silently use 100"),
    "GOGC below zero": Bad(with_value("GOGC", "-5"), "10:17", "write off if that is meant"),
    "GOGC of null": Bad(with_value("GOGC", "null"), "10:17", "must be text or a number"),
    "Java flag in arguments": Bad(
        changed("256KiB]", "256KiB, -XX:NewRatio=2]"), "4:89", "a Go service has none"
    ),
    "Java flag in a variable": Bad(with_value("JAVA_OPTS", "-Xmx1g"), "10:22", "Java virtual"),
    "Java flag for the linker": Bad(changed('"-s -w"', '"-XX:NewRatio=2"'), "11:22", "Java"),
    "Go version in words": Bad(
        changed('optimised:\n    go: "1.23"', "optimised:\n    go: newest"), "9:9", "1.22.10"
    ),
    "duration without unit": Bad(measuring("30"), "18:14", "write for example 30s"),
    "duration of zero": Bad(measuring("0s"), "18:14", "must be more than zero"),
    "duration of bare zero": Bad(measuring("0"), "18:14", "must be more than zero"),
    "duration below zero": Bad(measuring("-5s"), "18:14", "is negative"),
    "duration in words": Bad(measuring("five"), "18:14", "300ms, 30s, 5m or 1m30s"),
    "duration of years": Bad(measuring("10000h"), "18:14", "more than a year"),
    "duration of nothing": Bad(measuring(""), "18:13", "a duration such as"),
    "duration as a list": Bad(measuring("[1s]"), "18:14", "a duration such as"),
    "rate without unit": Bad(at_rate("400"), "15:25", "write for example 400/s"),
    "rate of zero": Bad(at_rate("0/s"), "15:25", "must be more than zero"),
    "rate below zero": Bad(at_rate("-5/s"), "15:25", "is negative"),
    "rate of another form": Bad(at_rate("400rps"), "15:25", "400/s or 90/m"),
    "size without unit": Bad(also("limits: {memory_max: 512}"), "22:22", "example 512MiB"),
    "size below zero": Bad(also("limits: {memory_max: -5MiB}"), "22:22", "is negative"),
    "no processor": Bad(also("limits: {cpus: 0}"), "22:16", "must be more than 0"),
    "not a number": Bad(also("limits: {cpus: .nan}"), "22:16", "is not a number"),
    "missing source": Bad(changed(str(matrices.SESSIONCACHE), "away"), "3:16", "no folder 'away'"),
    "missing scenario": Bad(changed("cache_mix", "cach_mix"), "14:15", "did you mean 'cache_mix'?"),
    "missing scenario file": Bad(changed("cache_mix", "a/b.py"), "14:15", "looked for"),
    "no trials": Bad(changed("trials: 2", "trials: 0"), "20:9", "must be 1 or more"),
    "trials in words": Bad(changed("trials: 2", "trials: two"), "20:9", "not a whole number"),
    "trials of truth": Bad(changed("trials: 2", "trials: true"), "20:9", "a whole number"),
    "trials of a thousand digits": Bad(
        changed("trials: 2", f"trials: {'9' * 1000}"), "20:9", "999… is not a whole number"
    ),
    "port out of range": Bad(changed("  ready", "  port: 99999\n  ready"), "5:9", "65535 or less"),
    "not a name": Bad(changed("  optimised:", "  Op Timised:"), "8:3", "use a-z, 0-9, dots"),
    "no way to be ready": Bad(changed("http: /healthz, ", ""), "5:10", "write either `http:"),
    "two loops": Bad(changed("    idle", "    users: 5\n    idle"), "14:5", "either `arrivals:`"),
    "a node of another system": Bad(
        also("nodes: {a: {os: plan9}}"), "22:17", "'linux' or 'windows'"
    ),
    "a misleading group": Bad(
        also("nodes: {windows: {os: linux}}"), "22:23", "whose system is linux misleads"
    ),
    "no nodes": Bad(also("nodes: {linux: 0}"), "22:16", "must be 1 or more"),
    "a reserved label": Bad(also("nodes: {a: {labels: {os: windows}}}"), "22:26", "write `os:`"),
    "load that can't reach the service": Bad(
        also("nodes: {linux: {load: {nodes: 2}}}"), "22:23", "write {host} in its arguments"
    ),
    "sampled too often": Bad(also("sampling: {rate: 1000/s}"), "22:18", "between 1/s and 100/s"),
    "no such metric": Bad(also("comparison: {primary: [peek_rss]}"), "22:24", "mean 'peak_rss'?"),
    "no such margin": Bad(also("comparison: {margins: {p9: 1%}}"), "22:24", "no metric 'p9'"),
    "an argument of two words": Bad(changed("256KiB]", "{a: b}]"), "4:81", "item 8 of 'arguments'"),
    "a list of variables": Bad(changed("{GOGC: 20}", "[GOGC]"), "10:10", "a mapping of keys"),
    "not a variable's name": Bad(changed("GOGC: 20", '"A=B": c'), "10:18", "name of a variable"),
    "an axis of a Go word": Bad(also("axes: {gogc: [1, 2]}"), "22:14", "is not a setting"),
    "an axis of one value": Bad(also("axes: {env.GOGC: 50}"), "22:18", "a list of values"),
    "a bad value in an axis": Bad(also("axes: {env.GOGC: [30%, 50]}"), "22:7", "mean 30?"),
    "a million combinations": Bad(
        also(
            "axes: {" + ", ".join(f"env.A{n}: [{', '.join('0123456789')}]" for n in range(6)) + "}"
        ),
        "22:216",
        "more than 100,000 combinations",
    ),
    "nothing": Bad("", "1:1", "the file is empty"),
    "only a comment": Bad("# nothing\n", "1:1", "the file is empty"),
    "a list": Bad("- a\n", "1:1", "a mapping of keys"),
    "no service": Bad("trials: 2\n", "1:1", "is missing"),
    "an empty section": Bad(
        changed("  steady:\n", "  steady: {}\n  other:\n"), "13:11", "'scenario' is missing"
    ),
    "tabs": Bad(changed("  name: s", "\tname: s"), "2:1", "use spaces"),
    "a key twice": Bad(also("trials: 3"), "22:1", "the first is in line 20"),
    "a name twice": Bad(changed("  optimised:", "  default:"), "8:3", "the first is in line 7"),
    "many laughs": Bad("a: &a [x]\nb: [*a, *a, *a]\n", "2:5", "aliases (*a) are not allowed"),
    "far too deep": Bad("a: " + "[" * 40, "1:35", "nested too deeply"),
    "two documents": Bad(f"{matrices.SMALL}---\na: b\n", "22:1", "another document"),
    "a bracket left open": Bad("service: {name: a\n", "2:1", "not YAML"),
    "a control character": Bad(changed("cache_mix", "cache\x07mix"), "14:20", "U+0007"),
    "a Python object": Bad("service: !!python/object/apply:os.abort []\n", "1:1", "is missing"),
}


def refusal(folder: Path, data: str | bytes) -> str:
    path = folder / "matrix.yaml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(MatrixError) as caught:
        load_matrix(path)
    return str(caught.value).replace(f"{path}:", "matrix.yaml:")


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_matrix_is_refused_with_its_place(tmp_path: Path, bad: Bad) -> None:
    first = refusal(tmp_path, bad.text).splitlines()[0]
    assert first.startswith(f"matrix.yaml:{bad.want_place}: "), first
    assert bad.want_text in first


@pytest.mark.parametrize(
    "data",
    [bytes(range(256)), "service: café".encode("latin1"), matrices.SMALL.encode("utf-16")],
    ids=["binary", "latin1", "utf16"],
)
def test_what_is_not_utf8_is_refused(tmp_path: Path, data: bytes) -> None:
    assert "not UTF-8 text" in refusal(tmp_path, data)


def test_all_errors_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = with_value("GOGC", "30%").replace("100ms", "100").replace("trials: 2", "trails: 2")
    lines = refusal(tmp_path, text).splitlines()
    assert [line.split(":")[1] for line in lines] == ["10", "19", "20"]


def test_a_folder_a_missing_file_and_an_endless_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "matrix.yaml").write_text(matrices.SMALL)
    for path, want in [
        (tmp_path, "is a folder; name the matrix in it, such as"),
        (tmp_path / "matrx.yaml", f"did you mean {tmp_path / 'matrix.yaml'}?"),
        (tmp_path / "else", "`bench init` writes a first one"),
        (tmp_path / "away" / "matrix.yaml", "No such file"),
        (Path("/dev/zero"), f"more than the {FILE_BYTES_MAX:,} bytes"),
    ]:
        with pytest.raises(UserError) as caught:
            load_matrix(path)
        assert want in str(caught.value)


@settings(deadline=None)
@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_bytes_are_refused_in_one_way_only(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with pytest.raises(UserError):
        load_matrix(path)


WORDS = st.sampled_from(
    [
        "",
        "null",
        "true",
        "0",
        "-1",
        "1.5",
        "5s",
        "30%",
        "[]",
        "{}",
        "[a, 1]",
        "{a: b}",
        "'",
        "\t",
        "*",
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, matrices.SMALL.count("\n") - 1), st.one_of(WORDS, st.text(max_size=8)))
def test_a_good_matrix_with_any_value_changed_is_good_or_refused(
    tmp_path_factory, line: int, value: str
) -> None:
    """No value in any place of the file ends in anything but a matrix or a MatrixError."""
    lines = matrices.SMALL.splitlines()
    key, colon, _ = lines[line].partition(": ")
    lines[line] = f"{key}{colon or ': '}{value}"
    path = tmp_path_factory.getbasetemp() / "changed.yaml"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        matrix = load_matrix(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert matrix.baseline in matrix.configurations


@pytest.fixture
def small(tmp_path: Path) -> Matrix:
    return load_matrix(matrices.write(tmp_path, matrices.SMALL))


def test_overrides_replace_trials_and_seed_and_nothing_else(small: Matrix) -> None:
    same = small.with_overrides(trials=None, seed=None)
    assert same == small
    other = small.with_overrides(trials=9, seed=0)
    assert (other.trials, other.seed) == (9, 0)
    assert other.document is small.document
    assert other.with_overrides(trials=2, seed=7) == small


def test_axes_make_every_combination_on_top_of_the_baseline(tmp_path: Path) -> None:
    text = also(
        'axes: {env.GOGC: [50, off], go: ["1.22", "1.23"], '
        'exclude: [{env.GOGC: 50, go: "1.22"}], include: [{limits.cpus: 1}]}'
    )
    matrix = load_matrix(matrices.write(tmp_path, text))
    made = {n: c for n, c in matrix.configurations.items() if n not in ("default", "optimised")}
    assert list(made) == ["gogc-50.go-1.23", "gogc-off.go-1.22", "gogc-off.go-1.23", "cpus-1"]
    assert made["gogc-off.go-1.22"].env == {"GOGC": "off"}
    assert made["gogc-off.go-1.22"].go == "1.22"
    assert made["cpus-1"].go == "1.23", "what is not varied is the baseline's"
    assert not any(c.baseline for c in made.values())
