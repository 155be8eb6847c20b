"""Frames that come home whole: each once, lowest first, while everybody is killed.

    whole.py [--kills N] [--seed S] [SCENARIO...]

What is killed at a random byte of a transfer is killed N times (3); the seed repeats the choices.
"""
import ctypes
import glob
import hashlib
import json
import os
import random
import re
import struct
import sys
import time

import farm as farms
from farm import Farm, check, equal, lines, read, scenario, tree, until, write
from kills import shot_farm
from links import Relay

FRAMES, FRAME_BYTES = 240, 20000
KILLS, SEED = 3, int.from_bytes(os.urandom(4), "big")
# Every line of a frame names the run that made it: of two runs no whole file can be made.
TOKENS = ('run=t=$(cat /proc/sys/kernel/random/uuid); sleep 0.0$((FRAME %% 10)); yes "$FRAME $t" | head -c %d > "$OUT/f.$FRAME"'
          % FRAME_BYTES)


class Names:
    """What gets a name in a folder, in order, by inotify: nothing escapes that, however short it lasts."""
    CREATE, MOVED_TO, DELETE, MODIFY = 0x100, 0x80, 0x200, 0x2

    def __init__(self, folder):
        os.makedirs(folder)
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd, self.seen = libc.inotify_init1(os.O_NONBLOCK), []
        check(libc.inotify_add_watch(self.fd, folder.encode(), self.CREATE | self.MOVED_TO | self.DELETE | self.MODIFY) >= 0,
              "inotify:", os.strerror(ctypes.get_errno()))

    def events(self):
        """[(mask, name)]; those of hidden names are left out."""
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return self.seen
            while data:
                _, mask, _, size = struct.unpack_from("iIII", data)
                name = data[16:16 + size].rstrip(b"\0").decode()
                if name[0] not in ".#":  # a file that has no name yet is told by its number
                    self.seen.append((mask, name))
                data = data[16 + size:]

    def close(self):
        os.close(self.fd)


def is_whole(frame, data):
    words = set(data[:-1].split(b"\n")[:-1])
    return len(data) == FRAME_BYTES and len(words) == 1 and words.pop().startswith(b"%d " % frame)


def frame_of(name):
    return int(os.path.basename(name).split(".")[1])


def frames_in(text):
    found = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


class Siege:
    """A job of 240 frames whose client, broker and workers are killed as it comes home."""

    def __init__(self, farm, chance):
        self.farm, self.chance = farm, chance
        farm.start_broker("--lease-seconds", "4")
        self.ann = farm.person("ann")
        self.boxes = {name: self.start_box(name) for name in ("box1", "box2", "box3", "box4")}
        write(farm.path("shot", "input"), "x")
        self.job = self.ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-%d" % FRAMES, "-o", farm.path("out"), "-p", TOKENS)
        self.home = farm.path("home")
        self.names, self.runs, self.client = Names(self.home), [], self.fetch()

    def start_box(self, name):
        return self.farm.worker(name, "--no-probe", "--slots", "2", "--cores", "2")

    def fetch(self):
        return self.ann.start("fetch", self.job, "--follow", "--json", "-o", self.home)

    def ended(self):
        """The client's exit code, and what it told of each file."""
        answer = self.ann.finish(self.client)
        told = [json.loads(line) for line in answer.out.split("\n") if line.endswith("}")]  # a kill may cut the last
        self.runs.append([line for line in told if "file" in line])
        return answer

    def kill(self, who):
        if who == "client":
            self.client.kill()
            self.ended()
            self.client = self.fetch()
        elif who == "broker":
            self.farm.broker.kill()
            self.farm.processes.remove(self.farm.broker)
            self.farm.start_broker("--lease-seconds", "4")
        else:
            name = self.chance.choice(sorted(self.boxes))
            self.boxes[name].kill()
            self.farm.processes.remove(self.boxes[name])
            self.boxes[name] = self.start_box(name)

    def look(self):
        """All that can be seen can be played, and what counts as delivered is there."""
        delivered = frames_in(self.ann.show(self.job)["steps"][0]["frames_delivered"])
        home = {frame_of(name): data for name, data in tree(self.home).items() if not name.startswith(".")}
        check(set(delivered) <= set(home), "delivered and not home:", sorted(set(delivered) - set(home)))
        equal([frame for frame, data in home.items() if not is_whole(frame, data)], [], "frames that can be seen and are not whole")

    def finish(self):
        """Brings the rest; takes up what was parked because its workers were killed three times."""
        while True:
            answer = self.ended()
            if answer.code == 0:
                return
            parked = frames_in(self.ann.show(self.job)["steps"][0]["frames_failed"])
            lost = {task + 1 for task, in self.farm.rows("SELECT task FROM attempts WHERE class = 7 GROUP BY task HAVING count(*) >= 3")}
            check(parked and set(parked) <= lost, "only who was killed thrice is parked:", parked, answer)
            self.ann.ask("retry", self.job, "-f", ",".join(map(str, parked)), code=0)
            self.client = self.fetch()


def receipts(person):
    """{path: (sequence, step, task, size, mtime_ns, inode)}: the newest of each, as client/receipts.h says."""
    found = {}
    for path in glob.glob(person.home + "/.state/westlight/receipts/*"):
        for record in read(path).split(b"\0")[1:-1]:  # the first is the form's
            _, _, *numbers, name = record.decode().split(" ", 8)
            found[name] = tuple(map(int, numbers))
    return found


@scenario
def every_frame_of_240_comes_home_once_while_client_broker_and_workers_are_killed():
    chance = random.Random(SEED)
    with Farm() as farm:
        siege = Siege(farm, chance)
        kills = ["client", "broker", "worker"] * 8
        chance.shuffle(kills)
        for who, at in zip(kills, sorted(chance.sample(range(2, FRAMES - 5), len(kills)))):
            until(lambda at=at: len(siege.names.events()) >= at, lambda: "%d frames are home\n%s" % (at, farm.logs()))
            time.sleep(chance.uniform(0, 0.05))  # the random moment is what this is about
            siege.look()
            siege.kill(who)
        siege.finish()
        siege.look()

        every = range(1, FRAMES + 1)
        events = siege.names.events()
        equal([name for mask, name in events if not mask & (Names.CREATE | Names.MOVED_TO)], [], "files that were changed or removed")
        arrived = [frame_of(name) for _, name in events]
        equal(sorted(arrived), list(every), "frames that got a name, each once")
        equal(farm.results(siege.job), {(0, task): 1 for task in range(FRAMES)}, "current results")
        told = [(line["file"], line["skipped"]) for run in siege.runs for line in run]
        written = [frame_of(name) for name, skipped in told if not skipped]
        equal(len(set(written)), len(written), "frames that are told to be written, each once")
        order = list(dict.fromkeys(frame_of(name) for name, _ in told))
        equal(sorted(order), list(every), "frames of which the order is told")
        for run in siege.runs:
            ranks = [arrived.index(frame_of(line["file"])) for line in run if not line["skipped"]]
            check(all(abs(rank - place) < 64 for place, rank in zip(sorted(ranks), ranks)), "the order that is told is none of arrival:", ranks)

        known = receipts(siege.ann)
        equal(sorted(known), sorted("f.%d" % frame for frame in every), "receipts")
        stored = {task: (sequence, floor) for sequence, task, floor in farm.rows(
            "SELECT sequence, task, floor FROM attempts WHERE class = 0 AND job = ?", bytes.fromhex(siege.job))}
        for name, (sequence, step, task, size, mtime_ns, inode) in known.items():
            status = os.stat(os.path.join(siege.home, name))
            equal((sequence, step, task + 1, size, mtime_ns, inode),
                  (stored[task][0], 0, frame_of(name), status.st_size, status.st_mtime_ns, status.st_ino), "the receipt of " + name)
        delivered = {task: floor for first, last, floor in farm.rows("SELECT first, last, floor FROM delivered ORDER BY sequence")
                     for task in range(first, last + 1)}
        equal(delivered, {task: floor for task, (_, floor) in stored.items()}, "what the broker was told is home, and of which floor")
        equal([name for name in os.listdir(siege.home) if name.startswith(".")], [], "temporary files")
        siege.names.close()


@scenario
def of_the_frames_that_wait_the_lowest_come_home_first():
    with Farm() as farm:
        ann, shot = shot_farm(farm, slots=6)
        run = 'run=while [ $FRAME -le 3 ] && [ ! -e %s/gate.all ]; do sleep 0.05; done; echo "$FRAME" > "$OUT/f.$FRAME"' % shot.witness
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-60", "-o", farm.path("out"), "-p", run)
        ann.wait_counts(job, done=57)  # more than a page of results
        shot.open()
        ann.wait_counts(job, done=60)
        answer = ann.ask("fetch", job, "--follow", "--json", "-o", farm.path("home"), code=0)
        told = [json.loads(line) for line in answer.out.splitlines()]
        equal([line["task"] for line in told[:-1]], ["frame %d" % frame for frame in range(1, 61)], "the order of arrival")
        equal((told[-1]["files"], told[-1]["phase"]), (60, "done"), "the last line")


@scenario
def show_tells_which_frames_are_delivered_and_which_are_only_done():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        job = shot.submit(ann, "1-12")
        for frame in (1, 2):
            shot.open(frame)
        ann.wait_counts(job, done=2)
        ann.ask("fetch", job, "-o", farm.path("home"), code=4)
        shot.open(3)
        ann.wait_counts(job, done=3, running=2)
        said = ann.ask("show", job, code=0).out
        check(re.search(r"frames   1-12: delivered 1-2, done 3, rendering [\d,-]+, (next [\d,-]+, )?waiting [\d,-]+12\n", said), said)
        equal([ann.show(job)["steps"][0][name] for name in ("frames_done", "frames_delivered")], ["1-3", "1-2"], "as JSON")
        shot.open()
        shot.home(ann, job, 12)
        check("frames   1-12: delivered 1-12\n" in ann.ask("show", job, code=0).out, "at the end")
        ann.ask("retry", job, "-f", "5", code=0)
        ann.wait_counts(job, done=12)
        said = ann.ask("show", job, code=0).out
        check("frames   1-12: delivered 1-4,6-12, done 5\n" in said, said)


# ---- killed at a random byte

MIB = 1 << 20
WINDOW = 32 * MIB  # LIMIT_WINDOW_BYTES


def bytes_below(*folders):
    """Of files that have their name: what is being written counts as lost."""
    total = 0
    for folder in folders:
        for base, _, names in os.walk(folder):
            for name in names:
                if not name.startswith(("put-", ".")) and not name.endswith(".new"):
                    total += os.path.getsize(os.path.join(base, name))
    return total


class Transfer:
    """Bytes on their way through a relay, which holds them while nobody is to be killed. Whoever is, is killed by it
    at a random byte, so near that all kills fall into the transfer. What passed and is not where it belongs has passed
    for nothing. One who survives a kill sends a window of what was lost with it."""

    def __init__(self, farm, direction, there, survives=False):
        self.farm, self.direction, self.there, self.survives = farm, direction, there, survives
        self.size = (KILLS + 1) * (40 if KILLS > 3 else 12) * MIB  # more than a window between two, where there is time
        self.relay, self.chance = Relay(farm, "relay%s" % len(farm.processes)), random.Random(SEED)
        self.lost, self.kills = [], 0
        self.relay.tell("stall")

    def go(self):
        self.relay.tell("open")

    def in_vain(self):
        return self.relay.count()[self.direction] - self.there()

    def kill(self, pid, gone):
        """Once it has passed so many bytes more; what that cost."""
        self.kills += 1
        self.relay.tell("kill %d %d" % (self.chance.randrange(1, self.size // (KILLS + 1)), pid))
        self.go()
        until(lambda: "killed %d\n" % pid in self.relay.process.log(), lambda: "%d is killed\n%s" % (pid, self.farm.logs()), 120)
        self.relay.tell("stall")
        gone()
        self.lost.append(self.in_vain())

    def judge(self, exactly=True):
        """At most a window is lost by a kill, and nothing without one. Each peer says what it wants, too."""
        slack, steps = MIB + self.size // 50, []
        for before, after in zip([0, *self.lost], self.lost):
            steps.append(after - before)
        check(max(steps) <= WINDOW + slack, "bytes lost by each kill:", steps)
        rest = self.in_vain() - self.lost[-1]
        check(not exactly or rest <= slack + (WINDOW if self.survives else 0), "bytes sent for nothing without a kill: %d; by each kill: %s" % (rest, steps))
        print("        %d kills, %d MiB, sent twice: %.1f MiB, at most %.1f by a kill" % (
            self.kills, self.size // MIB, self.in_vain() / MIB, max(steps) / MIB), flush=True)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def project(farm, size):
    """A scene of two files that no compressor makes smaller; what the frame says of it."""
    data = [os.urandom(size // 2) for _ in range(2)]
    for name, part in zip("ab", data):
        write(farm.path("shot", name), part)
    return ["submit", farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "-p",
            'run=sha256sum < a > "$OUT/f.1"; sha256sum < b >> "$OUT/f.1"'], "".join(digest(part) + "  -\n" for part in data).encode()


def vault(farm):
    return os.path.join(farm.state, "vault")


@scenario
def a_client_killed_at_random_bytes_of_an_upload_sends_at_most_a_window_twice():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        upload = Transfer(farm, 0, lambda: bytes_below(vault(farm)))
        argv, said = project(farm, upload.size)
        ann.configure(bulk=upload.relay.bulk)
        client = ann.start(*argv)
        for _ in range(KILLS):
            upload.kill(client.pid, client.communicate)
            client = ann.start("submit", "--resume")
        upload.go()
        answer = ann.finish(client)
        equal(answer.code, 0, answer)
        upload.judge()
        farm.worker("box1", "--no-probe")
        ann.ask("fetch", answer.id, "--follow", "-o", farm.path("home"), code=0)
        equal(tree(farm.path("home")), {"f.1": said}, "what the worker had")


@scenario
def a_broker_killed_at_random_bytes_of_an_upload_is_sent_at_most_a_window_twice():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        upload = Transfer(farm, 0, lambda: bytes_below(vault(farm)), survives=True)
        argv, said = project(farm, upload.size)
        ann.configure(bulk=upload.relay.bulk)
        client = ann.start(*argv)
        for _ in range(KILLS):
            upload.kill(farm.broker.pid, lambda: (farm.broker.kill(), farm.start_broker()))
        upload.go()
        answer = ann.finish(client)
        equal(answer.code, 0, answer)
        upload.judge()
        farm.worker("box1", "--no-probe")
        ann.ask("fetch", answer.id, "--follow", "-o", farm.path("home"), code=0)
        equal(tree(farm.path("home")), {"f.1": said}, "what the worker had")


@scenario
def a_worker_killed_at_random_bytes_of_its_inputs_gets_at_most_a_window_twice():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        inputs = Transfer(farm, 1, lambda: bytes_below(farm.path("box1", "cache")))
        argv, said = project(farm, inputs.size)
        job = ann.ask(*argv, code=0).id

        def start():
            return farm.worker("box1", "--no-probe", bulk=inputs.relay.bulk)
        box = start()
        for _ in range(KILLS):
            inputs.kill(box.pid, box.kill)
            box = start()
        inputs.go()
        ann.ask("fetch", job, "--follow", "-o", farm.path("home"), code=0)
        equal(tree(farm.path("home")), {"f.1": said}, "what the worker had")
        inputs.judge()


@scenario
def a_worker_killed_at_random_bytes_of_its_result_sends_at_most_a_window_twice():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        result = Transfer(farm, 0, lambda: bytes_below(vault(farm)))
        result.go()
        write(farm.path("shot", "input"), "x")
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "-p",
                         'run=head -c %d /dev/urandom > "$OUT/f.1"; sha256sum < "$OUT/f.1" >> %s; while [ ! -e %s ]; do sleep 0.05; done' % (
                             result.size, farm.path("sums"), farm.path("gate")))

        def start():
            return farm.worker("box1", "--no-probe", bulk=result.relay.bulk)
        box = start()
        until(lambda: len(lines(farm.path("sums"))) == 2, farm.logs)
        result.relay.tell("stall")
        write(farm.path("gate"), "")
        until(lambda: glob.glob(farm.path("box1", "spool", "*", "result")), farm.logs)
        for _ in range(KILLS):
            result.kill(box.pid, box.kill)
            box = start()
        result.go()
        ann.ask("fetch", job, "--follow", "-o", farm.path("home"), code=0)
        equal(digest(tree(farm.path("home"))["f.1"]), lines(farm.path("sums"))[0], "the frame")
        equal(len(lines(farm.path("sums"))), 2, "it was rendered once")
        result.judge()


@scenario
def a_client_killed_at_random_bytes_of_a_fetch_gets_at_most_a_window_twice():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        # What is kept may be home as well: what a kill costs is told exactly where there is but one, below.
        fetch = Transfer(farm, 1, lambda: bytes_below(farm.path("home"), ann.home + "/.state/westlight/arriving"))
        write(farm.path("shot", "input"), "x")
        farm.worker("box1", "--no-probe", "--slots", "2", "--cores", "2")
        frames = fetch.size // (4 * MIB)
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-%d" % frames, "-o", farm.path("out"), "-p",
                         'run=f="$OUT/f.$FRAME"; head -c %d /dev/urandom > "$f"; sha256sum < "$f" > %s.$FRAME' % (4 * MIB, farm.path("sum")))
        ann.wait_counts(job, done=frames)
        ann.configure(bulk=fetch.relay.bulk)
        argv = ("fetch", job, "--follow", "-o", farm.path("home"))
        client = ann.start(*argv)
        for _ in range(KILLS):
            fetch.kill(client.pid, client.communicate)
            client = ann.start(*argv)
        fetch.go()
        answer = ann.finish(client)
        equal(answer.code, 0, answer)
        equal({name: digest(data) for name, data in tree(farm.path("home")).items()},
              {"f.%d" % frame: lines(farm.path("sum.%d" % frame))[0] for frame in range(1, frames + 1)}, "the frames")
        check(fetch.in_vain() <= KILLS * WINDOW + MIB, "%.1f MiB came twice" % (fetch.in_vain() / MIB))
        fetch.judge(exactly=False)


@scenario
def a_client_killed_late_in_its_files_large_or_many_gets_at_most_a_window_twice():
    size, chance = 64 * MIB, random.Random(SEED)
    with Farm() as farm:
        farm.start_broker()
        ann, relay = farm.person("ann"), Relay(farm, "relay")
        kept = ann.home + "/.state/westlight/arriving"  # a file that is not whole has no name
        write(farm.path("shot", "input"), "x")
        farm.worker("box1", "--no-probe", "--slots", "1", "--cores", "1")
        ann.configure(bulk=relay.bulk)
        for n in range(2 * ((KILLS + 2) // 3)):
            files, sums = (1, 16)[n % 2], farm.path("sum%d" % n)
            run = 'run=for i in $(seq 10 %d); do head -c %d /dev/urandom > "$OUT/$i"; done; cat "$OUT"/* | sha256sum > %s'
            job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "-p", run % (9 + files, size // files, sums))
            ann.wait_counts(job, done=1)
            argv, before, at = ("fetch", job, "--follow", "-o", farm.path("home%d" % n)), relay.count()[1], chance.randrange(size * 3 // 4, size * 98 // 100)
            relay.tell("stall")
            client = ann.start(*argv)
            relay.tell("kill %d %d" % (at, client.pid))
            relay.tell("open")
            until(lambda client=client: "killed %d\n" % client.pid in relay.process.log(), lambda: "it is killed\n%s" % farm.logs())
            client.communicate()
            saved = bytes_below(kept, argv[-1])
            check(saved > at - WINDOW - MIB, "of", at, "bytes there are kept:", saved)
            equal(ann.finish(ann.start(*argv), argv).code, 0, "the next fetch")
            equal(digest(b"".join(data for _, data in sorted(tree(argv[-1]).items()))), lines(sums)[0], "the files")
            twice = relay.count()[1] - before - size
            check(twice <= WINDOW + MIB + size // 50, "%.1f MiB came twice" % (twice / MIB))
            equal(bytes_below(kept), 0, "bytes that are kept afterwards")
            print("        %d files, %d MiB, killed late, got twice: %.1f MiB" % (files, size // MIB, twice / MIB), flush=True)


def main():
    global KILLS, SEED
    words = sys.argv[1:]
    for name in ("--kills", "--seed"):
        if name in words:
            at = words.index(name)
            KILLS, SEED = (int(words[at + 1]), SEED) if name == "--kills" else (KILLS, int(words[at + 1]))
            del words[at:at + 2]
    sys.argv[1:] = words
    print("seed %d" % SEED, flush=True)
    farms.main()


if __name__ == "__main__":
    main()
