"""Cut cables, stalls and pauses: they cost time, and nothing else.

Each worker has a relay of its own to the broker. The witness counts starts outside of every session: the
n-th start of a frame makes the folder start.FRAME.n, and ends when gate.FRAME.n or gate.all is there.
"""
import os
import random
import signal
import socket
import struct

from farm import RELAY, Farm, equal, main, scenario, sessions, tree, until, write
from kills import away

COUNTED = ('run=n=1; while ! mkdir %(w)s/start.$FRAME.$n 2> /dev/null; do n=$((n + 1)); done; '
           'while [ ! -e %(w)s/gate.all ] && [ ! -e %(w)s/gate.$FRAME.$n ]; do sleep 0.02; done; '
           'echo "$FRAME start $n" > "$OUT/f.$FRAME"')


class Relay:
    """The way of one worker to its broker."""

    def __init__(self, farm, name):
        fifo = farm.path(name + ".commands")
        os.mkfifo(fifo)
        self.process = farm.start(name, [RELAY, "--commands", fifo, *[at[len("tcp://"):] for at in (farm.control, farm.bulk)]])
        line = until(lambda: self.process.log().endswith("\n") and self.process.log(), "the relay listens")
        self.control, self.bulk = ("tcp://127.0.0.1:" + port for port in line.split()[1:])
        self.fifo, self.told = open(fifo, "w", encoding="ascii"), 0

    def tell(self, command):
        self.fifo.write(command + "\n")
        self.fifo.flush()
        self.told += 1
        until(lambda: self.process.log().count("did ") == self.told, "the relay does it")

    def count(self):
        """Bytes that came from the peer, and for it."""
        self.tell("count")
        return tuple(int(word) for word in self.process.log().rsplit("did count ", 1)[1].split()[:2])


class Shot:
    def __init__(self, n_workers, relayed=True, slots="1"):
        self.farm, self.relays, self.boxes = Farm(), [], []
        self.n_workers, self.relayed, self.slots = n_workers, relayed, slots

    def __enter__(self):
        farm = self.farm
        farm.start_broker("--lease-seconds", "2")
        self.ann, self.ops = farm.person("ann"), farm.person("ops", studio=None, role="operator")
        self.witness = farm.path("witness")
        os.makedirs(self.witness)
        write(farm.path("shot", "input"), "x")
        for i in range(self.n_workers):
            relay = Relay(farm, "relay%d" % i) if self.relayed else None
            if relay:
                self.relays.append(relay)
            self.boxes.append(farm.worker("box%d" % i, "--no-probe", "--slots", self.slots, "--cores", self.slots,
                                          control=relay and relay.control, bulk=relay and relay.bulk))
        return self

    def __exit__(self, *what):
        self.farm.__exit__(*what)

    def argv(self, frames, run=COUNTED):
        return [self.farm.path("shot"), "--preset", "command", "-f", frames, "-o", self.farm.path("out"), "-p",
                run % {"w": self.witness}]

    def open(self, gate="all"):
        write(os.path.join(self.witness, "gate.%s" % gate), "")

    def starts(self):
        counted = {}
        for name in os.listdir(self.witness):
            if name.startswith("start."):
                frame = int(name.split(".")[1])
                counted[frame] = counted.get(frame, 0) + 1
        return counted

    def wait_starts(self, n):
        until(lambda: len(self.starts()) >= n, lambda: "%d frames have started: %s\n%s" % (n, self.starts(), self.farm.logs()))

    def home(self, job, frames):
        self.ann.ask("fetch", job, "--follow", "-o", self.farm.path("home"), code=0)
        equal(tree(self.farm.path("home")), {"f.%d" % frame: b"%d start %d\n" % (frame, n) for frame, n in frames.items()},
              "frames home, and of which start")
        equal(self.farm.results(job), {(0, frame - 1): 1 for frame in frames}, "current results")

    def lost(self, job):
        return [row for row in self.farm.attempts(job) if row[5] == 7]

    def at_rest(self):
        for i in range(self.n_workers):
            until(lambda i=i: not os.listdir(self.farm.path("box%d" % i, "spool")), "box%d keeps no result" % i)


def partition(frames, meanwhile):
    """All workers are cut off for longer than a lease and a frame, and come back one by one."""
    with Shot(3) as shot:
        job = shot.ann.submit(*shot.argv("1-%d" % frames))
        shot.wait_starts(3)
        shot.ann.wait_counts(job, running=3)
        until(lambda: len(shot.farm.rows("SELECT 1 FROM notes")) == 3, "what runs is noted")
        for relay in shot.relays:
            relay.tell("stall")
        until(lambda: len(away(shot.ops)) == 3, "the broker hears nobody")
        shot.open()
        shot.wait_starts(frames)
        for i in range(3):
            until(lambda i=i: len([name for name in tree(shot.farm.path("box%d" % i, "spool")) if name.endswith("/result")]) == frames // 3,
                  "box%d holds what it made" % i)
        equal(shot.ann.counts(job)["done"], 0, "frames that the broker knows of")
        meanwhile(shot)
        for i, relay in enumerate(shot.relays):
            relay.tell("open")
            until(lambda i=i: "box%d" % i not in away(shot.ops), "box%d is back" % i)
            shot.ann.wait_counts(job, done=(i + 1) * frames // 3)
        shot.home(job, dict.fromkeys(range(1, frames + 1), 1))
        equal(shot.starts(), dict.fromkeys(range(1, frames + 1), 1), "starts")
        equal(shot.lost(job), [], "attempts lost")
        shot.at_rest()


@scenario
def frames_go_on_while_the_broker_is_cut_off_from_all_workers_and_none_runs_again():
    partition(6, lambda shot: None)  # one that runs and one behind it, each


@scenario
def so_they_do_when_the_broker_is_killed_meanwhile():
    def kill(shot):
        shot.farm.broker.kill()
        shot.farm.start_broker("--lease-seconds", "2")

    partition(3, kill)


@scenario
def one_of_two_workers_cut_off_loses_its_frame_and_its_late_result_counts_where_it_is_first():
    late(first=True, pause=lambda shot: shot.relays[0].tell("stall"), go_on=lambda shot: shot.relays[0].tell("open"))


@scenario
def a_stopped_workers_late_result_counts_where_it_is_first():
    late(first=True)


@scenario
def a_stopped_workers_late_result_is_refused_where_it_is_second():
    late(first=False)


def late(first, pause=lambda shot: os.kill(shot.boxes[0].pid, signal.SIGSTOP),
         go_on=lambda shot: os.kill(shot.boxes[0].pid, signal.SIGCONT)):
    with Shot(1) as shot:
        job = shot.ann.submit(*shot.argv("1"))
        shot.wait_starts(1)
        shot.boxes.append(shot.farm.worker("box1", "--no-probe", "--slots", "1", "--cores", "1"))
        until(lambda: shot.ann.counts(job)["running"] == 1 and not away(shot.ops), "one runs it, and another is there")
        pause(shot)
        until(lambda: shot.starts() == {1: 2}, "the lease lapses, and the other starts the frame")
        if first:
            shot.open("1.1")
            go_on(shot)
        else:
            shot.open("1.2")
            shot.ann.wait_counts(job, done=1)
            shot.open("1.1")
            go_on(shot)
        shot.home(job, {1: 1 if first else 2})
        until(lambda: not away(shot.ops), "both are there")
        shot.at_rest()
        shot.open()
        until(lambda: not sessions(shot.farm.path("box1")), "the other start has ended")
        shot.at_rest()
        shot.home(job, {1: 1 if first else 2})
        equal([row[5] for row in shot.farm.attempts(job)], [7, 0], "the lapse, and the one result")


@scenario
def a_stopped_broker_finds_everything_as_it_was():
    with Shot(3, relayed=False) as shot:
        argv = shot.argv("1-6")
        render = shot.ann.start("render", *argv)
        try:
            shot.wait_starts(3)
            until(lambda: len(shot.farm.rows("SELECT 1 FROM notes")) == 3, "what runs is noted; the beats go to and fro")
            os.kill(shot.farm.broker.pid, signal.SIGSTOP)
            until(lambda: all("offline" in box.log() for box in shot.boxes), "no worker believes in the broker any more")
            shot.open()
            shot.wait_starts(6)
            os.kill(shot.farm.broker.pid, signal.SIGCONT)
            answer = shot.ann.finish(render, argv)
        finally:
            os.kill(shot.farm.broker.pid, signal.SIGCONT)
            render.kill()
        equal(answer.code, 0, answer)
        shot.home(answer.id, dict.fromkeys(range(1, 7), 1))
        equal(shot.lost(answer.id), [], "attempts lost")


@scenario
def a_stopped_client_misses_the_whole_job_and_the_brokers_death_and_brings_all_home():
    with Shot(1, relayed=False) as shot:
        argv = shot.argv("1-6")
        render = shot.ann.start("render", *argv)
        try:
            shot.wait_starts(1)
            os.kill(render.pid, signal.SIGSTOP)
            shot.open()
            job = shot.farm.rows("SELECT hex(job) FROM jobs")[0][0].lower()
            bob = shot.farm.person("bob")
            bob.wait_counts(job, done=6)
            shot.farm.broker.kill()
            shot.farm.start_broker("--lease-seconds", "2")
            bob.wait_counts(job, done=6)
            render.send_signal(signal.SIGCONT)
            answer = shot.ann.finish(render, argv)
        finally:
            render.send_signal(signal.SIGCONT)
            render.kill()
        equal(answer.code, 0, answer)
        equal(tree(shot.farm.path("out")), {"f.%d" % frame: b"%d start 1\n" % frame for frame in range(1, 7)}, "frames home")
        shot.home(job, dict.fromkeys(range(1, 7), 1))


@scenario
def bad_links_cost_time_only():
    chance = random.Random(7)
    with Shot(3, slots="2") as shot:
        shot.open()
        job = shot.ann.submit(*shot.argv("1-60", COUNTED + '; head -c 200000 /dev/urandom > "$OUT/big.$FRAME"'))
        for _ in range(24):
            relay = chance.choice(shot.relays)
            relay.tell(chance.choice(["cut", "stall", "delay 60", "delay 0"]))
            done = shot.ann.counts(job)["done"]
            relay.tell("open")
            if done == 60:
                break
        for relay in shot.relays:
            relay.tell("delay 0")
        shot.ann.wait_counts(job, done=60)
        shot.ann.ask("fetch", job, "--follow", "-o", shot.farm.path("home"), code=0)
        equal(len(tree(shot.farm.path("home"))), 120, "files home")
        equal(shot.farm.results(job), {(0, task): 1 for task in range(60)}, "current results")
        equal(shot.starts(), dict.fromkeys(range(1, 61), 1), "starts")
        shot.at_rest()


@scenario
def the_relay_lets_go_of_a_connection_that_both_sides_reset():
    with Farm() as farm, socket.create_server(("127.0.0.1", 0)) as target:
        farm.control = farm.bulk = "tcp://127.0.0.1:%d" % target.getsockname()[1]
        relay = Relay(farm, "relay")

        def held():
            return len(os.listdir("/proc/%d/fd" % relay.process.pid))
        at_first = held()
        relay.tell("delay 300")
        peer = socket.create_connection(("127.0.0.1", int(relay.control.rsplit(":", 1)[1])))
        ends = peer, target.accept()[0]
        for end in ends:
            end.sendall(b"x" * 1000)
        until(lambda: relay.count() == (1000, 1000), "it holds what both said")
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
        until(lambda: held() == at_first, "it holds no socket of theirs", 5)


if __name__ == "__main__":
    main()
