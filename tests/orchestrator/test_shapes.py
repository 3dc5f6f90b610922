"""Arrivals of a matrix become the rate that its reader expects; what can't be meant has a place."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import matrices
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from bench_command import Workplace
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.matrix.matrix import Matrix, MatrixError, load_matrix
from orchestrator.matrix.shapes import outline
from results.comparing.comparison import traffic_of
from workers.spec import ArrivalsSpec

SECOND_NS = 10**9
CSV = "time_s,rate_rps\n0,100\n1,300\n2,300\n4,50\n5,0\n"


def with_arrivals(text: str, *, measure: str = "6s", warmup: str = "1s") -> str:
    return (
        matrices.SMALL.replace("arrivals: {poisson: 150/s}", f"arrivals: {text}")
        .replace("measure: 1s", f"measure: {measure}")
        .replace("warmup: 300ms", f"warmup: {warmup}")
    )


def planned(folder: Path, text: str, **phases: str) -> ArrivalsSpec:
    matrix: Matrix = load_matrix(matrices.write(folder, with_arrivals(text, **phases)))
    return matrix.arrivals["steady"]


def refusal(folder: Path, text: str, **phases: str) -> str:
    with pytest.raises(MatrixError) as caught:
        planned(folder, text, **phases)
    (line,) = str(caught.value).replace(f"{folder}/", "").splitlines()
    return line


def as_seconds(arrivals: ArrivalsSpec) -> list[tuple[float, float, float]]:
    return [(piece.for_ns / 1e9, piece.from_rps, piece.to_rps) for piece in arrivals.rates]


@pytest.mark.parametrize(
    ("text", "want_rates", "want_mean", "want_peak"),
    [
        ("{constant: 400/s}", [], 400, 400),
        ("{ramp: {from: 100/s, to: 1000/s}}", [(6, 100, 1000)], 550, 1000),
        ("{ramp: {from: 60/s, to: 0/s}}", [(6, 60, 0)], 30, 60),
        ("{steps: [100/s, 0/s, 200/s]}", [(2, 100, 100), (2, 0, 0), (2, 200, 200)], 100, 200),
        (
            "{steps: [{rate: 10/s, for: 5s}, {rate: 70/s, for: 1s}]}",
            [(5, 10, 10), (1, 70, 70)],
            20,
            70,
        ),
        (
            "{steps: [100/s, {rate: 400/s, for: 1s}, 100/s]}",
            [(2.5, 100, 100), (1, 400, 400), (2.5, 100, 100)],
            150,
            400,
        ),
        (
            "{spikes: {base: 100/s, peak: 700/s, every: 4s, for: 2s}}",
            [(1, 100, 100), (2, 700, 700), (2, 100, 100), (1, 700, 700)],
            400,
            700,
        ),
        ("{spikes: {base: 0/s, peak: 60/s, every: 6s, for: 1s}}",
         [(2.5, 0, 0), (1, 60, 60), (2.5, 0, 0)], 10, 60),
    ],
)  # fmt: skip
def test_a_shape_is_the_rate_that_its_words_say(
    tmp_path: Path, text: str, want_rates: list[Any], want_mean: float, want_peak: float
) -> None:
    arrivals = planned(tmp_path, text)
    assert as_seconds(arrivals) == want_rates
    assert arrivals.rate_rps == pytest.approx(want_mean)
    assert arrivals.peak_rps == want_peak


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any),
    st.integers(1, 10_000),
)
def test_steps_without_a_length_fill_measure_to_the_nanosecond(
    tmp_path_factory, counts, measure_ms
) -> None:
    steps = ", ".join(f"{1000 + 100 * count}/s" for count in counts)
    arrivals = planned(
        tmp_path_factory.getbasetemp(), f"{{steps: [{steps}]}}", measure=f"{measure_ms}ms"
    )
    lengths_ns = [piece.for_ns for piece in arrivals.rates]
    assert sum(lengths_ns) == measure_ms * 10**6
    assert max(lengths_ns) - min(lengths_ns) <= 1


def test_spacing_is_random_unless_even_is_asked_for(tmp_path: Path) -> None:
    assert not planned(tmp_path, "{steps: [5/s]}").evenly
    assert planned(tmp_path, "{steps: [5/s], spacing: even}").evenly
    assert planned(tmp_path, "{constant: 5/s}").evenly
    assert not planned(tmp_path, "{poisson: 5/s}").evenly


BAD = {
    "two kinds": ("{poisson: 5/s, ramp: {from: 1/s, to: 2/s}}", "15:15", "poisson and ramp"),
    "no kind": ("{in_flight_max: 5}", "15:15", "such as `poisson: 400/s`; there is none"),
    "spacing of poisson": ("{poisson: 5/s, spacing: even}", "15:15", "by their nature"),
    "a spacing of another name": (
        "{steps: [5/s], spacing: evenly}", "15:39", "'random' or 'even'"),
    "half a ramp": ("{ramp: {from: 1/s}}", "15:22", "'to' is missing"),
    "a key of a ramp": ("{ramp: {form: 1/s, to: 2/s, from: 1/s}}", "15:23", "did you mean 'from'?"),
    "a rate without unit": ("{steps: [5/s, 7]}", "15:29", "write for example 7/s"),
    "a negative rate": ("{ramp: {from: -1/s, to: 5/s}}", "15:29", "is negative"),
    "steps too long": ("{steps: [{rate: 5/s, for: 9s}, 1/s]}", "15:23", "none is left"),
    "steps too short": ("{steps: [{rate: 5/s, for: 5s}]}", "15:23", "take 5s together, but"),
    "no steps": ("{steps: []}", "15:23", "must not be empty"),
    "a low peak": ("{spikes: {base: 5/s, peak: 5/s, every: 2s, for: 1s}}", "15:24", "above base"),
    "endless spikes": ("{spikes: {base: 1/s, peak: 5/s, every: 1s, for: 1s}}", "15:24", "shorter"),
    "spikes that never come": (
        "{spikes: {base: 1/s, peak: 5/s, every: 7s, for: 1s}}", "15:24", "one comes every 7s"),
    "spikes without end": (
        "{spikes: {base: 1/s, peak: 5/s, every: 1ms, for: 1us}}", "15:24", "5,000 spikes"),
    "nothing": ("{steps: [0/s]}", "15:23", "no request would start"),
    "too much": ("{constant: 9000000/s}", "15:26", "63,000,000"),
    "no file": ("{replay: {file: away.csv, every: 1s}}", "15:31", "away.csv: No such file"),
    "an unknown kind of file": ("{replay: {file: matrix.yaml, every: 1s}}", "15:31", "known kind"),
    "no clock": ("{replay: {file: rates.csv}}", "15:24", "write either `time: COLUMN`"),
    "another column": (
        "{replay: {file: rates.csv, column: rate, every: 2s}}", "15:50", "you mean 'rate_rps'?"),
    "another time": ("{replay: {file: rates.csv, time: when}}", "15:48", "it has 'time_s, rate"),
    "too short": ("{replay: {file: rates.csv, every: 1s}}", "15:31", "covers 5s, but measure"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "place", "want"), BAD.values(), ids=BAD)
def test_what_cant_be_meant_is_refused_with_its_place(
    tmp_path: Path, text: str, place: str, want: str
) -> None:
    (tmp_path / "rates.csv").write_text(CSV)
    long = "12s" if want == "63,000,000" else "6s"
    line = refusal(tmp_path, text, measure=long)
    assert line.startswith(f"matrix.yaml:{place}: "), line
    assert want.replace("63,000,000", "117,000,000") in line


def test_a_recorded_rate_holds_each_value_until_the_next(tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text(CSV)
    text = "{replay: {file: rates.csv, time: time_s, scale: 2}}"
    arrivals = planned(tmp_path, text)
    assert as_seconds(arrivals) == [(1, 200, 200), (3, 600, 600), (1, 100, 100), (1, 0, 0)]
    assert arrivals.rate_rps == pytest.approx((200 + 1800 + 100) / 6)
    shorter = planned(tmp_path, text, measure="1500ms")
    assert as_seconds(shorter) == [(1, 200, 200), (0.5, 600, 600)]
    every = planned(tmp_path, "{replay: {file: rates.csv, every: 2s}}", measure="10s")
    assert as_seconds(every) == [(2, 100, 100), (4, 300, 300), (2, 50, 50), (2, 0, 0)]


def stamped() -> pa.Table:
    start = datetime(2026, 3, 1, 18, 0, tzinfo=UTC)
    times = [start + timedelta(seconds=s) for s in (0, 1, 2, 4, 5)]
    return pa.table({"at": times, "rate_rps": pa.array([100, 300, 300, 50, 0], pa.int32())})


@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow", "feather"])
def test_the_same_recording_is_the_same_rate_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rates.{suffix}"
    if suffix == "csv":
        pyarrow.csv.write_csv(stamped(), path)
    elif suffix == "parquet":
        pyarrow.parquet.write_table(stamped(), path)
    else:
        pyarrow.feather.write_feather(stamped(), path)
    arrivals = planned(tmp_path, f"{{replay: {{file: rates.{suffix}, time: at}}}}")
    assert as_seconds(arrivals) == [(1, 100, 100), (3, 300, 300), (1, 50, 50), (1, 0, 0)]


@pytest.mark.parametrize(
    ("data", "want"),
    [
        ("time_s,rate_rps\n", "has no rows"),
        ("time_s,rate_rps\n0,5\n1,\n2,5\n9,1\n", "no number in line 3"),
        ("time_s,rate_rps\n0,5\n1,-5\n9,1\n", "in line 3 of rates.csv is below zero: -5/s"),
        ("time_s,rate_rps\n0,5\n1,2e9\n9,1\n", "above 10 million/s"),
        ("time_s,rate_rps\n0,5\n1,many\n9,1\n", "is not numbers"),
        ("time_s,rate_rps\n0,5\n2,5\n1,5\n9,1\n", "the time in line 4 of rates.csv is not after"),
        ("time_s,rate_rps\n0,5\n0,5\n9,1\n", "the time in line 3 of rates.csv is not after"),
        ("time_s,rate_rps\n0,5\n", "has one row"),
        ("time_s,rate_rps\n0,5\n1e300,5\n", "more than ten years"),
        ("time_s,rate_rps,rate_rps\n0,5,6\n9,5,6\n", "has 2 columns 'rate_rps'"),
        ("time_s,rate_rps\n0,5,6\n9,5\n", "can't be read"),
        ("time_s,rate_rps\nyesterday,5\ntomorrow,5\n", "'time_s' of rates.csv is not numbers"),
        ("", "can't be read"),
    ],
)
def test_a_recording_that_cant_be_used_says_where(tmp_path: Path, data: str, want: str) -> None:
    (tmp_path / "rates.csv").write_text(data)
    assert want in refusal(tmp_path, "{replay: {file: rates.csv, time: time_s}}")


@given(st.binary(max_size=400), st.sampled_from(["csv", "parquet", "arrow"]))
def test_any_bytes_are_a_recording_or_are_refused(tmp_path_factory, data, suffix) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / f"any.{suffix}").write_bytes(data)
    try:
        planned(folder, f"{{replay: {{file: any.{suffix}, every: 2s}}}}")
    except MatrixError as error:
        assert "matrix.yaml:15:" in str(error)


def test_more_rates_than_a_record_can_hold_are_refused(tmp_path: Path) -> None:
    lines = "".join(f"{n % 2 + 1}\n" for n in range(12_000))
    (tmp_path / "rates.csv").write_text(f"rate_rps\n{lines}")
    line = refusal(tmp_path, "{replay: {file: rates.csv, every: 1ms}}", measure="12s")
    assert "12,000 rates in measure, more than 10,000; record it at longer intervals" in line


def test_an_outline_shows_every_spike_however_short(tmp_path: Path) -> None:
    spikes = planned(
        tmp_path, "{spikes: {base: 10/s, peak: 900/s, every: 20s, for: 1ms}}", measure="60s"
    )
    assert outline(spikes, 31).count("█") == 3
    assert outline(planned(tmp_path, "{ramp: {from: 0/s, to: 80/s}}"), 8) == "▂▃▄▅▅▆▇█"


def test_a_report_tells_a_shape_by_its_mean_and_peak(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from workers.spec import to_plain

    arrivals = to_plain(planned(tmp_path, "{ramp: {from: 100/s, to: 1000/s}}"))
    load = {"scenario": "/a/cache_mix.py", "arrivals": arrivals}
    record: Any = SimpleNamespace(spec={"load": load, "phases": {"measure_ns": 6 * SECOND_NS}})
    told = "cache_mix, ramp (random), mean 550/s, peak 1000/s, measured for 6 s"
    assert traffic_of(record) == told


@pytest.mark.slow
def test_a_recorded_rate_is_what_a_service_gets_and_a_run_keeps_to_it(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    rates = tmp_path / "rates.csv"
    rates.write_text("rate_rps\n40\n200\n")
    text = with_arrivals(
        "{replay: {file: rates.csv, every: 1s}, spacing: even}", measure="2s", warmup="500ms"
    )
    matrices.write(tmp_path, text)
    shown = workplace.bench("plan", "matrix.yaml")
    assert f"replay {'▂' * 20}{'█' * 20} even, mean 120/s, peak 200/s" in shown.out
    told = workplace.bench("run", "matrix.yaml", "--trials", "1")
    assert "replay (even), mean 120/s, peak 200/s" in told.out, told.text
    query = (
        "select trial_id, count(*) filter (where r.phase = 'warmup') as warmup, "
        "count(*) filter (where r.phase = 'measure') as measured, "
        "count(*) filter (where r.intended_ns - p.start_ns between 0 and 999999999) as first "
        "from requests r join phases p using (run_id, trial_id) where p.phase = 'measure' "
        "group by 1 order by 1"
    )
    rows = workplace.bench("sql", query, "--format", "json").json()
    assert [(row["warmup"], row["measured"]) for row in rows] == [(20, 240)] * 2, rows
    assert all(38 <= row["first"] <= 42 for row in rows), rows
    (run_id,) = workplace.run_ids()
    record = json.loads((workplace.archive / run_id / "run.json").read_text())
    assert list(record["recordings"]) == [str(rates)]
    rates.write_text("rate_rps\n40\n201\n")
    again = workplace.bench("resume", run_id)
    assert again.code == 2, again.text
    assert f"recording {rates} has changed since run {run_id} began" in again.err
