"""The relay of ports on the real kernel: ports in one network namespace, the guest in another."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from lab.netns import wait_for
from qemu_netwrap.linux import files, port_relay, tcp_relay, udp_relay
from qemu_netwrap.linux.port_relay import Relayed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.fixtures import HostFactory, Watch
    from lab.netns import Host

CLONE_NEWNET: Final = 0x40000000
MIB: Final = 1 << 20
BLOCK: Final = os.urandom(MIB)
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
# The machine has several addresses, its own beside.
ADDRESSES: Final = ("198.51.100.1", "198.51.100.2", "2001:db8:51::1", "2001:db8:51::2")
ANY4, ANY6 = "0.0.0.0", "::"  # noqa: S104
FAMILIES: Final = [(at, to) for at in ("127.0.0.1", "::1") for to in ("127.0.0.1", "::1")]

# Bind ports, enter a user and network namespace, relay them to servers there, which send back what
# comes; print the ports and the relay's pid. Ends, with the relay, when its standard input does.
_ORDINARY: Final = """
import ctypes, fcntl, os, select, socket, struct, sys
from qemu_netwrap.linux import port_relay

kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}

def bound(kind):
    made = socket.socket(socket.AF_INET, kind)
    made.bind(("127.0.0.1", 0))
    return made

ports = {name: bound(kind) for name, kind in kinds.items()}
user, group = os.getuid(), os.getgid()
assert ctypes.CDLL(None).unshare(0x10000000 | 0x40000000) == 0
for name, text in ("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1"):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
servers = {name: bound(kind) for name, kind in kinds.items()}
fcntl.ioctl(servers["tcp"], 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS: up
servers["tcp"].listen()
relayed = [
    port_relay.Relayed(ports[name].fileno(), name, *servers[name].getsockname()) for name in kinds
]
pid = port_relay.start(relayed)
print(*(each.getsockname()[1] for each in ports.values()), pid, flush=True)
while sys.stdin not in (ready := select.select([sys.stdin, *servers.values()], [], [])[0]):
    if servers["udp"] in ready:
        data, source = servers["udp"].recvfrom(100)
        servers["udp"].sendto(data, source)
    else:
        connection, _ = servers["tcp"].accept()
        connection.sendall(connection.recv(100))
        connection.close()
os.kill(pid, 15)
os.waitpid(pid, 0)
"""

Address = tuple[str, int]


@contextlib.contextmanager
def network_of(host: Host) -> Iterator[None]:
    """Move this thread to a machine's network: a socket stays where it was created."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = (f"/proc/{os.getpid()}/task/{os.getpid()}/ns/net", f"/proc/{host.pid}/ns/net")
    home, there = (os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths)
    try:
        assert libc.setns(there, CLONE_NEWNET) == 0
        yield
    finally:
        assert libc.setns(home, CLONE_NEWNET) == 0
        os.close(home)
        os.close(there)


class Scene:
    """A machine (`outside`), the guests' network (`inside`), and relays between them."""

    def __init__(self, outside: Host, inside: Host, stack: contextlib.ExitStack) -> None:
        self.outside, self.inside, self._stack = outside, inside, stack
        self.pid = 0

    def made(self, host: Host, kind: int, address: str) -> socket.socket:
        """A socket in a machine's network, closed with the test; it does not wait for ever."""
        with network_of(host):
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        made.settimeout(60)
        return self._stack.enter_context(made)

    def bound(self, host: Host, kind: int, address: str, *, dual: bool = False) -> socket.socket:
        made = self.made(host, kind, address)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        made.bind((address, 0))
        return made

    def guest(self, kind: int, address: str = "127.0.0.1") -> socket.socket:
        """What serves in the guest."""
        made = self.bound(self.inside, kind, address)
        if kind == TCP:
            made.listen(1024)
        return made

    def relay(self, *pairs: tuple[socket.socket, Address]) -> None:
        """Relay what comes to a socket to an address in the guest."""
        wanted = [
            Relayed(bound.fileno(), "tcp" if bound.type == TCP else "udp", *target)
            for bound, target in pairs
        ]
        with network_of(self.inside):
            self.pid = port_relay.start(wanted)
        self._stack.callback(end, self.pid)

    def port(self, guest: socket.socket, at: str = "127.0.0.1") -> Address:
        """Relay a port of the machine to one of the guest; return the machine's."""
        bound = self.bound(self.outside, guest.type, at)
        self.relay((bound, guest.getsockname()[:2]))
        address: Address = bound.getsockname()[:2]
        return address

    def client(self, address: Address, kind: int = TCP) -> socket.socket:
        made = self.made(self.outside, kind, address[0])
        made.connect(address)
        return made

    def accepted(self, guest: socket.socket) -> socket.socket:
        made, _ = guest.accept()
        made.settimeout(60)
        return self._stack.enter_context(made)

    def connected(self, at: str = "127.0.0.1", to: str = "127.0.0.1") -> list[socket.socket]:
        """A relayed connection: the client's end, and the guest's."""
        guest = self.guest(TCP, to)
        client = self.client(self.port(guest, at))
        return [client, self.accepted(guest)]

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def leave(self, room: int) -> None:
        """Lower the relay's limit so that it can open ROOM descriptors more."""
        used = set(map(int, os.listdir(f"/proc/{self.pid}/fd")))
        limit = [fd for fd in range(room + len(used)) if fd not in used][room - 1] + 1
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (limit, limit))

    def wait_asleep(self) -> None:
        """Wait until the relay has nothing to do: one that spins never has."""
        stat = Path(f"/proc/{self.pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(") ")[2][0] == "S", "the relay to sleep")


def end(pid: int) -> None:
    """End a relay, which must have lived until now."""
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM


def is_usable(host: Host, address: str) -> bool:
    """Whether the kernel has finished with a new IPv6 address: its local route comes last."""
    wanted = socket.inet_pton(socket.AF_INET6, address).hex()
    routes = (line.split() for line in host.proc_net("ipv6_route").splitlines())
    local = 0x80000000  # RTF_LOCAL (linux/ipv6_route.h)
    return any(row[0] == wanted and int(row[8], 16) & local for row in routes)


@pytest.fixture
def scene(host_factory: HostFactory, watch: Watch) -> Iterator[Scene]:
    outside, inside = host_factory("outside"), host_factory("inside")
    for address in ADDRESSES:
        length = "128 nodad" if ":" in address else "32"
        outside.sh(f"ip address add {address}/{length} dev lo")
    for address in filter(lambda each: ":" in each, ADDRESSES):
        wait_for(lambda: is_usable(outside, address), address)  # noqa: B023
    watch.baseline(outside)
    with contextlib.ExitStack() as stack:
        yield Scene(outside, inside, stack)


@contextlib.contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Do WORK in a thread; its error is raised at the end."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join()
    assert not failed


def send(to: socket.socket, mib: int, first: bytes = b"") -> None:
    """Send MIB blocks, and the FIN."""
    to.sendall(first)
    for _ in range(mib):
        to.sendall(BLOCK)
    to.shutdown(socket.SHUT_WR)


def received(connection: socket.socket) -> tuple[int, str]:
    """How much comes until the FIN, and its checksum."""
    count, checksum = 0, hashlib.blake2b()
    while data := connection.recv(MIB):
        count += len(data)
        checksum.update(data)
    return count, checksum.hexdigest()


def exactly(connection: socket.socket, count: int) -> bytes:
    """The next COUNT bytes; fewer at the FIN."""
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data


def sent(mib: int, first: bytes = b"") -> tuple[int, str]:
    """What `received` returns for what `send` has sent."""
    checksum = hashlib.blake2b(first)
    for _ in range(mib):
        checksum.update(BLOCK)
    return mib * MIB + len(first), checksum.hexdigest()


def fill(to: socket.socket, scene: Scene, most: int = 1 << 30) -> int:
    """Send until neither the socket nor the relay takes more; return how much."""
    to.setblocking(False)
    count = 0
    try:
        while count < most:
            try:
                count += to.send(BLOCK)
            except BlockingIOError:
                scene.wait_asleep()
                count += to.send(BLOCK)
    except BlockingIOError:
        pass
    to.settimeout(60)
    assert count < most
    return count


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# TCP


@pytest.mark.parametrize(("at", "to"), FAMILIES)
def test_all_data_comes_through_both_ways(scene: Scene, at: str, to: str) -> None:
    client, guest = scene.connected(at, to)
    with (
        beside(lambda: send(client, 50, b"c")),
        beside(lambda: send(guest, 50, b"g")),
        beside(lambda: received_is(guest, sent(50, b"c"))),
    ):
        assert received(client) == sent(50, b"g")


def received_is(connection: socket.socket, wanted: tuple[int, str]) -> None:
    assert received(connection) == wanted


def test_a_socket_of_both_families(scene: Scene) -> None:
    """As it comes: whether it serves IPv4 too is its owner's to say."""
    guest = scene.guest(TCP)
    bound = scene.bound(scene.outside, TCP, ANY6, dual=True)
    bound.listen()  # already
    scene.relay((bound, guest.getsockname()))
    for address in ("127.0.0.1", "::1", *ADDRESSES):
        client = scene.client((address, bound.getsockname()[1]))
        client.sendall(b"x")
        assert scene.accepted(guest).recv(1) == b"x"


@pytest.mark.parametrize("who_is_first", [0, 1])
def test_a_half_closed_connection_goes_on(scene: Scene, who_is_first: int) -> None:
    ends = scene.connected()
    first, other = ends[who_is_first], ends[1 - who_is_first]
    first.sendall(b"all")
    first.shutdown(socket.SHUT_WR)
    assert received(other) == (3, hashlib.blake2b(b"all").hexdigest())
    with beside(lambda: send(other, 10)):
        assert received(first) == sent(10)
    wait_for(lambda: scene.descriptors() == idle_descriptors(1), "the relay to close both")


def idle_descriptors(ports: int) -> int:
    """What a relay has open: 0 to 2, its ports, epoll, a pipe."""
    return 3 + ports + 1 + 2


def test_a_fin_before_the_guest_has_answered(scene: Scene) -> None:
    guest = scene.guest(TCP)
    client = scene.client(scene.port(guest))
    send(client, 0, b"quick")
    accepted = scene.accepted(guest)
    assert received(accepted)[0] == 5
    send(accepted, 1)
    assert received(client) == sent(1)


def test_a_guest_that_refuses_resets_the_client(scene: Scene) -> None:
    guest = scene.guest(TCP)
    address = scene.port(guest)
    guest.close()
    for _ in range(3):
        with pytest.raises(ConnectionResetError):
            scene.client(address).recv(1)
    wait_for(lambda: scene.descriptors() == idle_descriptors(1), "the relay to close all")


def test_a_target_that_cannot_be_reached_resets_the_client(scene: Scene) -> None:
    bound = scene.bound(scene.outside, TCP, "127.0.0.1")
    scene.relay((bound, ("203.0.113.9", 1)))  # there is no route
    with pytest.raises(ConnectionResetError):
        scene.client(bound.getsockname()).recv(1)


@pytest.mark.parametrize("who_resets", [0, 1])
def test_a_reset_is_passed_on(scene: Scene, who_resets: int) -> None:
    ends = scene.connected()
    reset(ends[who_resets])
    with pytest.raises(ConnectionResetError):
        ends[1 - who_resets].recv(1)
    wait_for(lambda: scene.descriptors() == idle_descriptors(1), "the relay to close both")


@pytest.mark.parametrize("who_resets", [0, 1])
def test_a_reset_is_passed_on_when_nothing_is_read(scene: Scene, who_resets: int) -> None:
    """The other end's buffers are full: nothing more is read from the end that resets."""
    ends = scene.connected()
    fill(ends[who_resets], scene)
    reset(ends[who_resets])
    with pytest.raises(ConnectionResetError):
        received(ends[1 - who_resets])
    wait_for(lambda: scene.descriptors() == idle_descriptors(1), "the relay to close both")


def test_200_connections_at_once(scene: Scene) -> None:
    guest = scene.guest(TCP)
    address = scene.port(guest)
    clients = [scene.client(address) for _ in range(200)]
    for number, client in enumerate(clients):
        client.sendall(bytes([number]))
    accepted = [scene.accepted(guest) for _ in clients]
    for each in accepted:
        each.sendall(each.recv(1) * 2)
    for number, client in enumerate(clients):
        assert exactly(client, 2) == bytes([number]) * 2


def test_without_descriptors_clients_wait(scene: Scene) -> None:
    """And those that have been accepted go on."""
    guest = scene.guest(TCP)
    address = scene.port(guest)
    first = scene.client(address)
    first_accepted = scene.accepted(guest)
    room = 7  # for three connections more, and half of one
    before = scene.descriptors()
    scene.leave(room)
    clients = [scene.client(address) for _ in range(10)]
    for client in clients:
        client.sendall(b"x")
    accepted = [scene.accepted(guest) for _ in range(room // 2)]
    scene.wait_asleep()
    with beside(lambda: send(first, 5)):
        assert received(first_accepted) == sent(5)
    # Once a second it tries again, by a descriptor more.
    full = before + room - 1
    wait_for(lambda: scene.descriptors() == full, "the relay to have all it can")
    for _ in range(len(clients) - len(accepted)):
        each = accepted.pop(0)
        assert each.recv(1) == b"x"
        reset(each)
        accepted.append(scene.accepted(guest))
    for each in accepted:
        assert each.recv(1) == b"x"


def test_beyond_the_limit_clients_wait(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_relay, "MOST_CONNECTIONS", 3)
    guest = scene.guest(TCP)
    address = scene.port(guest)
    clients = [scene.client(address) for _ in range(9)]
    for client in clients:
        client.sendall(b"x")
    accepted = [scene.accepted(guest) for _ in range(3)]
    scene.wait_asleep()
    assert scene.descriptors() == idle_descriptors(1) + 6
    for _ in range(6):
        reset(accepted.pop(0))
        accepted.append(scene.accepted(guest))
    assert [each.recv(1) for each in accepted] == [b"x"] * 3


def test_a_reader_that_does_not_read_costs_no_memory(scene: Scene) -> None:
    guest = scene.guest(TCP)
    address = scene.port(guest)
    pairs = [(scene.client(address), scene.accepted(guest)) for _ in range(4)]
    for client, accepted in pairs:  # what is needed once, and kept
        client.sendall(BLOCK)
        exactly(accepted, MIB)
    scene.wait_asleep()
    before = resident(scene.pid)
    filled = [fill(client, scene) for client, _ in pairs]
    assert resident(scene.pid) - before < len(pairs) * 64 * 1024 + MIB
    for (client, accepted), count in zip(pairs, filled, strict=True):
        client.shutdown(socket.SHUT_WR)
        assert received(accepted)[0] == count


def resident(pid: int) -> int:
    """The memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("who_sends", [0, 1])
def test_urgent_data(scene: Scene, who_sends: int) -> None:
    """splice(2) stops before it, for ever."""
    ends = scene.connected()
    sender, reader = ends[who_sends], ends[1 - who_sends]
    for _ in range(3):
        sender.send(b"a")
        sender.send(b"!", socket.MSG_OOB)
        sender.send(b"b")
        assert exactly(reader, 3) == b"a!b"
        scene.wait_asleep()
    with beside(lambda: send(sender, 10)):
        assert received(reader) == sent(10)


def test_a_client_that_has_gone_while_its_data_waits(scene: Scene) -> None:
    """Both FINs are through at the client's end, which is reported as long as it is watched."""
    client, guest = scene.connected()
    count = fill(client, scene)
    client.shutdown(socket.SHUT_WR)
    guest.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    client.close()
    scene.wait_asleep()
    assert received(guest)[0] == count
    wait_for(lambda: scene.descriptors() == idle_descriptors(1), "the relay to close both")


# UDP


@pytest.mark.parametrize(("at", "to"), FAMILIES)
def test_datagrams_of_two_clients(scene: Scene, at: str, to: str) -> None:
    guest = scene.guest(UDP, to)
    address = scene.port(guest, at)
    clients = [scene.client(address, UDP) for _ in range(2)]
    seen = []
    for client in clients:
        for size in (0, 1, 1472, 65507):
            client.send(BLOCK[:size])
            data, source = guest.recvfrom(1 << 16)
            assert data == BLOCK[:size]
            guest.sendto(data[::-1], source)
            assert client.recv(1 << 16) == BLOCK[:size][::-1]
        seen.append(source)
    assert seen[0] != seen[1]
    for client, source in zip(clients, seen, strict=True):
        guest.sendto(b"later", source)
        assert client.recv(100) == b"later"


@pytest.mark.parametrize(
    ("at", "dual", "addresses"),
    [
        (ANY4, False, ("127.0.0.1", *ADDRESSES[:2])),
        (ANY6, False, ("::1", *ADDRESSES[2:])),
        (ANY6, True, ("127.0.0.1", "::1", *ADDRESSES)),
        (ADDRESSES[1], False, (ADDRESSES[1],)),
        (ADDRESSES[3], False, (ADDRESSES[3],)),
    ],
)
def test_answers_leave_from_the_address_that_was_spoken_to(
    scene: Scene, at: str, dual: bool, addresses: tuple[str, ...]
) -> None:
    guest = scene.guest(UDP)
    bound = scene.bound(scene.outside, UDP, at, dual=dual)
    scene.relay((bound, guest.getsockname()))
    asking = {family: scene.bound(scene.outside, UDP, family) for family in (ANY4, ANY6)}
    for address in addresses:
        client = asking[ANY6 if ":" in address else ANY4]
        client.sendto(b"?", (address, bound.getsockname()[1]))
        guest.sendto(b"!", guest.recvfrom(10)[1])
        assert client.recvfrom(10)[1][:2] == (address, bound.getsockname()[1])


def test_a_datagram_to_all(scene: Scene) -> None:
    """Its address is none that an answer can leave from."""
    guest = scene.guest(UDP)
    bound = scene.bound(scene.outside, UDP, ANY6, dual=True)
    scene.relay((bound, guest.getsockname()))
    client = scene.bound(scene.outside, UDP, ANY4)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    client.sendto(b"?", ("127.255.255.255", bound.getsockname()[1]))
    guest.sendto(b"!", guest.recvfrom(10)[1])
    assert client.recv(10) == b"!"


def test_sessions_are_bounded_and_the_idlest_goes(scene: Scene) -> None:
    guest = scene.guest(UDP)
    address = scene.port(guest)
    clients = [scene.client(address, UDP) for _ in range(udp_relay.MOST_SESSIONS + 20)]

    def source_of(client: socket.socket) -> Address:
        client.send(b"x")
        source: Address = guest.recvfrom(10)[1]
        return source

    sources = []
    for client in clients:
        sources.append(source_of(client))
        assert source_of(clients[0]) == sources[0]  # the first is never the idlest
    most = idle_descriptors(1) + udp_relay.MOST_SESSIONS
    wait_for(lambda: scene.descriptors() <= most, "the relay to close what it has ended")
    assert source_of(clients[-1]) == sources[-1]
    for number in (1, 0):
        guest.sendto(b"x", sources[number])
    assert clients[0].recv(10) == b"x"
    clients[1].setblocking(False)
    with pytest.raises(BlockingIOError):  # its session was the idlest
        clients[1].recv(10)


def test_idle_sessions_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp_relay, "IDLE_TIMEOUT", 0.5)
    guest = scene.guest(UDP)
    address = scene.port(guest)

    def is_answered(client: socket.socket) -> bool:
        client.send(b"x")
        guest.sendto(b"y", guest.recvfrom(10)[1])  # or the session has ended meanwhile
        try:
            return client.recv(10) == b"y"
        except TimeoutError:
            return False

    for _ in range(2):
        client = scene.client(address, UDP)
        client.settimeout(1)
        wait_for(lambda: is_answered(client), "an answer")  # noqa: B023
        wait_for(lambda: scene.descriptors() == idle_descriptors(1), "the session to end")


def test_a_guest_that_refuses_datagrams(scene: Scene) -> None:
    """An ICMP error is reported instead of sending the next one, which must not be lost."""
    guest = scene.guest(UDP)
    where = guest.getsockname()
    address = scene.port(guest)
    guest.close()
    client = scene.client(address, UDP)
    for _ in range(3):
        client.send(b"lost")
        scene.wait_asleep()
    again = scene.made(scene.inside, UDP, where[0])
    again.bind(where)
    client.send(b"here")
    # The kernel may hold back what is sent, and the relay sleeps until it comes.
    while (data := again.recv(10)) != b"here":
        assert data == b"lost"


def test_without_descriptors_a_session_takes_the_place_of_the_idlest(scene: Scene) -> None:
    guest = scene.guest(UDP)
    address = scene.port(guest)
    scene.leave(3)
    guest.settimeout(0.1)
    for _ in range(10):
        client = scene.client(address, UDP)

        def arrives(client: socket.socket = client) -> bool:
            client.send(b"x")
            try:
                return guest.recv(10) == b"x"
            except TimeoutError:
                return False

        wait_for(arrives, "a session")


# The process


def test_many_ports_by_one_relay(scene: Scene) -> None:
    guests = [scene.guest(kind, to) for kind in (TCP, UDP) for to in ("127.0.0.1", "::1")]
    bound = [scene.bound(scene.outside, guest.type, "127.0.0.1") for guest in guests]
    scene.relay(*zip(bound, (guest.getsockname()[:2] for guest in guests), strict=True))
    for guest, each in zip(guests, bound, strict=True):
        client = scene.client(each.getsockname(), guest.type)
        client.send(b"x")
        end_of_guest = scene.accepted(guest) if guest.type == TCP else guest
        assert end_of_guest.recv(10) == b"x"


def test_ports_of_an_ordinary_user(scene: Scene) -> None:
    """Into a namespace of the user's own, where no process outside has any rights."""
    words = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c")
    pipe = subprocess.PIPE
    with scene.outside.popen(*words, _ORDINARY, stdin=pipe, stdout=pipe, cwd="/") as user:
        assert user.stdout is not None
        tcp, udp, pid = map(int, user.stdout.readline().split())
        for port, kind in ((tcp, TCP), (udp, UDP)):
            client = scene.client(("127.0.0.1", port), kind)
            client.send(b"hello")
            assert client.recv(100) == b"hello"
        here, there = (os.readlink(f"/proc/{each}/ns/net") for each in (scene.outside.pid, pid))
        assert here != there
        user.communicate("")
    assert user.returncode == 0


def test_it_ends_if_it_is_not_told_to_go(scene: Scene) -> None:
    bound = scene.bound(scene.outside, TCP, "127.0.0.1")
    waiting, go = os.pipe2(os.O_CLOEXEC)
    pid = port_relay.start([Relayed(bound.fileno(), "tcp", "127.0.0.1", 1)], waiting)
    os.close(waiting)
    os.close(go)
    assert os.waitpid(pid, 0)[0] == pid


def test_nothing_is_kept_of_what_was_inherited(scene: Scene, tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    held = files.open_locked(lock)
    waiting, go = os.pipe()
    guest = scene.guest(TCP)
    bound = scene.bound(scene.outside, TCP, "127.0.0.1")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with network_of(scene.inside):
            pid = port_relay.start([Relayed(bound.fileno(), "tcp", *guest.getsockname())], waiting)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        os.close(held)
        os.close(waiting)
        os.write(go, b"+")
        os.close(go)
        client = scene.client(bound.getsockname())
        client.sendall(b"x")
        assert scene.accepted(guest).recv(1) == b"x"
        assert not files.is_locked(lock)
        folder = Path(f"/proc/{pid}/fd")
        links = {int(each.name): os.readlink(each) for each in folder.iterdir()}
        assert [links[fd] for fd in range(3)] == [os.devnull] * 3
        assert len(links) == idle_descriptors(1) + 2  # with the connection
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        for mask in ("SigBlk", "CapEff", "CapPrm"):
            assert int(status[mask], 16) == 0
        glibcs = 0b11 << 31  # the two that it keeps for itself (signal(7))
        assert int(status["SigCgt"], 16) & ~glibcs == 0
        # The C library lets nobody set those two: what started the tests may have ignored one.
        assert int(status["SigIgn"], 16) & ~glibcs == 1 << signal.SIGPIPE - 1
        assert os.getsid(pid) == pid
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
    finally:
        end(pid)


def test_a_socket_that_cannot_be_relayed_ends_the_child(scene: Scene) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(OSError, match="non-socket"):
        port_relay.start([Relayed(null, "tcp", "127.0.0.1", 1)])
    pid = port_relay.start([Relayed(null, "udp", "127.0.0.1", 1)])
    os.close(null)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
