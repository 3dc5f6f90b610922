"""Several runs compared as one, drawn as the report draws one run."""

from __future__ import annotations

from collections.abc import Sequence

from results.comparing.compare import Comparison
from results.comparing.tables import explanations, where
from results.report import facts, forest, verdict
from results.serve.pages import render


def render_comparison(comparison: Comparison, notes: Sequence[str]) -> str:
    """The page of a comparison."""
    return render(
        "compare",
        comparison=comparison,
        lead=verdict.lead(comparison),
        tables=[(forest.forest_table(t), s) for t, s in verdict.all_sentences(comparison)],
        ratio_grids=facts.ratio_grids(comparison),
        confidence=f"{comparison.settings.confidence * 100:g} %",
        explanations=list(explanations(comparison)),
        forest_width=forest.WIDTH,
        forest_height=forest.HEIGHT,
        where=where,
        notes=notes,
    )
