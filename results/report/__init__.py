"""One page for a run: verdict, charts, doubts, provenance; from the archive alone.

`queries/*.sql` → `data.py` (small Arrow tables) → `charts.py` (Vega-Lite) and `text.py` (words) →
`page.py` (one HTML file). Nothing here measures or decides: numbers are the archive's, verdicts are
those of `results.comparing.compare`.
"""
