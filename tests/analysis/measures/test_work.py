"""The counts that the analysis has as data are those of the models."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from analysis.measures.work import COUNTED, FIELDS, Work, counted, reported
from jobs.contract.catalog import MODELS
from jobs.models.layers import work


def of_the_models(*names: str) -> str:
    """What work.csv is to hold; write it there if a model of then was counted wrongly."""
    lines = [",".join(("model", "side", "own", *FIELDS))]
    for info in (MODELS[name] for name in names):
        for side in info.sides:
            own = "yes" if side == info.side else ""
            lines.append(",".join(map(str, (info.name, side, own, *astuple(work(info.name, side))))))
    return "".join(f"{line}\n" for line in lines)


def test_every_row_is_what_the_model_counts() -> None:
    """Newer models need no row: their ranks say it."""
    assert COUNTED.read_text(encoding="utf-8") == of_the_models("cnn", "resnet50")


def test_a_model_has_its_own_side_if_nothing_is_said() -> None:
    for name in ("cnn", "resnet50"):
        own = counted(name)
        assert own is not None
        assert own == counted(name, MODELS[name].side)
        assert astuple(own) == astuple(work(name))


@pytest.mark.parametrize(("model", "side"), [("cnn", 64), ("resnet50", 513), ("resnet50", "wide"), ("mlp", None)])
def test_what_was_never_counted_has_no_work(model: str, side: object) -> None:
    assert counted(model, side) is None


SAID = {"flop": 4, "parameters": 3, "activations": 2, "image": 1}


def test_a_rank_says_its_work() -> None:
    assert reported({"ranks": [{"rank": 0}, {"rank": 1, "work": SAID}]}) == Work(4, 3, 2, 1)
    for wrong in (None, [], {}, SAID | {"flop": 0}, SAID | {"image": True}, SAID | {"parameters": "3"}):
        assert reported({"ranks": [{"work": wrong}, None]}) is None
    assert reported({}) is None
