"""The study file: what it stands for, and how faults in it are said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.study import file
from cluster.study.grid import grid
from cluster.study.schema import Study, StudyError, json_schema, resolved
from jobs.contract.catalog import STRATEGIES

GOOD: dict[str, Any] = {
    "name": "n",
    "strategies": ["torch", "torch-ddp"],
    "batch": {"global": 64, "per_worker": 64},
}
STUDIES = sorted((Path(__file__).parents[3] / "studies").glob("*.yaml"))


def faults(change: dict[str, Any]) -> list[str]:
    with pytest.raises(StudyError) as caught:
        file.check(GOOD | change)
    return caught.value.faults


def points(change: dict[str, Any], largest: int = 4) -> list[tuple[str, int, int]]:
    found = grid(file.check(GOOD | change), largest).points
    return [(p.strategy, p.workers, p.global_batch) for p in found]


def test_points_that_strong_and_weak_share_are_measured_once() -> None:
    assert points({"workers": [1, 2]}) == [
        ("torch", 1, 64),
        ("torch-ddp", 1, 64),
        ("torch-ddp", 2, 64),
        ("torch-ddp", 2, 128),
    ]


def test_a_base_case_has_a_point_for_each_mode_though_one_worker_is_not_asked_for() -> None:
    assert points({"workers": [2], "batch": {"global": 128, "per_worker": 32}, "strategies": ["torch"]}) == [
        ("torch", 1, 128),
        ("torch", 1, 32),
    ]


def test_what_auto_leaves_out_is_said_and_weak_scaling_keeps_it() -> None:
    asked = {"strategies": ["torch", "torch-ddp"], "workers": "auto", "batch": {"global": 33, "per_worker": 8}}
    found = grid(file.check(GOOD | asked), 4)
    sizes = sorted((p.workers, p.global_batch) for p in found.points if p.strategy == "torch-ddp")
    assert sizes == [(1, 8), (1, 33), (2, 16), (4, 32)]
    said = "strong scaling at 2, 4 workers: batch.global 33 is not divisible; 32 is by all of 1, 2, 4"
    assert said in found.left_out


def test_auto_is_powers_of_two_and_all_cores_as_far_as_they_divide_the_batch() -> None:
    asked = {"strategies": ["torch-ddp"], "scaling": ["strong"], "workers": "auto"}
    assert [n for _, n, _ in points(asked, largest=6)] == [1, 2, 4]
    assert [n for _, n, _ in points(asked | {"batch": {"global": 96}}, largest=6)] == [1, 2, 4, 6]


def test_a_list_of_a_factor_multiplies_the_grid_and_pytorch_has_one_step_per_call() -> None:
    study = file.check(
        GOOD | {"strategies": ["torch", "tf"], "precision": ["float32", "float64"], "steps_per_call": [1, 5]}
    )
    found = [(p.strategy, p.precision, p.steps_per_call) for p in grid(study, 1).points]
    assert len(found) == 2 + 4
    assert {k for s, _, k in found if s == "torch"} == {1}


def test_devices_and_learning_rate_rules_multiply_the_grid() -> None:
    """Combinations that cannot be are left out, and only those."""
    asked = {"strategies": ["torch", "tf"], "precision": ["float32", "tf32"], "layout": ["default", "channels-last"]}
    study = file.check(GOOD | asked | {"resources": {"gpus_per_worker": [0, 1]}})
    found = grid(study, 1)
    combinations = [(p.strategy, p.precision, p.layout, p.gpus_per_worker) for p in found.points]
    assert len(set(combinations)) == len(combinations) == 6 + 3
    assert not [c for c in combinations if c[1] == "tf32" and not c[3]]
    assert sorted(line.split(":")[0] for line in found.left_out) == [
        "tf with layout channels-last",
        "tf with precision tf32",
        "torch with precision tf32",
    ]
    with pytest.raises(StudyError, match="torch with precision tf32: is a mode of NVIDIA GPUs"):
        grid(file.check(GOOD | {"precision": "tf32"}), 1)


def test_a_learning_rate_rule_refers_to_one_workers_batch_unless_told() -> None:
    asked = GOOD | {"learning_rate_rule": ["none", "linear"], "workers": [1, 2]}
    found = grid(file.check(asked), 2).points
    assert {(p.learning_rate_rule, p.reference_batch) for p in found} == {("none", None), ("linear", 64)}
    told = asked | {"batch": {"global": 64, "per_worker": 64, "reference": 256}}
    assert {p.reference_batch for p in grid(file.check(told), 2).points} == {None, 256}


def test_what_is_left_out_is_said_once() -> None:
    notes = grid(file.check(GOOD | {"strategies": ["torch", "tf-mirrored"], "workers": [1, 2, 4]}), 4).left_out
    assert len(notes) == 2
    assert "tf-mirrored: no speedup over plain tf" in notes[0]
    assert "torch at more than 1 worker" in notes[1]


def test_a_global_batch_that_does_not_divide_names_the_worker_count() -> None:
    with pytest.raises(StudyError) as caught:
        grid(file.check(GOOD | {"workers": [1, 3, 5]}), 8)
    assert caught.value.faults == [
        "batch.global: 64 is not divisible by 3 workers",
        "batch.global: 64 is not divisible by 5 workers",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"strategys": 1}, "strategys: is not a key of a study; did you mean strategies?"),
        (
            {"batch": {"global": 64, "per_wroker": 3}},
            "batch.per_wroker: is not a key of a study; did you mean per_worker?",
        ),
        ({"strategies": ["torch-dpp"]}, "strategies.0: 'torch-dpp' is not a strategy; did you mean torch-ddp?"),
        ({"strategies": []}, "strategies: [] is wrong"),
        ({"workers": [0]}, "workers.0: 0 is wrong"),
        ({"workers": [-2]}, "workers.0: -2 is wrong"),
        ({"workers": [True]}, "workers.0: True is wrong"),
        ({"steps": {"measured": 0}}, "steps.measured: 0 is wrong"),
        ({"repeats": {"min": 5, "max": 3, "until_ci": 0.1}}, "repeats: max 3 is below min 5"),
        ({"repeats": {"min": 5, "max": 9}}, "repeats: `max` and `until_ci` go together"),
        ({"batch": {"global": 64}}, "batch.per_worker: is missing; weak scaling needs it"),
        ({"precision": "float8"}, "precision: 'float8' is wrong"),
        ({"resources": {"gpus_per_worker": [0, 2]}}, "resources.gpus_per_worker.1: 2 is wrong"),
        ({"learning_rate_warmup": -1}, "learning_rate_warmup: -1 is wrong"),
        ({"until_accuracy": 0.9}, "steps.at_most: is missing; until_accuracy needs a number of steps"),
        ({"learning_rate_rule": "linear", "scaling": ["strong"]}, "batch.reference: is missing; without weak scaling"),
        ({"seed": "3"}, "seed: '3' is wrong"),
        ({"learning_rate": float("inf")}, "learning_rate: inf is wrong"),
        ({"limits": {"hang": 0}}, "limits.hang: 0 is wrong"),
        ({"data": {"kind": "digits", "path": "x"}}, "data: `path` goes with kind mnist or images only"),
    ],
)  # fmt: skip
def test_each_fault_is_one_line_with_place_and_remedy(change: dict[str, Any], said: str) -> None:
    found = faults(change)
    assert len(found) == 1, found
    assert found[0].startswith(said)


def test_all_faults_are_said_at_once() -> None:
    assert len(faults({"workers": [0], "seed": -1, "naem": "x"})) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"- a\n- b\n", "is a mapping of keys to values, not a list"),
        (b"just text", "not a str"),
        (b"a: [1,", ":1:"),
        (b"name: x\nname: y\n", ":2: the key 'name' is given twice"),
        (b"name: caf\xe9\n", ":1: not UTF-8"),
        (b"\xff\xfen\x00", "not UTF-8"),
        (b"a: &x [1]\nb: *x\n", "aliases"),
        (b"!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        (b"? [1, 2]\n: 3\n", "a key must be a plain word"),
        (b"x: 2020-99-99\n", "not readable as YAML"),
        (b"a" * (1 << 20) + b"b", "a study file has at most"),
    ],
)
def test_a_file_that_is_no_study_is_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    with pytest.raises(StudyError) as caught:
        file.parse(path)
    assert len(caught.value.faults) == 1
    assert said in caught.value.faults[0]
    assert str(path) in caught.value.faults[0]


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="No such file"):
        file.parse(tmp_path / "none.yaml")
    with pytest.raises(StudyError, match="Is a directory"):
        file.parse(tmp_path)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANYTHING = st.recursive(
    SCALARS,
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from([*Study.model_fields, "strategys", "nmae"])
VALUES = (
    ANYTHING
    | st.lists(st.sampled_from([*STRATEGIES, "torch-dpp"]), max_size=4)
    | st.lists(st.integers(-2, 40), max_size=4)
    | st.fixed_dictionaries({}, optional={k: st.integers(-1, 99) for k in ("global", "per_worker", "min", "max")})
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(change=st.dictionaries(KEYS | st.text(max_size=6), VALUES, max_size=4), largest=st.integers(1, 64))
def test_whatever_a_study_says_it_is_valid_or_its_faults_are_lines(change: dict[str, Any], largest: int) -> None:
    try:
        study = file.check(GOOD | change)
        found = grid(study, largest)
    except StudyError as error:
        assert error.faults
        assert all(fault and "\n" not in fault for fault in error.faults)
    else:
        assert found.points
        assert all(p.global_batch % p.workers == 0 for p in found.points)
        assert Study.model_validate(resolved(study)) == study


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text(alphabet="na:[]{}-&*!?|>#'\" \n\t%@`0.,", max_size=60).map(str.encode))
def test_whatever_bytes_a_file_holds_no_traceback_comes_out(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    try:
        file.parse(path)
    except StudyError as error:
        assert all(fault and "\n" not in fault for fault in error.faults)


def test_the_schema_takes_the_studies_we_ship_and_names_a_wrong_key() -> None:
    import jsonschema

    schema = json.loads(json.dumps(json_schema()))
    validator = jsonschema.Draft202012Validator(schema)
    assert STUDIES
    for path in STUDIES:
        assert not list(validator.iter_errors(yaml.safe_load(path.read_text()))), path
    assert list(validator.iter_errors(GOOD | {"nmae": 1}))
    assert list(validator.iter_errors(GOOD | {"strategies": ["torch-dpp"]}))


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.name)
def test_the_studies_we_ship_are_valid(path: Path) -> None:
    assert grid(file.parse(path), 2).points


def test_a_name_becomes_a_harmless_folder() -> None:
    assert file.check(GOOD | {"name": "../../<script> $(x)"}).slug == "script-x"
    assert file.check(GOOD | {"name": "日本"}).slug == "study"
