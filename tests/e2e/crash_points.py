"""Every point of crash (proto/base/crash.h) of the three programs, five times each: the program dies
there, is started again, and the jobs that it was at come home as if nothing had been.

A belt is a farm with one armed program and a stream of small jobs. When the armed program dies it is
armed with the next point; a point that a life passes fewer than n times is taken at its first pass.
"""
import itertools
import os
import re
import signal
import subprocess
import threading

from farm import BROKER, CLIENT, SOURCE, WORKER, Farm, check, equal, main, read, scenario, sessions, tree, until, write

TIMES = int(os.environ.get("WESTLIGHT_CRASHES", "5"))
BELTS = 4  # of one program at once: most of a run is waiting
FRAMES = 6
WANTED = {"f.%d" % frame: b"%d\n" % frame * 100 for frame in range(1, FRAMES + 1)}
# Frame 2 takes so long that the worker's copy of its result is synced.
RUN = 'run=[ "$FRAME" != 2 ] || sleep 0.06; for i in $(seq 100); do echo "$FRAME"; done > "$OUT/f.$FRAME"'
# A checkpoint of a small log waits until nothing comes; a job is forgotten, and swept, when it is home.
AFTERWARDS = ("store.checkpoint", "store.checkpointed", "store.trim", "store.trimmed", "sweep.remove", "sweep.removed")
FORGETS = ("--retain-delivered", "1s", "--grace", "1s")
NEVER = {CLIENT: {"file.linked": "it writes new files only"},
         WORKER: {"file.linked": "it replaces a result only where that cannot be sent"}}


def crashing(program):
    return program + "-crashing"


def listed_by(program):
    listed = subprocess.run([crashing(program)], env=dict(os.environ, WESTLIGHT_CRASH="list"), capture_output=True,
                            text=True, check=True).stdout.split()
    equal(len(listed), len(set(listed)), "points of %s with a name of their own" % program)
    return set(listed)


def points_of(program):
    """Those that a job passes; joining.py visits the others."""
    return sorted(point for point in listed_by(program) - set(NEVER.get(program, ())) if not point.startswith(("enrol.", "join.")))


def died_there(popen):
    return popen.poll() == -signal.SIGKILL


class Belt:
    def __init__(self, program, points):
        self.program, self.farm, self.jobs = program, Farm(), []
        self.todo = [(point, n) for point in points for n in range(1, TIMES + 1)]
        self.deaths = dict.fromkeys(points, 0)

    def __enter__(self):
        farm = self.farm
        write(farm.path("ready"), "")
        farm.start_broker()
        self.ann, self.armed, self.armed_with, self.missed = farm.person("ann"), None, None, 0
        self.box, self.options = None, ()
        return self

    def __exit__(self, *what):
        self.farm.__exit__(*what)

    def arm(self):
        """What the program's environment gets more, for the next point."""
        self.armed_with = self.todo[0] if self.todo else None
        return {"WESTLIGHT_CRASH": "%s:%d" % self.armed_with} if self.armed_with else {}

    def died(self):
        self.deaths[self.armed_with[0]] += 1
        self.todo.pop(0)
        self.missed = 0

    def miss(self):
        """A job went by without a death: the point is passed too seldom to be met at the n-th time."""
        self.missed += 1
        if self.missed >= 2:
            point, n = self.todo[0]
            check(n > 1, "nobody passes", point, "\n", self.farm.logs())
            self.todo[0], self.missed = (point, 1), 0

    def worker(self, program=WORKER, environment=None):
        self.box = self.farm.worker("box", "--no-probe", "--slots", "2", "--cores", "2", environment=environment,
                                    program=program)

    def out(self):
        return self.farm.path("out", str(len(self.jobs)))

    def argv(self, verb, *more):
        self.new_input()
        return [verb, self.farm.path("shot"), "--preset", "command", "-f", "1-%d" % FRAMES, "-o", self.out(), "-p", RUN, *more]

    def new_input(self):
        """So that no block of it is anywhere yet."""
        write(self.farm.path("shot", "input"), os.urandom(2000))

    def home(self, job):
        """All frames are there, once, and nothing else is."""
        equal(tree(self.out()), WANTED, "frames home")
        equal(self.farm.results(job), {(0, task): 1 for task in range(FRAMES)}, "current results")
        self.jobs.append(job)

    def nothing_is_left(self):
        farm = self.farm
        equal(len(farm.rows("SELECT 1 FROM jobs")), len(self.jobs), "jobs on the farm")
        until(lambda: not os.listdir(farm.path("box", "spool")), "the spool is empty: %s" % os.listdir(farm.path("box", "spool")))
        until(lambda: not sessions(farm.path("box")), "no session is left")
        left = [path for path in tree(farm.folder) if re.search(r"/(put|new)-\d+$|\.new$|\.westlight-", path)]
        equal(left, [], "files that somebody left")


def all_at_once(works):
    failures = []

    def guarded(work):
        try:
            work()
        except Exception as error:  # told by the scenario's own thread
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def on_belt(program, points, one, deaths):
    with Belt(program, points) as belt:
        try:
            one(belt)
            belt.nothing_is_left()
        except Exception as error:
            raise type(error)("%s\narmed with %s\n%s" % (error, belt.armed_with, belt.farm.logs(4000))) from error
        for point, n in belt.deaths.items():
            deaths[point] = deaths.get(point, 0) + n


def on_belts(program, points, one, *more):
    """Runs the points on several farms at once, and counts the deaths of each."""
    deaths = {}
    all_at_once([lambda share=points[i::BELTS]: on_belt(program, share, one, deaths) for i in range(BELTS)] +
                [lambda work=work: work(deaths) for work in more])
    equal({point: n for point, n in deaths.items() if n < TIMES}, {}, "points visited less than %d times" % TIMES)
    equal(sorted(deaths), points_of(program), "points")


def with_patience(popen):
    try:
        popen.wait(0.02)
    except subprocess.TimeoutExpired:
        pass


def render(belt, process, again):
    """One job, while which the armed program may die and is started again; how often that was."""
    argv = belt.argv("render")
    popen = belt.ann.start(*argv)
    deaths = 0
    try:
        while popen.poll() is None:
            if died_there(process().popen):
                belt.died()
                deaths += 1
                again(deaths)
            check(process().alive() or died_there(process().popen), "it ended by itself:", process().log())
            with_patience(popen)
        answer = belt.ann.finish(popen, argv)
    finally:
        popen.kill()
    equal(answer.code, 0, answer)
    belt.home(answer.id)
    return deaths


# ---- the broker

def begin_broker(belt):
    """Until one lives long enough to be ready."""
    while not belt.farm.launch_broker(*belt.options, program=crashing(BROKER), environment=belt.arm()):
        check(died_there(belt.farm.broker.popen), "the broker ended:", belt.farm.broker.log())
        belt.died()


def render_by_broker(belt):
    return render(belt, lambda: belt.farm.broker, lambda deaths: begin_broker(belt))


def broker_jobs(belt):
    belt.worker()
    belt.farm.broker.kill()
    begin_broker(belt)
    while belt.todo:
        if render_by_broker(belt) == 0 and not died_there(belt.farm.broker.popen):
            belt.miss()
            belt.farm.broker.kill()
            begin_broker(belt)


def broker_afterwards(belt):
    """Each dies of what comes after a job; in the end nothing is left of any."""
    farm = belt.farm
    belt.todo, belt.options = [(point, 1) for point in AFTERWARDS], FORGETS
    belt.worker()
    farm.broker.kill()
    begin_broker(belt)
    while belt.todo:
        if render_by_broker(belt) == 0:  # else it was the job before that was forgotten meanwhile
            until(lambda: died_there(farm.broker.popen), lambda: "it dies of what comes after a job\n" + farm.logs())
            belt.died()
            begin_broker(belt)
    until(lambda: not any(farm.rows("SELECT 1 FROM " + table) for table in ("jobs", "results", "reports", "done", "delivered")), "no job's row is left")
    until(lambda: not any(names for _, _, names in os.walk(os.path.join(farm.state, "vault"))), "no block is left")
    belt.jobs = []


@scenario
def the_broker_may_die_at_any_point_while_jobs_run():
    on_belts(BROKER, [point for point in points_of(BROKER) if point not in AFTERWARDS], broker_jobs,
             *[lambda deaths: on_belt(BROKER, AFTERWARDS, broker_afterwards, deaths)] * TIMES)


@scenario
def a_new_state_folder_may_be_half_made():
    with Farm() as farm:
        for point in [point for point in points_of(BROKER) if re.match(r"file\.(?!linked)|store\.epoch|broker\.", point)]:
            for n in (1, 2, 3):
                farm.state = farm.path("state", "%s.%d" % (point, n))
                farm.control = farm.bulk = None
                keys = None
                if farm.launch_broker(program=crashing(BROKER), environment={"WESTLIGHT_CRASH": "%s:%d" % (point, n)}):
                    farm.broker.kill()  # it is passed less often
                elif os.path.exists(farm.state + "/broker.key"):
                    keys = read(farm.state + "/broker.key")
                farm.start_broker()
                equal(keys or read(farm.state + "/broker.key"), read(farm.state + "/broker.key"), "the broker's key")
                farm.broker.kill()
                files = {name for name in tree(farm.state) if "/" not in name} - {"state.db", "state.db-wal", "state.db-shm"}
                equal(files, {"broker.key", "enrol.key", "master.key", "lock"}, "files of a state that died at %s:%d" % (point, n))


# ---- the worker

@scenario
def the_worker_may_die_at_any_point_while_jobs_run():
    def jobs(belt):
        def again(deaths):  # three of one task would be its own fault
            belt.worker(crashing(WORKER), belt.arm() if deaths < 2 else {})

        belt.worker(crashing(WORKER), belt.arm())
        while belt.todo:
            deaths = render(belt, lambda: belt.box, again)
            if deaths == 0 and not died_there(belt.box.popen):
                belt.miss()
            if deaths == 0 or deaths == 2:
                belt.box.kill()
                belt.worker(crashing(WORKER), belt.arm())
        belt.box.kill()
        belt.worker()

    on_belts(WORKER, points_of(WORKER), jobs)


BEFORE = ("task.ended", "spool.made", "spool.block.created", "spool.block.written", "spool.result")
AFTER = ("spool.result.written", "deliver.blocks", "deliver.blocks.sent", "report.result", "report.result.sent",
         "leases.committed", "deliver.acknowledged", "spool.result.removed", "spool.removed")


@scenario
def what_a_worker_has_made_is_reported_after_its_death_and_what_it_was_making_is_made_again():
    with Belt(WORKER, BEFORE + AFTER) as belt:
        belt.worker()
        for point in BEFORE + AFTER:
            belt.box.kill()
            belt.worker(crashing(WORKER), {"WESTLIGHT_CRASH": point + ":1"})
            starts = belt.farm.path("starts." + point)
            argv = belt.argv("render")[:4] + ["-f", "1", "-o", belt.out(), "-p", 'run=echo >> %s; head -c 9000 /dev/urandom > "$OUT/f"' % starts]
            render = belt.ann.start(*argv)
            try:
                until(lambda: died_there(belt.box.popen), lambda: "it dies at %s\n%s" % (point, belt.farm.logs()))
                belt.worker()
                answer = belt.ann.finish(render, argv)
            finally:
                render.kill()
            equal(answer.code, 0, answer)
            equal(len(read(starts)), 1 + (point in BEFORE), "starts where the worker dies at " + point)
            equal(belt.farm.results(answer.id), {(0, 0): 1}, "current results")
            belt.jobs.append(answer.id)
        belt.nothing_is_left()


# ---- the client

def armed(belt, *argv):
    """Whether it died of it."""
    belt.ann.env.update(belt.arm())
    belt.said = belt.ann.ask(*argv)
    del belt.ann.env["WESTLIGHT_CRASH"]
    check(belt.said.code in (0, -signal.SIGKILL), belt.said)
    return belt.said.code != 0


def make_keys(belt):
    name = belt.farm.path("key-%d" % next(belt.numbers))
    argv = ["key", "new", "--key", name, "--secret", name + ".secret"]
    dead = armed(belt, *argv)
    if not os.path.exists(name):
        belt.ann.ask(*argv, code=0)
    check(os.path.exists(name) and os.path.exists(name + ".secret"), "a key and a secret")
    return dead


def submit(belt):
    argv = belt.argv("submit")
    dead = armed(belt, *argv)
    rows = belt.ann.ask("jobs", "--all", "--json", code=0).json
    for row in rows:
        if row["state"] == "uploading":  # begun, and not accepted: it is given up here
            belt.ann.ask("cancel", row["id"], code=0)
    new = {row["id"] for row in rows if row["state"] != "uploading"} - set(belt.jobs)
    check(len(new) == 1 or (dead and not new), "one job is accepted, or none: %s" % new)
    job = new.pop() if new else belt.ann.submit(*argv[1:])
    belt.ann.ask("fetch", job, "-o", belt.out(), "--follow", code=0)
    belt.home(job)
    return dead


def fetch(belt):
    """All of it, and once more after each frame was rendered again."""
    job, out = belt.jobs[-1], belt.farm.path("fetched", str(next(belt.numbers)))
    argv = ["fetch", job, "-o", out, "--follow"]
    dead = armed(belt, *argv)
    if dead or belt.whole:
        belt.ann.ask(*argv, code=0)
    else:
        belt.ann.ask("retry", job, "-f", "1-%d" % FRAMES, code=0)
        dead = armed(belt, *argv)
        belt.ann.ask(*argv, code=0)
    equal(tree(out), WANTED, "frames home")
    return dead


@scenario
def the_client_may_die_at_any_point_and_the_same_command_goes_on():
    def commands(belt):
        belt.worker()
        submit_plainly = belt.ann.submit(*belt.argv("submit")[1:])
        belt.ann.ask("fetch", submit_plainly, "-o", belt.out(), "--follow", code=0)
        belt.home(submit_plainly)
        belt.ann.program, belt.numbers, known = crashing(CLIENT), itertools.count(), {}
        while belt.todo:
            point, n = belt.todo[0]
            for phase in [known[point]] if point in known else [make_keys, submit, fetch]:
                belt.whole = point in known
                if phase(belt):
                    known[point] = phase
                    belt.died()
                    break
            else:
                belt.miss()
                if belt.todo[0][1] == 1:
                    known.pop(point, None)

    on_belts(CLIENT, points_of(CLIENT), commands)


# ---- all of them

@scenario
def no_point_is_forgotten_and_what_ships_has_none():
    found = set()
    for folder in ("proto", "broker", "worker", "client"):
        for name, text in tree(os.path.join(SOURCE, folder)).items():
            if name.endswith(".c"):
                found |= set(re.findall(rb'crash_point\("([^"]+)"\)', text))
    listed = set()
    for program in (BROKER, WORKER, CLIENT):
        listed |= listed_by(program)
        check(b"WESTLIGHT_CRASH" not in read(program), program, "has points of crash")
        check(b"WESTLIGHT_CRASH" in read(crashing(program)), program, "is searched in vain")
    equal({name.decode() for name in found}, listed, "points in the sources and in the programs")


if __name__ == "__main__":
    main()
