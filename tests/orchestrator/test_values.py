"""One-word values of a matrix: base units out, and what would be right when it is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.matrix import values

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "want_ns"),
    [
        ("300ms", 300_000_000),
        ("30s", 30 * SECOND),
        ("5m", 300 * SECOND),
        ("1m30s", 90 * SECOND),
        ("1.5h", 5_400 * SECOND),
        ("2us", 2_000),
        ("7ns", 7),
    ],
)
def test_durations(text: str, want_ns: int) -> None:
    assert values.duration_ns(text) == want_ns


@pytest.mark.parametrize(
    ("given_value", "want"),
    [
        (30, "duration 30 has no unit; write for example 30s"),
        ("30", "duration 30 has no unit; write for example 30s"),
        ("-5s", "duration -5s is negative"),
        (-5, "has no unit"),
        ("0s", "must be more than zero"),
        ("0.0000000001s", "must be more than zero"),
        ("5 minutes", "is not a duration"),
        ("5M", "is not a duration"),
        ("", "is not a duration"),
        (True, "a duration such as"),
        (None, "a duration such as"),
        ([], "a duration such as"),
        ("9000h", "more than a year"),
        ("9" * 400 + "h", "is not a duration"),
    ],
)
def test_what_is_not_a_duration(given_value: object, want: str) -> None:
    with pytest.raises(ValueError, match=want):
        values.duration_ns(given_value)


def test_a_phase_may_be_left_out_with_zero() -> None:
    assert values.duration_ns("0s", zero=True) == 0
    assert values.duration_ns(0, zero=True) == 0


@given(st.integers(1, 10**15))
def test_a_duration_is_written_as_it_is_read(ns: int) -> None:
    assert values.duration_ns(values.duration_text(ns)) == ns


@pytest.mark.parametrize(
    ("text", "want_rps"), [("400/s", 400.0), ("90/m", 1.5), ("3600/h", 1.0), ("0.5 / s", 0.5)]
)
def test_rates(text: str, want_rps: float) -> None:
    assert values.rate_rps(text) == pytest.approx(want_rps)


@pytest.mark.parametrize(
    ("given_value", "want"),
    [
        (400, "rate 400 has no unit; write for example 400/s"),
        ("0/s", "more than zero"),
        ("-400/s", "is negative"),
        ("400/d", "is not a rate"),
        ("many", "is not a rate"),
        ("99999999999/s", "more than 10,000,000 a second"),
    ],
)
def test_what_is_not_a_rate(given_value: object, want: str) -> None:
    with pytest.raises(ValueError, match=want):
        values.rate_rps(given_value)


@pytest.mark.parametrize(
    ("text", "want_bytes"),
    [("1280MiB", 1280 * 2**20), ("4GiB", 4 * 2**30), ("2GB", 2 * 10**9), ("1.5KiB", 1536)],
)
def test_sizes(text: str, want_bytes: int) -> None:
    assert values.size_bytes(text) == want_bytes


@pytest.mark.parametrize(
    ("given_value", "want"),
    [
        (1024, "has no unit"),
        ("4G", "is not a size"),
        ("0MiB", "more than zero"),
        ("-1GiB", "is negative"),
        ("99999999TiB", "more than any machine has"),
    ],
)
def test_what_is_not_a_size(given_value: object, want: str) -> None:
    with pytest.raises(ValueError, match=want):
        values.size_bytes(given_value)


@pytest.mark.parametrize("text", ["0%", "100%", "2", "-2%", "0.02", "two%"])
def test_what_is_not_a_share(text: str) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        values.share(text)


def test_a_share() -> None:
    assert values.share("2.5%") == pytest.approx(0.025)


@pytest.mark.parametrize("text", ["1.22", "1.22.10", "go1.23"])
def test_go_versions(text: str) -> None:
    assert values.go_version(text) == text.removeprefix("go")


@pytest.mark.parametrize("text", ["1", "1.22.x", "latest", "2.0", "1.22rc1", "v1.22", "1.２２"])
def test_what_is_not_a_go_version(text: str) -> None:
    with pytest.raises(ValueError, match="is not a release"):
        values.go_version(text)


@pytest.mark.parametrize(
    ("text", "want_bytes"),
    [("1280MiB", 1280 * 2**20), ("512KiB", 2**19), ("12B", 12), ("12", 12), ("0", 0)],
)
def test_memory_limits_that_go_accepts(text: str, want_bytes: int) -> None:
    assert values.gomemlimit(text) == text
    assert values.gomemlimit_bytes(text) == want_bytes


@pytest.mark.parametrize("text", ["off", "90%"])
def test_memory_limits_without_a_size_of_their_own(text: str) -> None:
    assert values.gomemlimit(text) == text
    assert values.gomemlimit_bytes(text) is None


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("1280M", "Did you mean 1280MiB"),
        ("1280MB", "Did you mean 1280MiB"),
        ("1280Mi", "Did you mean 1280MiB"),
        ("1280mib", "Did you mean 1280MiB"),
        ("1.5GiB", "Did you mean 1536MiB"),
        ("2 GiB", "Did you mean 2GiB"),
        ("-1", "Write for example 1280MiB"),
        ("", "Write for example 1280MiB"),
        ("unlimited", "Write for example 1280MiB"),
        ("８GiB", "Write for example 1280MiB"),  # digits to Python, not to Go
        ("1280MiB ", "Did you mean 1280MiB"),
        ("8388608TiB", "does not fit in 64 bits"),  # 2^23 TiB are 2^63 bytes
        ("9" * 5_000, "does not fit in 64 bits"),
        ("150%", "is not a share"),
    ],
)
def test_memory_limits_with_which_go_would_die_at_its_start(text: str, want: str) -> None:
    with pytest.raises(ValueError, match=want):
        values.gomemlimit(text)


def test_the_largest_memory_limit_of_go() -> None:
    assert values.gomemlimit(str(2**63 - 1))
    assert values.gomemlimit("8388607TiB")


@pytest.mark.parametrize("text", ["30", "100", "off", "1", "2147483647"])
def test_gogc_that_go_understands(text: str) -> None:
    assert values.gogc(text) == text


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("30%", "silently use 100 instead. Did you mean 30?"),
        (" 30", "silently use 100 instead. Did you mean 30?"),
        ("30 ", "silently use 100 instead. Did you mean 30?"),
        ("", "silently use 100 instead. Write a whole number"),
        ("abc", "silently use 100 instead. Write a whole number"),
        ("OFF", "silently use 100 instead"),
        ("1e2", "silently use 100 instead"),
        ("３０", "silently use 100 instead"),  # digits to Python, not to Go
        ("-5", "means off to Go"),
        ("0", "collects without end"),
        ("2147483648", "silently use 100 instead"),
        ("-2147483649", "silently use 100 instead"),
        ("9" * 5_000, "silently use 100 instead"),
    ],
)
def test_gogc_that_go_would_take_for_something_else(text: str, want: str) -> None:
    with pytest.raises(ValueError) as raised:
        values.gogc(text)
    assert want in str(raised.value)


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "1.5"])
def test_gomaxprocs_that_go_would_ignore(text: str) -> None:
    with pytest.raises(ValueError, match="silently ignore"):
        values.gomaxprocs(text)


@given(st.text())
def test_only_what_is_wrong_in_a_known_way_is_refused(text: str) -> None:
    checks = (values.duration_ns, values.rate_rps, values.size_bytes, values.share)
    for check in (*checks, values.go_version, *values.GO_VARIABLES.values()):
        try:
            check(text)
        except ValueError as error:
            assert str(error)


@pytest.mark.parametrize(
    "text",
    ["-XX:NewRatio=2", "-Xmx512m", "-Xms1g", "-server -Xss1m", "-javaagent:a.jar", "-Djava.io.x=1"],
)
def test_flags_of_the_java_virtual_machine(text: str) -> None:
    assert values.is_jvm_flag(text)


@pytest.mark.parametrize("text", ["-X", "-Xm", "-max", "--XX:a", "-s -w", "-X main.version=1", ""])
def test_flags_of_ordinary_programs_are_none(text: str) -> None:
    assert not values.is_jvm_flag(text)


def test_variables_as_text() -> None:
    assert values.environment_value(30) == "30"
    assert values.environment_value(False) == "false"
    for wrong in (None, [], {"a": 1}, "a\0b"):
        with pytest.raises(ValueError, match="a variable's value"):
            values.environment_value(wrong)
