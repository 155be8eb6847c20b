"""Each n-th write, sync, open, rename or allocation of a whole job fails, in the broker, in a worker, in the client: whoever
meets it finishes correctly, or stops and recovers correctly when it is started again, which the test does.

A first run of each kind counts its calls. A seeded sample of them fails here; with --all every one, each in its turn, which takes
hours. `--seed N` repeats a sample, `--only broker:write:5:17` one fault (errno 5, the 17th), `--all --only broker:write` one kind.
"""
import hashlib
import mmap
import os
import random
import struct
import sys
import threading
import time

from farm import FAULTY, Failed, Farm, check, equal, lines, main, scenario, tree, until, write

EIO, ENOMEM, EMFILE, ENOSPC, SHORT = 5, 12, 24, 28, 0
FAULTS = {"write": (EIO, ENOSPC, SHORT), "sync": (EIO,), "range": (EIO,), "open": (EIO, EMFILE, ENOSPC), "rename": (EIO, ENOSPC),
          "truncate": (EIO, ENOSPC), "memory": (ENOMEM,)}
FRAMES = 4
COMMAND = 'run=echo rendering $FRAME; f="$OUT/f.$FRAME"; head -c 3000 /dev/urandom > "$f" && sha256sum < "$f" >> %s'
ALL = "--all" in sys.argv
ONLY = sys.argv[sys.argv.index("--only") + 1].split(":") if "--only" in sys.argv else None
SEED = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else \
    int(os.environ.get("WESTLIGHT_COMMIT") or "%x" % (time.time_ns() // 10**9), 16) % 2**32
sys.argv = [word for i, word in enumerate(sys.argv) if not word.startswith("--") and not sys.argv[i - 1] in ("--only", "--seed")]


class Shim:
    """One plan for one process; counts what it sees."""

    def __init__(self, farm, below, kind, error=0, n=0, count=1):
        check(os.path.exists(FAULTY), FAULTY, "is not there: build it")
        path = farm.path("tally")
        write(path, bytes(8))
        self.environment = dict(LD_PRELOAD=FAULTY, FAULTY_KIND=kind, FAULTY_ERRNO=str(error), FAULTY_N=str(n), FAULTY_COUNT=str(count),
                                FAULTY_BELOW=below, FAULTY_TALLY=path)
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 8)

    def calls(self):
        return struct.unpack("<Q", self.map[:8])[0]


def plan(who, counts, seconds):
    """(kind, errno, n, count) to try, of what the counting runs found; a sample ends with its time."""
    if ONLY and ONLY[0] != who:
        return
    if ONLY and len(ONLY) > 3:
        yield ONLY[1], int(ONLY[2]), int(ONLY[3]), int(ONLY[4]) if len(ONLY) > 4 else 1
        return
    every = [(kind, error, n, count) for kind, total in counts.items() for error in FAULTS[kind] for n in range(1, total + 1)
             for count in ((1, 10**9) if who == "broker" and error == EIO and kind in ("write", "sync") else (1,))]
    if ALL:
        yield from every
        return
    chance, until_s = random.Random("%d %s" % (SEED, who)), time.monotonic() + seconds
    kinds = [kind for kind, total in counts.items() if total]
    while time.monotonic() < until_s:  # each kind as often, however often it is called
        for kind in chance.sample(kinds, len(kinds)):
            if time.monotonic() < until_s:
                yield chance.choice([fault for fault in every if fault[0] == kind])


class Keeper(threading.Thread):
    """What a supervisor does: starts again, without the shim, what has ended."""

    def __init__(self, process, start):
        super().__init__()
        self.process, self.restart, self.done, self.error = process, start, threading.Event(), None
        self.start()

    def run(self):
        try:
            while not self.done.wait(0.02):
                if not self.process().alive():
                    self.restart()
        except Exception as error:  # told by whoever waits
            self.error = error

    def stop(self):
        self.done.set()
        self.join()
        if self.error:
            raise self.error


class Round:
    """One job, from submission to its frames at home."""

    def __init__(self, farm, person):
        self.farm, self.person, self.number = farm, person, 0
        write(farm.path("shot", "input"), os.urandom(100000))

    def again(self, *words):
        """A fault may reach whoever asks, once."""
        answer = self.person.ask(*words, seconds=60)
        return answer if answer.code == 0 else self.person.ask(*words, code=0, seconds=60)

    def run(self):
        self.number += 1
        home, sums = self.farm.path("home", str(self.number)), self.farm.path("sums.%d" % self.number)
        write(self.farm.path("shot", "input"), os.urandom(1000))
        job = self.again("submit", self.farm.path("shot"), "--preset", "command", "-f", "1-%d" % FRAMES, "-o", self.farm.path("out"),
                         "-p", COMMAND % sums).id
        self.again("fetch", job, "--follow", "-o", home)
        self.whole(home, sums, range(1, FRAMES + 1))
        equal(self.farm.results(job), {(0, task): 1 for task in range(FRAMES)}, "current results")
        return job, sums

    @staticmethod
    def whole(home, sums, frames=None):
        found, known = tree(home), set(lines(sums))
        if frames is not None:
            equal(sorted(found), ["f.%d" % i for i in frames], "frames home")
        for name, content in found.items():
            check(hashlib.sha256(content).hexdigest() in known, name, "is not what its renderer wrote")


def rounds(who, farm, job, start, process, below, seconds):
    """`start(environment)` begins who is tried; `process()` is it."""
    counts = {}
    for kind in FAULTS:
        if ONLY and (who != ONLY[0] or kind != ONLY[1]):
            continue
        shim = Shim(farm, below, kind)
        start(shim.environment)
        job.run()
        counts[kind] = shim.calls()
        process().kill()
    tried = 0
    for kind, error, n, count in plan(who, counts, seconds):
        shim = Shim(farm, below, kind, error, n, count)
        start(shim.environment)
        first, at_start = process(), shim.calls()
        keeper = Keeper(process, lambda: start(None))
        try:
            try:
                job.run()
            finally:
                keeper.stop()
            # SQLite itself does not look at the sync of its folder when it makes the log; the store syncs it once more.
            if who == "broker" and kind == "sync" and at_start < n <= shim.calls():
                until(lambda: not first.alive(), "a broker whose sync failed ends")
        except Failed as failed:
            raise Failed("--only %s:%s:%d:%d:%d\n%s" % (who, kind, error, n, count, failed))
        process().kill()
        tried += 1
    check(tried or ONLY, "no fault was tried")
    print("%s: %s; %d faults tried, seed %d" % (who, ", ".join("%d %s" % (total, kind) for kind, total in counts.items()), tried, SEED))


@scenario
def a_broker_that_meets_a_fault_finishes_or_recovers():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        farm.worker("box1", "--no-probe", "--slots", "2", "--cores", "2")
        farm.broker.kill()
        rounds("broker", farm, Round(farm, ann), lambda environment: farm.launch_broker(environment=environment), lambda: farm.broker,
               farm.state, 8)


@scenario
def a_broker_that_meets_a_fault_at_its_first_start_can_be_started():
    with Farm() as farm:
        for kind, errors in FAULTS.items():
            n, chance = 1, random.Random("%d %s start" % (SEED, kind))
            while True:
                farm.state = farm.path("start.%s.%d" % (kind, n))
                shim = Shim(farm, farm.state, kind, chance.choice(errors), n)
                farm.launch_broker(environment=shim.environment)
                farm.broker.kill()
                met = shim.calls() >= n
                farm.start_broker()
                farm.broker.kill()
                n += 1 if ALL else chance.randrange(1, 200 if kind == "open" else 3000 if kind == "memory" else 12)
                if not met:
                    break


@scenario
def a_worker_that_meets_a_fault_finishes_or_recovers():
    with Farm() as farm:
        farm.start_broker()
        ann, boxes = farm.person("ann"), []

        def start(environment):
            boxes.append(farm.worker("box1", "--no-probe", "--slots", "2", "--cores", "2", environment=environment))
        rounds("worker", farm, Round(farm, ann), start, lambda: boxes[-1], farm.path("box1"), 7)


@scenario
def a_finished_result_waits_for_files_to_open_and_is_not_rendered_again():
    with Farm() as farm:
        farm.start_broker()
        ann, below = farm.person("ann"), farm.path("box1", "spool")
        write(farm.path("shot", "input"), "x")

        def render(shim):
            """The worker's log, and how many calls its start took."""
            box = farm.worker("box1", "--no-probe", "--slots", "1", environment=shim.environment)
            until(lambda: " joined " in box.log(), farm.logs)
            at_start = shim.calls()
            job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "-p",
                             COMMAND.replace("3000", "300000") % farm.path("sums"))
            ann.ask("fetch", job, "--follow", "-o", farm.path("home", job), code=0)
            Round.whole(farm.path("home", job), farm.path("sums"), [1])
            equal([row[5] for row in farm.attempts(job)], [0], "attempts, by how they ended")
            equal(box.stop(), 0, "the worker's exit code")
            return box.log(), at_start
        for kind, n, event in (("open", 1, "result-waits"), ("read", 2, "transfer-again")):  # what is made; after its folder's sync, sent
            _, at_start = render(Shim(farm, below, kind))
            log, _ = render(Shim(farm, below, kind, EMFILE, at_start + n, 2))
            check(event in log and "Too many open files" in log, "no", event, "for want of files:\n", log)


@scenario
def a_fetch_that_meets_a_fault_leaves_no_half_frame_and_is_finished_by_the_next():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        farm.worker("box1", "--no-probe", "--slots", "2", "--cores", "2")
        job, sums = Round(farm, ann).run()
        counts, env, number = {}, dict(ann.env), 0
        for kind in FAULTS:
            if ONLY and (ONLY[0] != "client" or kind != ONLY[1]):
                continue
            shim = Shim(farm, farm.folder, kind)
            ann.env.update(shim.environment)
            ann.ask("fetch", job, "-o", farm.path("home", kind), code=0)
            counts[kind] = shim.calls()
        for kind, error, n, count in plan("client", counts, 3):
            number += 1
            home = farm.path("home", str(number))
            ann.env.update(Shim(farm, farm.folder, kind, error, n, count).environment)
            ann.ask("fetch", job, "-o", home)
            ann.env = dict(env)
            try:
                Round.whole(home, sums)
                ann.ask("fetch", job, "-o", home, code=0)
                Round.whole(home, sums, range(1, FRAMES + 1))
            except Failed as failed:
                raise Failed("--only client:%s:%d:%d:%d\n%s" % (kind, error, n, count, failed))
        check(number or ONLY, "no fault was tried")
        print("client: %s; %d faults tried, seed %d" % (", ".join("%d %s" % (total, kind) for kind, total in counts.items()), number, SEED))


@scenario
def a_file_that_was_there_is_acknowledged_only_once_it_is_synced():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        farm.worker("box1", "--no-probe", "--slots", "2", "--cores", "2")
        write(farm.path("shot", "input"), "x")
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o",
                         farm.path("out"), "-p", 'run=echo 1 > "$OUT/f.1"')
        ann.wait_counts(job, done=1)
        frame, env = write(farm.path("home", "f.1"), "1\n"), dict(ann.env)
        shim = Shim(farm, frame, "sync", EIO, 1)
        ann.env.update(shim.environment)
        answer = ann.ask("fetch", job, "-o", farm.path("home"))
        check(answer.code != 0 and shim.calls() == 1, "its sync fails:", shim.calls(), answer)
        check("f.1" in answer.err and "Input/output error" in answer.err, answer)
        ann.env = env
        equal(ann.show(job)["delivered"], 0, "delivered")
        shim = Shim(farm, frame, "sync")
        ann.env.update(shim.environment)
        answer = ann.ask("fetch", job, "-o", farm.path("home"), code=0)
        check(shim.calls() == 1 and ", 1 there already" in answer.out, "synced by the next:", shim.calls(), answer)
        ann.env = env
        equal(ann.show(job)["delivered"], 1, "delivered")


if __name__ == "__main__":
    main()
