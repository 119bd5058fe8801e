"""What a rank is told by variables of its environment."""

from __future__ import annotations

import pytest

from jobs.contract.environment import RankEnvironment, RendezvousError, rank_variables


def test_rank_variables_survive_the_journey() -> None:
    place = RankEnvironment(3, 8, 1, 2, 1, "192.0.2.1", 29500)
    assert RankEnvironment.from_variables(rank_variables(place)) == place
    assert RankEnvironment.from_variables({}) == RankEnvironment()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is not set"),
        ({"RANK": "zero", "WORLD_SIZE": "1"}, "RANK is 'zero'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "not within WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_PORT is not set"),
    ],
)
def test_a_wrong_rank_environment_is_said(variables: dict[str, str], said: str) -> None:
    with pytest.raises(RendezvousError, match=said):
        RankEnvironment.from_variables(variables)
