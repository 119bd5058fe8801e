"""The meeting of the ranks."""

import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import psutil
import pytest

from jobs.contract.environment import LOOPBACK, PortTaken, RankEnvironment, RendezvousError
from jobs.machine.network import interface_of, master_port
from jobs.rank.rendezvous import Rendezvous, _receive
from jobs.strategies.horovod import horovod_variables
from jobs.strategies.tf.multiworker import tf_config
from tests.running import until


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


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-x\r\n", b"\0\0\0\2{}"])
def test_a_port_that_another_program_has_is_told_by_rank_0_and_by_nobody_else(says: bytes) -> None:
    """It accepts, may say something, and may hang up: the other ranks wait for rank 0, which finds out."""
    with socket.create_server((LOOPBACK, 0)) as thief, ThreadPoolExecutor(2) as pool:
        port = thief.getsockname()[1]
        second = pool.submit(Rendezvous, RankEnvironment(1, 2, 1, 2, 0, LOOPBACK, port), "trial", 1.0)
        guest, _ = thief.accept()
        guest.sendall(says)
        guest.close()
        assert not wait([second], timeout=0.3).done
        with pytest.raises(PortTaken, match=f"another program has port {port} of 127.0.0.1"):
            Rendezvous(RankEnvironment(0, 2, 0, 2, 0, LOOPBACK, port), "trial", 1.0)
        thief.close()
        with pytest.raises(RendezvousError, match=r"rank 0 cannot be reached at 127\.0\.0\.1"):
            second.result()


def test_a_held_port_on_which_another_program_listens_is_told() -> None:
    (meeting,) = meet(1)
    meeting.meet_no_stranger()
    with socket.create_server(meeting.held.getsockname()):
        with pytest.raises(PortTaken):
            meeting.listen()
        with pytest.raises(PortTaken):
            meeting.meet_no_stranger()
    meeting.listen()
    meeting.close()


@pytest.mark.parametrize("address", ["198.51.100.7", "::1", "no-such-host.invalid"])
def test_rank_0_says_at_once_that_it_cannot_listen_at_its_address(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(RendezvousError) as error:
        Rendezvous(RankEnvironment(0, 2, 0, 2, 0, address, 4711), "trial", 60.0)
    assert address in str(error.value)
    assert type(error.value) is RendezvousError  # another port would not help
    assert time.monotonic() - began < 20


def comes(port: int, count: int = 3) -> Callable[[int], Rendezvous]:
    """Rank r of as many as meet at the port."""
    return lambda rank: Rendezvous(RankEnvironment(rank, count, rank, count, 0, LOOPBACK, port), "trial", 20.0)


def connections(port: int, status: str) -> list[str]:
    """The addresses at which this process has connections in that state at the port."""
    found = psutil.Process().net_connections("tcp")
    return [c.laddr.ip for c in found if c.laddr.port == port and c.status == status]


def test_what_is_gathered_is_in_the_order_of_rank_whoever_came_first() -> None:
    port = master_port()
    with ThreadPoolExecutor(3) as pool:
        coming = [pool.submit(comes(port), rank) for rank in (0, 2)]
        until(lambda: connections(port, psutil.CONN_ESTABLISHED))
        coming.insert(1, pool.submit(comes(port), 1))
        meetings = [one.result() for one in coming]
    for meeting in meetings:
        assert [peer.rank for peer in meeting.peers] == [0, 1, 2]
        meeting.close()


def test_a_barrier_holds_every_rank_until_the_last_has_come() -> None:
    meetings = meet(4)
    with ThreadPoolExecutor(4) as pool:
        early = [pool.submit(meeting.barrier) for meeting in meetings[:3]]
        too_early = wait(early, timeout=0.3).done
        meetings[3].barrier()
        assert wait(early, timeout=20).not_done == set()
    assert too_early == set()
    for meeting in meetings:
        meeting.close()


def test_rank_0_waits_for_the_others_at_its_own_address_only() -> None:
    port = master_port()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(comes(port, 2), 0)
        heard = until(lambda: connections(port, psutil.CONN_LISTEN))
        second = pool.submit(comes(port, 2), 1)
        for meeting in (first.result(), second.result()):
            meeting.close()
    assert heard == [LOOPBACK]


def test_a_rank_that_is_there_already_is_not_replaced() -> None:
    port = master_port()
    with ThreadPoolExecutor(4) as pool:
        first, second = (pool.submit(comes(port), rank) for rank in (0, 1))
        until(lambda: connections(port, psutil.CONN_ESTABLISHED))
        twin = pool.submit(comes(port), 1)
        wait([twin], timeout=1)
        third = pool.submit(comes(port), 2)
        assert isinstance(twin.exception(), RendezvousError)
        meetings = [one.result() for one in (first, second, third)]
    assert meetings[1].peers == meetings[0].peers
    for meeting in meetings:
        meeting.close()


class Pieces:
    """The receiving end of a connection on which no more than three bytes come at a time."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    def recv(self, most: int) -> bytes:
        count = min(most, 3)
        piece, self._left = self._left[:count], self._left[count:]
        return piece


def test_messages_that_come_in_pieces_are_told_apart() -> None:
    wanted = [{"rank": 1, "word": "trial"}, list(range(20)), None]
    texts = [json.dumps(value).encode() for value in wanted]
    line = Pieces(b"".join(len(text).to_bytes(4, "big") + text for text in texts))
    receive = partial(_receive, line)
    assert [receive() for _ in wanted] == wanted
    with pytest.raises(OSError, match="closed"):
        receive()
