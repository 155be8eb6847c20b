"""Attacks on a broker's sockets, with an honest load beside them: its frames wait no longer than twice as long as without,
none is lost and none comes twice, and the broker stays within a bound that follows from limits.h.

The attackers run on this machine, at nice 19. --seconds N: each attack lasts so long; --strangers N: so many unknown keys; --each: one attack at a time;
--told: the load's 99th percentile is told, not judged, since other tests run beside.
"""
import contextlib
import json
import multiprocessing
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import curve
import farm as farms
from curve import GREETING
from farm import BROKER, HOSTILE, Farm, check, equal, scenario, until, write

LOAD = os.environ.get("WESTLIGHT_LOAD", "westlight-load")
SECONDS, STRANGERS, TRIES, EACH, TOLD = 1.5, 2000, 3, False, False
WORKERS, TASK_MS = 20, 10
MIB = 1 << 20
# 4,096 newcomers of 24 KiB; what is sent in pieces until it is seen, three times 16 MiB and as much again in what is
# decrypted; 16 MiB that wait for a peer which does not read; and as much as the loads bring, which goes back later.
BOUND_BYTES = 256 * MIB


def address(endpoint):
    host, port = endpoint[len("tcp://"):].rsplit(":", 1)
    return host, int(port)


# ---- attackers without a key: each runs in a process of its own until it is ended

def connect(where):
    peer = socket.socket()
    peer.settimeout(5)
    try:
        peer.connect(where)
    except OSError:
        peer.close()
        return None
    peer.setblocking(False)
    return peer


def gone(peer):
    try:
        while True:
            if not peer.recv(65536):
                return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def say(peer, data):
    with contextlib.suppress(OSError):
        peer.send(data)


def half_open(where, told, n, first=b""):
    """So many connections that say no more than this; who is put out comes again."""
    held = []
    while True:
        held = [peer for peer in held if not gone(peer) or peer.close()]
        for _ in range(min(n - len(held), 200)):
            peer = connect(where)
            if peer:
                say(peer, first)
                held.append(peer)
        if len(held) == n:
            told.set()
        time.sleep(0.05)


def slow(where, told, hello, n, ages):
    """A byte a second, of the greeting and of what follows it. `ages`: the longest that one was borne."""
    held = []
    while True:
        while len(held) < n:
            peer = connect(where)
            if not peer:
                break
            text = GREETING + hello
            ahead = len(GREETING) if len(held) % 2 else 0
            say(peer, text[:ahead])
            held.append([peer, time.monotonic(), text[ahead:]])
        told.set()
        for entry in held:
            say(entry[0], entry[2][:1])
            entry[2] = entry[2][1:]
        now = time.monotonic()
        for peer, since, _ in held:
            ages.value = max(ages.value, now - since)
            if gone(peer):
                peer.close()
        held = [entry for entry in held if entry[0].fileno() >= 0]
        time.sleep(1)


def garbage(where, told, seed):
    chance = random.Random(seed)
    kinds = [lambda: b"GET / HTTP/1.1\r\n\r\n", lambda: chance.randbytes(chance.randrange(1, 4000)),
             lambda: GREETING[:chance.randrange(64)] + chance.randbytes(300), lambda: GREETING + chance.randbytes(300),
             lambda: GREETING + b"\x02" + (1 << 30).to_bytes(8, "big") + bytes(1000),
             lambda: GREETING + b"\x06" + (1 << 30).to_bytes(8, "big") + b"\x05HELLO" + bytes(1000)]
    held = []
    while True:
        peer = connect(where)
        if peer:
            say(peer, kinds[chance.randrange(len(kinds))]())
            held.append(peer)
        if len(held) > 50:
            told.set()
            held.pop(0).close()
        time.sleep(0.002)


# ---- with a key, by hand

class Seen:
    """What became of an attacker, as its process tells it: how often it was put out, and after how many bytes at most."""

    def __init__(self):
        self.times, self.most = multiprocessing.Value("i", 0), multiprocessing.Value("d", 0)

    def put_out(self, sent):
        self.times.value += 1
        self.most.value = max(self.most.value, sent)


def pieces(where, told, server, keys, seen):
    """A message that does not end."""
    while True:
        link, sent = curve.Link(where, server, keys), 0
        told.set()
        with contextlib.suppress(OSError):
            while True:
                link.socket.sendall(link.message(bytes(60000), more=True))
                sent += 60000
        seen.put_out(sent)
        link.socket.close()


def announced(where, told, server, keys, seen):
    """A frame of 1 GiB, and some of it."""
    while True:
        link = curve.Link(where, server, keys)
        link.socket.sendall(b"\x02" + (1 << 30).to_bytes(8, "big") + bytes(1000))
        told.set()
        with contextlib.suppress(ConnectionError):
            while link.socket.recv(65536):
                pass
        seen.put_out(1000)
        link.socket.close()
        time.sleep(0.02)


@contextlib.contextmanager
def raw(*attackers):
    """(function, arguments after `told`) of each, until the end of the block."""
    processes = []
    try:
        for function, where, *rest in attackers:
            told = multiprocessing.Event()

            def run(function=function, where=where, told=told, rest=tuple(rest)):
                os.nice(19)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                function(where, told, *rest)
            process = multiprocessing.Process(target=run, daemon=True)
            process.start()
            processes.append(process)
            check(told.wait(30), "%s has begun" % function.__name__)
        yield
        check(all(process.is_alive() for process in processes), "the attackers live")
    finally:
        for process in processes:
            process.kill()
            process.join()


# ---- the farm, the load, and attackers with a key

class Siege:
    def __init__(self, farm):
        self.farm = farm
        farm.start_broker()
        self.keys = farm.path("load.secret")
        for role in ("worker", "studio"):
            public = farm.run(LOAD, "--keys", self.keys, "--workers", str(WORKERS), "--public", role).stdout
            farm.run(BROKER, "allow", "--state", farm.state, "--role", role, *(["--studio", "load"] if role == "studio" else []),
                     "--from", write(farm.path("public"), public))
        self.key("worker", "mallory")
        self.key("studio", "mallet")
        self.key("studio", "mallets2")
        self.began = time.monotonic()

    def key(self, role, name):
        self.farm.allow(role, self.farm.new_key(self.farm.path(name)), name, "mallets" if role == "studio" else None)

    def hostile(self, mode, *arguments):
        return subprocess.Popen(["nice", "-n", "19", HOSTILE, mode, self.farm.control, self.farm.server_key, *(str(word) for word in arguments)], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True, env=self.farm.env)

    @contextlib.contextmanager
    def keyed(self, mode, key, seconds=60):
        attacker = self.hostile(mode, self.farm.path(key), seconds)
        try:
            if mode == "deaf":
                equal(attacker.stdout.readline(), "in\n", mode)
            yield attacker
            check(attacker.poll() in (None, 0), lambda: "%s: %s" % (mode, attacker.stdout.read()))
        finally:
            attacker.kill()
            attacker.wait()

    def start_load(self, seconds=None):
        frames = int((seconds or SECONDS) * 1000 / TASK_MS * WORKERS * 0.8)
        return subprocess.Popen([LOAD, "--broker", self.farm.control, "--server-key", self.farm.server_key, "--keys", self.keys,
                                 "--workers", str(WORKERS), "--slots", "1", "--prefetch", "0", "--task-ms", str(TASK_MS),
                                 "--frames", str(frames), "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=self.farm.env)

    def finish(self, load):
        """Every frame has one result, or the load says otherwise."""
        out, err = load.communicate(timeout=150)
        check(load.returncode == 0, "the load:", out, err, self.farm.logs())
        return json.loads(out)

    def load(self):
        return self.finish(self.start_load())["p99_ms"]

    def memory(self, peak=False):
        status = farms.read("/proc/%d/status" % self.farm.broker.pid).decode()
        return int(re.search(r"Vm%s:\s+(\d+) kB" % ("HWM" if peak else "RSS"), status).group(1)) << 10

    def judge(self, name, *attacks):
        """The load beside these attacks, all at once; with --each, one after the other."""
        if EACH and len(attacks) > 1:
            for number, attack in enumerate(attacks):
                self.judge("%s, %d" % (name, number + 1), attack)
            return
        @contextlib.contextmanager
        def attack():
            with contextlib.ExitStack() as stack:
                for enter in attacks:
                    stack.enter_context(enter())
                yield
        tried = []
        for _ in range(1 if TOLD else TRIES):
            before = self.load()
            write_over("/proc/%d/clear_refs" % self.farm.broker.pid, "5")
            began = self.memory()
            with attack():
                with_it = self.load()
            grown = self.memory(peak=True) - began
            check(self.farm.broker.alive(), "the broker lives")
            check(grown < BOUND_BYTES, "%s: the broker grew by %d MiB" % (name, grown // MIB))
            tried.append((before, with_it))
            print("        %-28s p99 %6.2f ms, without %6.2f; at most %3d MiB more" % (name, with_it, before, grown // MIB), flush=True)
            if with_it < 2 * before:
                return
        if not TOLD:
            raise farms.Failed("%s: p99 (without, with): %s" % (name, tried))


def write_over(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


@contextlib.contextmanager
def siege():
    with Farm() as farm:
        yield Siege(farm)


def limited(log):
    """Of each kind of line, no more than one a second (by the clock on the wall: two that are a second apart may share one)."""
    seen = {}
    for line in log.splitlines():
        words = line.split()
        if len(words) > 2 and words[1] in ("info", "warn", "error"):
            kind = (words[0][:19], words[2], words[3] if words[2] == "put_out" else "")
            seen[kind] = seen.get(kind, 0) + 1
    return {kind: n for kind, n in seen.items() if n > 2 and kind[1] not in ("worker",)}


# ---- facts

@scenario
def strangers_who_hold_connections_or_send_anything_disturb_nobody():
    with siege() as s:
        control, bulk, ages = address(s.farm.control), address(s.farm.bulk), multiprocessing.Value("d", 0)
        hello = curve.hello(curve.z85(s.farm.server_key), *curve.key_pair())
        with raw((slow, control, hello, 100, ages), (slow, bulk, hello, 100, ages)):
            s.judge("half-open, slow, garbage", lambda: raw((half_open, control, 1000), (half_open, bulk, 1000)),
                    lambda: raw((half_open, control, 1000, GREETING), (half_open, bulk, 1000, GREETING[:10])),
                    lambda: raw((garbage, control, 1), (garbage, bulk, 2)))
            until(lambda: ages.value > 4, "the slow are borne for some seconds")
            time.sleep(max(0, 10 - time.monotonic() + s.began))
        check(ages.value < 9, "the longest that one was borne: %.1f s" % ages.value)
        equal(limited(s.farm.broker.log()), {}, "lines a second")


@scenario
def keys_that_nobody_knows_are_refused_and_counted():
    with siege() as s:
        @contextlib.contextmanager
        def attack():
            strangers = s.hostile("strangers", STRANGERS)
            yield
            equal(strangers.communicate(timeout=600)[0], "refused %d\n" % STRANGERS, "strangers")
        s.judge("unknown keys", attack)
        told = lambda: sum(int(n) for n in re.findall(r"put_out endpoint=control refused=(\d+)", s.farm.broker.log()))
        until(lambda: told() >= STRANGERS, lambda: "they are counted: %d" % told())
        equal(limited(s.farm.broker.log()), {}, "lines a second")


@scenario
def messages_without_an_end_and_frames_without_measure_end_the_link():
    with siege() as s:
        keys, ends = curve.key_file(s.farm.path("mallory")), {"control": s.farm.control, "bulk": s.farm.bulk}
        kinds = [(function, address(ends[name]), s.farm.server_key, keys, Seen()) for name in ends for function in (pieces, announced)]
        s.judge("in pieces, 1 GiB announced", *((lambda kind=kind: raw(kind)) for kind in kinds))
        for function, *_, seen in kinds:
            print("        %s: put out %d times, after %.1f MiB at most" % (function.__name__, seen.times.value, seen.most.value / MIB), flush=True)
            check(0 < seen.times.value and seen.most.value < 128 * MIB, "times, and bytes at most:", seen.times.value, seen.most.value)
        for name in ends:
            until(lambda: re.search(r"put_out endpoint=%s .*unfinished=[1-9]" % name, s.farm.broker.log()), lambda: s.farm.broker.log()[-2000:])


@scenario
def who_floods_with_a_key_disturbs_nobody():
    with siege() as s:
        s.judge("submits, lists, forged tickets", lambda: s.keyed("submits", "mallet"), lambda: s.keyed("lists", "mallets2"),
                lambda: s.keyed("forger", "mallory"))
        for line in ('(flooded|unheard) peer="mallet"', 'forged peer="mallory"', "put_out endpoint=control"):
            until(lambda line=line: re.search(line, s.farm.broker.log()), lambda: s.farm.broker.log()[-2000:])
        equal(limited(s.farm.broker.log()), {}, "lines a second")


@scenario
def a_worker_that_takes_all_it_can_and_reads_nothing_disturbs_nobody():
    with siege() as s:
        boss, mallet = s.farm.person("boss", role="operator"), s.farm.person("mal", studio="mallets")
        write(s.farm.path("shot", "input"), "x")
        with s.keyed("deaf", "mallory") as deaf:
            boss.ask("workers", "pool", "mallory", "pit", code=0)
            deaf.stdin.write("\n")
            deaf.stdin.flush()
            job = mallet.submit(s.farm.path("shot"), "--preset", "command", "-f", "1-40000", "-p", "run=true", "-o",
                                s.farm.path("out"), "--pool", "pit")
            # TCP holds some, the queue some; what does not fit goes back, and it has to say Hello again.
            until(lambda: mallet.counts(job)["leased"], lambda: "it is given some: %s" % mallet.show(job))
            s.judge("a worker that reads nothing", contextlib.nullcontext)
        equal(limited(s.farm.broker.log()), {}, "lines a second")


@scenario
def a_broker_that_aborts_in_the_middle_is_back_at_once_and_nothing_is_lost():
    with siege() as s:
        control, bulk = address(s.farm.control), address(s.farm.bulk)
        load = s.start_load(2 * SECONDS)
        with raw((half_open, control, 500, GREETING), (garbage, control, 1), (garbage, bulk, 2)), s.keyed("submits", "mallet"):
            until(lambda: s.farm.rows("SELECT 1 FROM done LIMIT 1"), "results")
            os.kill(s.farm.broker.pid, signal.SIGABRT)
            began = time.monotonic()
            s.farm.broker.popen.wait(10)
            s.farm.start_broker()
            back = time.monotonic() - began
            s.finish(load)
        print("        back in %.2f s" % back, flush=True)
        check(back < 2, "back in %.2f s" % back)


def main():
    global SECONDS, STRANGERS, EACH, TOLD
    words = sys.argv[1:]
    EACH, TOLD = "--each" in words, "--told" in words
    words = [word for word in words if word not in ("--each", "--told")]
    for name in ("--seconds", "--strangers"):
        if name in words:
            at = words.index(name)
            SECONDS, STRANGERS = (float(words[at + 1]), STRANGERS) if name == "--seconds" else (SECONDS, int(words[at + 1]))
            del words[at:at + 2]
    sys.argv[1:] = words
    farms.main()


if __name__ == "__main__":
    main()
