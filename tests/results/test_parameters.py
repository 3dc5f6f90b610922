"""Values for `$name` in a query."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from archives import write_archive
from hypothesis import given
from hypothesis import strategies as st

from results.errors import UserError
from results.sql.database import Database, open_database
from results.sql.parameters import read_parameters


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory):
    root = write_archive(tmp_path_factory.mktemp("parameters") / "archive", blocks=2)
    with open_database(root) as opened:
        yield opened


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ("n=400", 400), ("n=0.5", 0.5), ("n=true", True), ("n=null", None), ("n=[1, 2]", [1, 2]),
        ('n="400"', "400"), ("n=default", "default"), ("n=", ""), ("n=a=b", "a=b"),
        ("$n=007", "007"), ("n=NaN", "NaN"), ("n=20261125-06", "20261125-06"), ("n=it's", "it's"),
    ],
)  # fmt: skip
def test_json_is_what_it_says_and_the_rest_is_text(given: str, want: Any) -> None:
    assert read_parameters([given]) == {"n": want}


@given(st.dictionaries(st.from_regex(r"[a-z_]\w{0,8}", fullmatch=True), st.text(), max_size=4))
def test_any_text_can_be_given(values: dict[str, str]) -> None:
    assert read_parameters([f"{n}={json.dumps(v)}" for n, v in values.items()]) == values


@pytest.mark.parametrize("given", ["n", "=1", "1n=1", "n n=1", ""])
def test_what_has_no_name_is_refused(given: str) -> None:
    with pytest.raises(UserError, match="not name=value"):
        read_parameters([given])


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="--param n is given twice"):
        read_parameters(["n=1", "n=2"])


@pytest.mark.parametrize(
    ("query", "values", "want"),
    [
        ("select count(*) as n from trials where configuration = $c", {"c": "default"}, 2),
        ("select count(*) as n from trials where block <= $b", {"b": 1}, 1),
        ("select count(*) as n from trials where block in $b", {"b": [1, 2]}, 2),
        ("select count(*) as n from trials where valid = $v", {"v": False}, 0),
        ("select count(*) as n from (from trials limit $n)", {"n": 1}, 1),
        ("select $a + $a as n", {"a": 0.25}, 0.5),
        ("select $text as n", {"text": "'; drop view trials; --"}, "'; drop view trials; --"),
        ("select count(*) as n from query_table($view)", {"view": "comparison"}, 0),
    ],
)
def test_values_reach_the_query(
    database: Database, query: str, values: dict[str, Any], want: Any
) -> None:
    assert database.query(query, values).to_pylist() == [{"n": want}]


@pytest.mark.parametrize(
    ("query", "values", "said"),
    [
        ("select $a, $b", {"a": 1}, r"asks for \$b, which has no value; give one with --param b=…"),
        ("select 1", {"a": 1}, r"does not ask for \$a; it has no parameter"),
        ("select $run", {"run": 1, "rnu": 2}, r"does not ask for \$rnu; it has \$run"),
        ("select ?", {}, r"write \$name, not \? or \$1"),
        ("select $1", {}, r"write \$name"),
        ("select $a", {"a": object()}, "object"),
        ("select $a", {"a": 2**200}, "128-bit"),
        ("select make_timestamp_ns($a)", {"a": "noon"}, "noon"),
    ],
)
def test_what_does_not_fit_is_told(
    database: Database, query: str, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        database.query(query, values)


def test_a_large_answer_with_parameters_comes_batch_by_batch(database: Database) -> None:
    with database.stream("select range as n from range($n)", {"n": 1_000_000}) as reader:
        sizes = [batch.num_rows for batch in reader]
    assert sum(sizes) == 1_000_000
    assert len(sizes) > 5


def test_a_value_is_no_name_of_a_file(database: Database, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(UserError):
        database.query("from read_csv($path)", {"path": str(tmp_path / "secret.csv")})
