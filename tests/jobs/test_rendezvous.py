"""The meeting of the ranks."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.rendezvous import (
    LOOPBACK,
    RankEnvironment,
    Rendezvous,
    RendezvousError,
    horovod_variables,
    interface_of,
    master_port,
    rank_variables,
    tf_config,
)


def meet(count: int, nodes: int = 1) -> list[Rendezvous]:
    port, per_node = master_port(), count // nodes
    places = [RankEnvironment(r, count, r % per_node, per_node, r // per_node, LOOPBACK, port) for r in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda place: Rendezvous(place, "trial", 20.0), places))


def test_every_rank_learns_the_same_of_all_ranks() -> None:
    meetings = meet(4)
    for meeting in meetings:
        assert meeting.peers == meetings[0].peers
        assert [peer.rank for peer in meeting.peers] == [0, 1, 2, 3]
    assert len({peer.port for peer in meetings[0].peers}) == 4
    with ThreadPoolExecutor(4) as pool:
        gathered = list(pool.map(lambda m: m.gather({"rank": m.place.rank}), meetings))
    assert gathered == [[{"rank": r} for r in range(4)]] * 4
    for meeting in meetings:
        meeting.close()


def test_a_held_port_is_given_to_nobody_else_but_can_be_listened_on() -> None:
    (meeting,) = meet(1)
    address = meeting.held.getsockname()
    with socket.create_server(address):
        pass
    with socket.socket() as other, pytest.raises(OSError):
        other.bind(address)
    meeting.close()


def test_horovod_sees_two_nodes_of_two_though_they_share_an_address() -> None:
    meetings = meet(4, nodes=2)
    variables = [horovod_variables(m) for m in meetings]
    assert [v["HOROVOD_HOSTNAME"] for v in variables] == ["node0", "node0", "node1", "node1"]
    assert [v["HOROVOD_CROSS_RANK"] for v in variables] == ["0", "0", "1", "1"]
    assert {v["HOROVOD_CROSS_SIZE"] for v in variables} == {"2"}
    assert {v["HOROVOD_GLOO_IFACE"] for v in variables} == {interface_of(LOOPBACK)}
    assert '"index": 3' in tf_config(meetings[3])
    for meeting in meetings:
        meeting.close()


def test_a_stranger_at_the_door_is_not_taken_for_a_rank() -> None:
    port = master_port()
    places = [RankEnvironment(r, 2, r, 2, 0, LOOPBACK, port) for r in range(2)]

    def stranger() -> None:
        for _ in range(200):
            try:
                with socket.create_connection((LOOPBACK, port), timeout=1) as peer:
                    peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    return
            except OSError:
                continue

    with ThreadPoolExecutor(3) as pool:
        pool.submit(stranger)
        wrong = pool.submit(Rendezvous, places[1], "another trial", 2.0)
        first = pool.submit(Rendezvous, places[0], "trial", 20.0)
        with pytest.raises(RendezvousError):
            wrong.result()
        second = pool.submit(Rendezvous, places[1], "trial", 20.0)
        assert first.result().peers == second.result().peers
        first.result().close()
        second.result().close()


def test_a_rank_that_does_not_come_is_named() -> None:
    place = RankEnvironment(0, 3, 0, 3, 0, LOOPBACK, master_port())
    with pytest.raises(RendezvousError, match="rank 1, 2 did not come in time"):
        Rendezvous(place, "trial", 0.2)


def test_a_rank_that_goes_away_is_an_error_to_the_others() -> None:
    first, second = meet(2)
    second.close()
    with pytest.raises(RendezvousError, match="went away"):
        first.barrier()
    first.close()


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
