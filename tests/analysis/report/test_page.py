"""The report says what the results say, of any results folder, and is a page that works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from analysis.load.results import NotResults, load
from analysis.measures.distribution import distributions
from analysis.measures.efficiency import estimate
from analysis.measures.roofline import roofline
from analysis.report import captions, facts, tables
from analysis.report import page as report
from analysis.report import rules as report_rules
from analysis.report.study import Study, write_tables
from tests.analysis import blocks, generate
from tests.analysis.report.conftest import EVIL, EVIL_ERROR, edit_outcome

MORE_TABLES = ("limits", "energy", "roofline", "accuracy", "utilization")


@dataclass
class Parsed(HTMLParser):
    """What a page is made of: every element with its attributes, and its text."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @classmethod
    def page(cls, path: Path) -> Parsed:
        parsed = cls()
        parsed.feed(path.read_text(encoding="utf-8"))
        return parsed

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def links(self) -> list[str]:
        return [str(a["href"]) for a in self.all("a")]


def test_the_report_and_its_data_lie_in_the_results_folder(hostile: Path, page: Path) -> None:
    assert page == hostile / "report" / "index.html"
    names = {"efficiency", "speedup", "throughput", "breakdown", "steps", "ranks", "order", "laws"}
    names |= {"accuracy", "utilization", "roofline"}
    assert {p.name for p in (page.parent / "figures").iterdir()} == {f"{n}{e}" for n in names for e in (".svg", ".png")}
    for name in ("estimates", "launches", "breakdown", "steps", "ranks", "laws", "claims", "set-aside", *MORE_TABLES):
        assert (page.parent / "tables" / f"{name}.csv").stat().st_size > 0
        assert len(pl.read_parquet(page.parent / "tables" / f"{name}.parquet")) > 0


def test_the_page_says_what_was_in_the_users_folder_and_what_was_not_taken(page: Path) -> None:
    text = Parsed.page(page).text
    assert f"/data/{EVIL} 1,200 images of 2 classes, 400 to 800 each; ? held out ({EVIL}/)" in text
    assert f"/data/{EVIL} 3,000 images in {EVIL}/ and ?, ? .webp files" in text


def test_it_can_be_written_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "results" / "trials").mkdir(parents=True)
    assert report.write(tmp_path / "results", tmp_path / "out") == tmp_path / "out" / "index.html"
    assert report.write(tmp_path / "results", tmp_path / "a.html") == tmp_path / "a.html"


def test_what_is_no_results_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotResults):
        report.write(tmp_path / "nowhere")


def test_the_tables_are_the_estimates(hostile: Path, page: Path) -> None:
    estimates = estimate(load(hostile))
    assert_frame_equal(pl.read_parquet(page.parent / "tables" / "estimates.parquet"), estimates)
    read = pl.read_csv(page.parent / "tables" / "estimates.csv", schema_overrides=estimates.schema)
    assert_frame_equal(read, estimates)


def test_the_page_shows_the_estimates(hostile: Path, page: Path) -> None:
    results = load(hostile)
    estimates = estimate(results)
    table = tables.scaling(estimates, results)
    efficiency = [column.name for column in table.columns].index("efficiency")
    assert [row[efficiency].sort for row in table.rows] == estimates["efficiency"].to_list()
    text = Parsed.page(page).text
    for row in table.rows:
        assert all(cell.text in text and cell.interval in text for cell in row)


def test_tables_are_in_the_unit_that_their_columns_say(hostile: Path) -> None:
    results = load(hostile)
    estimates, lower = estimate(results), distributions(results)
    for table, frame, names in (
        (tables.steps(lower.steps, results), lower.steps, {"p5, ms": "p5", "longest, ms": "longest"}),
        (tables.step_costs(estimates, results), estimates, {"median step, ms": "step_p50"}),
    ):
        for heading, name in names.items():
            at = [column.name for column in table.columns].index(heading)
            milliseconds = [float(row[at].text.replace(",", "")) for row in table.rows]
            assert milliseconds == pytest.approx((1e3 * frame[name]).to_list(), rel=0.01)


def test_the_sentence_on_efficiency_names_the_best_first(hostile: Path) -> None:
    estimates = estimate(load(hostile))
    for said, mode in zip(captions.efficiency(estimates), ("strong", "weak"), strict=True):
        at = estimates.filter(scaling=mode, workers=8).drop_nulls("efficiency").sort("efficiency")
        best, last = at.row(-1, named=True), at.row(0, named=True)
        assert f"{mode.capitalize()} scaling to 8 workers: {best['strategy']} keeps " in said
        assert f"of ideal, {last['strategy']} " in said


def test_of_many_launches_those_that_failed_are_shown_first(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_ROWS", 10)
    results = load(hostile)
    table = tables.launches(results)
    shown = [row[3].text for row in table.rows]
    assert (len(shown), table.left_out) == (10, len(results.trials) - 10)
    assert sum(status != "ok" for status in shown) == results.trials.filter(pl.col("status") != "ok").height


def test_every_local_link_resolves(page: Path) -> None:
    parsed = Parsed.page(page)
    identifiers = {a["id"] for _, a in parsed.elements if "id" in a}
    assert len([link for link in parsed.links() if link.startswith("tables/")]) > 10
    for link in parsed.links():
        assert link[1:] in identifiers if link.startswith("#") else (page.parent / link).is_file(), link


def test_identifiers_are_unique(page: Path) -> None:
    identifiers = [a["id"] for _, a in Parsed.page(page).elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))


def test_every_figure_says_what_it_shows_and_where_its_data_are(page: Path) -> None:
    parsed = Parsed.page(page)
    images = parsed.all("img")
    assert len(images) == len(parsed.all("figure")) == len(parsed.all("figcaption")) == 11
    alternatives = [str(image["alt"]) for image in images]
    assert len(set(alternatives)) == len(alternatives)
    assert all(len(words) > 60 and any(c.isdigit() for c in words) for words in alternatives)
    assert all(str(image["src"]).startswith("data:image/svg+xml;base64,") for image in images)


def test_nothing_of_the_results_becomes_markup(page: Path) -> None:
    parsed = Parsed.page(page)
    assert len(parsed.all("script")) == 1
    for _, attributes in parsed.elements:
        assert not [name for name in attributes if name.startswith("on")]
    for said in (EVIL, EVIL_ERROR, "</pre></details>", "∕b>"):
        assert said in parsed.text


def test_nothing_of_the_results_becomes_part_of_a_figure(page: Path) -> None:
    for path in (page.parent / "figures").glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert not tags & {"script", "a", "foreignObject", "image"}, path.name
        assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]


def test_nothing_is_loaded_from_elsewhere(page: Path) -> None:
    for tag, attributes in Parsed.page(page).elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert not str(attributes.get(name) or "").startswith(("http:", "https:", "//")), (tag, attributes)


def test_every_loss_is_named(hostile: Path, page: Path) -> None:
    results, text = load(hostile), Parsed.page(page).text
    lost = results.trials.filter(pl.col("status") != "ok")
    assert len(lost) == 2 + 4
    for trial_id, status in lost.select("trial_id", "status").iter_rows():
        assert f"{status} {trial_id}" in text
    for item in results.set_aside:
        assert item.path.name in text
        assert " ".join(item.reason.split()) in text
    for said in ("no TPU", "tf at more than 1 worker", "torch-n64-b512-0123abcd", "0 of at least 3 launches"):
        assert said in text


def test_the_factors_are_all_there(hostile: Path, page: Path) -> None:
    text = Parsed.page(page).text
    for name in (*load(hostile).factors, "global_batch", "physical_cores", "python 3.11.7", "hosts node-0"):
        assert name in text


def test_a_cpu_is_never_called_a_gpu() -> None:
    hardware = {"cpu": "Chip", "gpu": "Fast GPU"}
    assert facts.device({"hardware": hardware, "ranks": [{"device": "cpu"}]}) == "CPU (Chip)"
    assert facts.device({"hardware": {"cpu": "Chip"}, "ranks": []}) == "CPU (Chip)"
    assert facts.device({"hardware": hardware, "ranks": [{"device": "cuda:0"}]}) == "cuda:0 (Fast GPU)"
    assert facts.device({"hardware": {"cpu": "Chip", "emulated": True}}) == "emulated CPU (Chip)"


def test_emulated_results_say_so_first(tmp_path: Path) -> None:
    hardware = {"accelerator": "GPU of the future", "emulated": True}
    folder = generate.study(
        tmp_path / "results", ways=generate.TWO_BY_TWO[:1], workers=(1,), repeats=2, measured=5, hardware=hardware
    )
    assert "Emulated: these times were simulated" in Parsed.page(report.write(folder)).text


NO_OTHERS = pl.DataFrame(schema={"n_launches": pl.Int64})


def test_the_twelve_rules_are_answered_from_the_results(hostile: Path, tmp_path: Path) -> None:
    results = load(hostile)
    rules = report_rules.answers(results, estimate(results), NO_OTHERS, [], roofline(results, estimate(results)))
    assert [rule.number for rule in rules] == list(range(1, 13))
    assert rules[0].status == "met"
    assert "samples/s" in rules[0].answer
    lonely = load(generate.study(tmp_path / "a", ways=generate.TWO_BY_TWO[1:2], workers=(2,), repeats=1, measured=5))
    rules = report_rules.answers(lonely, estimate(lonely), NO_OTHERS, [], roofline(lonely, estimate(lonely)))
    assert [rules[0].status, rules[4].status, rules[10].status] == ["not met", "partly met", "not met"]


def test_the_margin_was_fixed_where_a_study_file_says_so(hostile: Path) -> None:
    results = load(hostile)
    for study, status in ((results.study | {"margin": 0.1}, "met"), ({}, "partly met")):
        told = replace(results, study=study)
        rules = report_rules.answers(told, estimate(told), NO_OTHERS, [], roofline(told, estimate(told)))
        assert rules[6].status == status
        assert ("10%" in rules[6].answer) == bool(study)


def test_a_drift_over_the_study_is_said(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "a", ways=generate.TWO_BY_TWO[:1], workers=(1,), repeats=12, measured=8)
    results = load(folder)
    assert "No drift" in captions.launch_order(results)
    slower = pl.col("train_seconds") * (1 + 0.05 * pl.col("order"))
    trials = results.trials.with_columns(throughput=pl.col("samples") / slower)
    drifting = type(results)(folder, results.study, trials, [], {}, results.factors)
    assert "became slower" in captions.launch_order(drifting)


def everything_failed(folder: Path) -> Path:
    generate.study(folder, workers=(1, 2), repeats=1, measured=4)
    for home in (folder / "trials").iterdir():
        edit_outcome(home, status="failed", error="rank 1 died")
    return folder


def no_trials(folder: Path) -> Path:
    (folder / "trials").mkdir(parents=True)
    return folder


def two_precisions(folder: Path) -> Path:
    ways = generate.TWO_BY_TWO[:3]
    generate.study(folder, ways=ways, workers=(1, 2), repeats=2, measured=6)
    other = generate.study(
        folder.with_name("other"), ways=ways, workers=(1, 2), repeats=2, measured=6, factors={"precision": "bfloat16"}
    )
    for home in (other / "trials").iterdir():
        shutil.move(home, folder / "trials" / home.name)
    return folder


UNUSUAL: dict[str, Callable[[Path], Path]] = {
    "everything-failed": everything_failed,
    "no-trials": no_trials,
    "two-precisions": two_precisions,
    "one-worker-count": lambda f: generate.study(f, workers=(1,), repeats=2, measured=6),
    "one-launch-without-base-case": lambda f: generate.study(
        f, ways=generate.TWO_BY_TWO[1:2], workers=(2,), repeats=1, measured=4, scaling=("strong",)
    ),
    "no-compute-only-phase": lambda f: generate.study(
        f, ways=generate.TWO_BY_TWO[:2], workers=(1, 2), repeats=2, measured=6, compute_only=0
    ),
}


@pytest.mark.parametrize("make", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_unusual_results_have_a_report(make: Callable[[Path], Path], tmp_path: Path) -> None:
    page = report.write(make(tmp_path / "results"))
    parsed = Parsed.page(page)
    assert "nan" not in parsed.text.lower().split()
    assert len(parsed.all("h2")) == 10
    for link in parsed.links():
        assert link.startswith("#") or (page.parent / link).is_file()


def test_a_thousand_ranks_make_no_giant_table(tmp_path: Path) -> None:
    ways = [generate.Way("torch"), generate.Way("torch-ddp")]
    folder = generate.study(
        tmp_path / "results", ways=ways, workers=(1000,), repeats=2, measured=4, compute_only=2, warmup=1,
        scaling=("weak",), per_worker=4,
    )  # fmt: skip
    page = report.write(folder)
    parsed = Parsed.page(page)
    assert len(parsed.all("tr")) < 100
    assert page.stat().st_size < 3_000_000
    assert "1,988 more rows are in the data" in parsed.text
    assert len(pl.read_csv(page.parent / "tables" / "ranks.csv")) == 2002


def test_a_study_with_the_base_case_beside_says_what_its_efficiency_is_from(tmp_path: Path) -> None:
    ways = [generate.Way("torch"), generate.Way("torch-ddp", weak=generate.efficient(0.8))]
    folder = generate.study(
        tmp_path / "r", ways=ways, workers=(1, 2), scaling=("weak",), repeats=3, measured=30, compute_only=30
    )
    blocks.into(folder, rounds=10, rates={"torch": 1000.0})
    plan = json.loads((folder / "plan.json").read_text()) | {"base_beside": {"torch-ddp-n4": "ranks on <2> hosts"}}
    (folder / "plan.json").write_text(json.dumps(plan))
    study = Study.of(load(folder))
    path = tmp_path / "page.html"
    path.write_text(report.render(study, {}))
    text = Parsed.page(path).text
    assert "efficiency, apart" in text
    assert "The base case beside other launches, and alone, 99% intervals" in text
    assert "torch-ddp-n4 ranks on <2> hosts" in text
    assert "summarized by the geometric mean" in text
    table = tables.scaling(study.estimates, study.results)
    column = [each.name for each in table.columns].index("over the base case")
    assert [row[column].text for row in table.rows] == ["–", "beside", "beside"]
    write_tables(study, tmp_path / "tables")
    said = pl.read_csv(tmp_path / "tables" / "base-beside.csv")
    assert said.select("base_case", "batch", "n_beside", "n_alone").rows() == [("torch", 64, 6, 3)]
    kept = pl.read_csv(tmp_path / "tables" / "estimates.csv")
    assert kept["efficiency_from"].to_list() == [None, "beside", "beside"]


def test_a_study_without_says_nothing_of_it(page: Path) -> None:
    assert "efficiency, apart" not in Parsed.page(page).text
    assert not (page.parent / "tables" / "base-beside.csv").exists()
