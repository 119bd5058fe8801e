"""tf.data against DataLoader: the numbers, the verdict, the table and the figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from analysis.figures import write
from analysis.load.results import Results
from analysis.load.trial import COLUMNS
from analysis.verdicts import claims
from analysis.workloads import ingest

FRAMEWORKS = {"torch": "PyTorch", "tf": "TensorFlow"}


def results(rates: dict[tuple[str, str, int], float], noise: float = 0.01, with_source: bool = True) -> Results:
    """Five launches each, of 1,000 samples in batches of 10, at a rate given per (strategy, source, readers)."""
    rng, rows = np.random.default_rng(0), []
    for (strategy, source, readers), rate in rates.items():
        for repeat in range(5):
            seconds = 1000 / rate * rng.lognormal(0.0, noise)
            point = f"{strategy}-{source}-{readers}"
            row: dict[str, Any] = {
                "trial_id": f"{point}-r{repeat}", "point": point, "strategy": strategy,
                "framework": FRAMEWORKS[strategy], "communication": "none", "workers": 1, "global_batch": 10,
                "repeat": repeat, "strong": False, "weak": False, "status": "ok", "error": "", "emulated": False,
                "device": "Some CPU", "launcher": "local", "samples": 1000, "train_seconds": seconds,
                "throughput": 1000 / seconds, "cpu_seconds_per_sample": 0.002, "memory_bytes": 3e8,
            }  # fmt: skip
            factors = {"readers": readers, "workload": "ingest"} | ({"source": source} if with_source else {})
            rows.append({name: row.get(name) for name in COLUMNS} | factors)
    schema = COLUMNS | {"readers": pl.Int64, "workload": pl.String} | ({"source": pl.String} if with_source else {})
    factors = ("workload", "readers", *(["source"] if with_source else []))
    return Results(Path("made"), {"name": "made"}, pl.DataFrame(rows, schema=schema), [], {}, factors)


def grid(ratio: float, **other: float) -> dict[tuple[str, str, int], float]:
    """DataLoader at 100 samples/s for each reader; tf.data `ratio` times that, or as `other` says of a source."""
    return {
        (strategy, source, readers): 100.0 * readers * (1.0 if strategy == "torch" else other.get(source, ratio))
        for strategy in FRAMEWORKS
        for source in ("png", *other)
        for readers in (1, 2)
    }


def verdict(found: Results) -> claims.Verdict:
    return next(v for v in claims.judge(found) if v.claim.id == "tf-data-pipeline")


def test_the_numbers_of_files() -> None:
    frame = ingest.readings(results(grid(3.0, cached=9.0), noise=0.0))
    assert frame.select("source", "framework", "readers").rows() == [
        (source, framework, readers)
        for source in ("png", "cached")
        for framework in ("PyTorch", "TensorFlow")
        for readers in (1, 2)
    ]
    rates = frame.filter(source="cached", framework="TensorFlow")["throughput"].to_list()
    assert rates == [pytest.approx(900.0), pytest.approx(1800.0)]
    assert frame["over_one"].to_list() == [None, pytest.approx(2.0)] * 4
    assert frame["cpu_seconds"].to_list() == [pytest.approx(0.002)] * 8


@pytest.mark.parametrize(("ratio", "said"), [(1.5, "supported"), (0.7, "contradicted"), (1.0, "no difference")])
def test_the_claim_is_judged_on_files_as_they_are(ratio: float, said: str) -> None:
    """And not on records or on the cache, which are told beside."""
    found = verdict(results(grid(ratio, tfrecord=5.0, cached=0.2)))
    assert found.verdict == said
    assert [c.where() for c in found.comparisons if c.primary] == [
        "PNG files, 1 reader, batch 10",
        "PNG files, 2 readers, batch 10",
    ]
    beside = {c.where().split(",")[0]: c.verdict for c in found.comparisons if not c.primary}
    assert beside == {"cached": "contradicted", "TFRecord files": "supported"}


def test_results_from_before_there_were_sources_are_of_files() -> None:
    found = results(grid(1.5), with_source=False)
    assert set(ingest.readings(found)["source"]) == {"png"}
    assert verdict(found).verdict == "supported"


def test_table_words_and_figure_name_the_source(tmp_path: Path) -> None:
    found = results(grid(1.5, tfrecord=2.0, cached=9.0))
    frame = ingest.readings(found)
    console = Console(width=130, record=True)
    console.print(ingest.render(frame))
    text = console.export_text()
    assert all(name in text for name in ("PNG files", "TFRecord files", "cached", "tf.data", "DataLoader"))
    table = ingest.table(frame)
    assert [row[1].text for row in table.rows][:1] == ["PNG files"]
    assert "TensorFlow with 2 readers, cached, batch 10" in ingest.finding(frame)
    written = write.write_all(found, tmp_path)
    assert [path.name for path in written] == ["ingest.svg", "ingest.png"]
    assert all(path.stat().st_size > 10_000 for path in written)
