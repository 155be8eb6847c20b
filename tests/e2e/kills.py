"""Power cuts: a worker's, the broker's. Nothing accepted is lost, nothing committed runs again.

The job's command is the witness: each start of a frame adds a line to a file outside of every
session, and a frame ends when the scenario opens its gate.
"""
import hashlib
import os
import re
import signal

from farm import Farm, alive, equal, lines, main, scenario, tree, until, write

GATED = ('run=echo "start $FRAME" | tr " " : >> %(w)s/starts; '
         'while [ ! -e %(w)s/gate.all ] && [ ! -e %(w)s/gate.$FRAME ]; do sleep 0.05; done; echo "$FRAME" > "$OUT/f.$FRAME"')


class Shot:
    """A farm with a gated job of n frames."""

    def __init__(self, farm):
        self.farm, self.witness = farm, farm.path("witness")
        os.makedirs(self.witness)
        write(farm.path("shot", "input"), "x")

    def submit(self, person, frames):
        return person.submit(self.farm.path("shot"), "--preset", "command", "-f", frames, "-o", self.farm.path("out"),
                             "-p", GATED % {"w": self.witness})

    def open(self, frame="all"):
        write(os.path.join(self.witness, "gate.%s" % frame), "")

    def starts(self):
        """How often each frame was started."""
        counted = {}
        for line in lines(os.path.join(self.witness, "starts")):
            frame = int(line.split(":")[1])
            counted[frame] = counted.get(frame, 0) + 1
        return counted

    def wait_starts(self, condition, what, seconds=60):
        until(lambda: condition(self.starts()), lambda: "%s; starts: %s\n%s" % (what, self.starts(), self.farm.logs()), seconds)

    def home(self, person, job, n):
        person.ask("fetch", job, "--follow", "-o", self.farm.path("home"), code=0)
        equal(tree(self.farm.path("home")), {"f.%d" % i: b"%d\n" % i for i in range(1, n + 1)}, "frames home")
        equal(self.farm.results(job), {(0, task): 1 for task in range(n)}, "current results")


def away(operator):
    return [worker["name"] for worker in operator.ask("workers", "--json", code=0).json if not worker["connected"]]


def shot_farm(farm, slots=2, options=()):
    """A broker, one worker, and a gated job waiting to be submitted."""
    farm.start_broker(*options)
    farm.worker("box1", "--no-probe", "--slots", str(slots), "--cores", str(slots))
    return farm.person("ann"), Shot(farm)


def running_on(person, job, name):
    """The frame that runs on this worker."""
    for live in person.show(job)["live"]:
        if live["worker"] == name and live["state"] == "running":
            return int(re.search(r"-?\d+", live["name"]).group())
    return None


@scenario
def a_worker_killed_in_mid_frame_and_gone_for_good_has_its_frame_leased_again():
    with Farm() as farm:
        farm.start_broker("--lease-seconds", "6")
        ann, shot = farm.person("ann"), Shot(farm)
        victim = farm.worker("box1", "--slots", "1")
        farm.worker("box2", "--slots", "1")
        job = shot.submit(ann, "1-6")
        lost = until(lambda: running_on(ann, job, "box1"), "a frame runs on box1")
        shot.wait_starts(lambda starts: lost in starts, "the frame has started")
        victim.kill()
        for frame in range(1, 7):  # all but the lost one may end; that one waits for its second start
            if frame != lost:
                shot.open(frame)
        shot.wait_starts(lambda starts: starts.get(lost) == 2, "frame %d starts anew" % lost, 75)
        shot.open()
        shot.home(ann, job, 6)
        equal([row[1] for row in farm.attempts(job) if row[5] == 7], [lost - 1], "tasks with an attempt of class worker lost")
        equal(shot.starts()[lost], 2, "starts of the lost frame")


@scenario
def a_worker_killed_in_mid_frame_and_started_again_says_what_it_lost_and_the_job_completes():
    with Farm() as farm:
        farm.start_broker()
        ann, shot = farm.person("ann"), Shot(farm)
        victim = farm.worker("box1", "--slots", "2")
        job = shot.submit(ann, "1-4")
        shot.wait_starts(lambda starts: len(starts) == 2, "two frames run")
        first = sorted(shot.starts())
        victim.kill()
        farm.worker("box1", "--slots", "2")
        shot.wait_starts(lambda starts: all(starts[frame] == 2 for frame in first), "both frames start anew", 20)
        shot.open()
        shot.home(ann, job, 4)
        equal(shot.starts(), {frame: 2 if frame in first else 1 for frame in range(1, 5)}, "starts")


@scenario
def a_job_is_not_finished_while_its_last_frame_waits_to_be_started_anew():
    with Farm() as farm:
        farm.start_broker()
        ann, shot = farm.person("ann"), Shot(farm)
        victim = farm.worker("box1", "--no-probe", "--slots", "1", "--cores", "1")
        job = shot.submit(ann, "1-2")
        shot.wait_starts(lambda starts: starts, "a frame runs")
        ann.ask("cancel", job, "-f", "2", code=0)
        farm.worker("box2", "--no-probe", "--slots", "1", "--cores", "1")  # it is to have the lost frame, and is busy
        other = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out2"), "-p",
                           'run=while [ ! -e %s/gate.other ]; do sleep 0.05; done; touch "$OUT/x"' % shot.witness)
        until(lambda: running_on(ann, other, "box2"), "box2 has another job's frame")
        follow = ann.start("fetch", job, "--follow", "-o", farm.path("home"))
        try:
            victim.kill()
            farm.worker("box1", "--no-probe", "--slots", "1", "--cores", "1")
            until(lambda: [row for row in farm.attempts(job) if row[5] == 7], "the broker hears that the frame is lost")
            equal(ann.show(job)["finished"], False, "whether the job is finished")
            equal(follow.poll(), None, "whether fetch believes that")
            shot.open("other")
            shot.wait_starts(lambda starts: starts[1] == 2, "the frame starts anew")
            shot.open()
            ann.finish(follow)
        finally:
            follow.kill()
        equal(tree(farm.path("home")), {"f.1": b"1\n"}, "frames home")


@scenario
def a_frame_that_kills_its_workers_is_parked_after_three_and_stops_nobody():
    with Farm() as farm:
        farm.start_broker()
        ann, witness = farm.person("ann"), farm.path("witness")
        os.makedirs(witness)
        write(farm.path("shot", "input"), "x")
        boxes = {"box%d" % i: None for i in range(4)}
        # The worker's lock names its process. The frame's own start is on record first, and by then known to
        # the broker: a worker that dies before it has said so is not the frame's fault.
        run = ('run=echo "start $FRAME" | tr " " : >> %s/starts; [ "$FRAME" != 3 ] || sleep 0.5; [ "$FRAME" != 3 ] || kill -9 $(cat "${PWD%%%%/sessions/*}/lock"); '
               'echo "$FRAME" > "$OUT/f.$FRAME"' % witness)
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-20", "-o", farm.path("out"), "-p", run)

        def tend():
            for name, box in boxes.items():
                if box is None or not box.alive():
                    boxes[name] = farm.worker(name, "--no-probe", "--slots", "1", "--cores", "1")
            counts = ann.counts(job)
            return counts if counts["done"] + counts["failed"] == 20 else None
        counts = until(tend, lambda: "all others are done: %s" % ann.counts(job))
        equal((counts["done"], counts["failed"]), (19, 1), "frames done and parked")
        equal([row[1] for row in farm.attempts(job) if row[5] == 7 and row[1] == 2], [2] * 3, "attempts of frame 3")
        starts = lines(os.path.join(witness, "starts"))
        equal(starts.count("start:3"), 3, "starts of frame 3")
        other = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-4", "-o", farm.path("out2"), "-p", 'run=echo x > "$OUT/$FRAME"')
        ann.wait_counts(other, done=4)


@scenario
def the_renderer_ends_with_the_worker_that_was_killed():
    with Farm() as farm:
        farm.start_broker()
        ann, victim, pids = farm.person("ann"), farm.worker("box1", "--slots", "1"), farm.path("pids")
        write(farm.path("shot", "input"), "x")
        ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "-p",
                   "run=sleep 1000 & echo $! $$ > %s.new; mv %s.new %s; wait" % (pids, pids, pids))
        until(lambda: os.path.exists(pids), "the command runs")
        victim.kill()
        for pid in lines(pids):
            until(lambda pid=pid: not alive(int(pid)), "process %s is gone" % pid, 15)


@scenario
def a_broker_killed_in_mid_job_goes_on_and_what_was_committed_or_runs_is_not_run_again():
    with Farm() as farm:
        farm.start_broker()
        ann, shot = farm.person("ann"), Shot(farm)
        for name in ("box1", "box2"):
            farm.worker(name, "--slots", "1")
        job = shot.submit(ann, "1-10")
        for frame in (1, 2, 3, 4):
            shot.open(frame)
        ann.wait_counts(job, done=4, running=2)
        running = [running_on(ann, job, name) for name in ("box1", "box2")]
        until(lambda: len(farm.rows("SELECT 1 FROM notes")) >= 2, "both running leases are noted")
        committed = farm.attempts(job)
        farm.broker.kill()
        shot.open(running[0])  # it ends while nobody is there to be told
        farm.start_broker()
        ann.wait_counts(job, done=5)
        until(lambda: running_on(ann, job, "box2"), "box2 has said Hello as well")
        equal(running_on(ann, job, "box2"), running[1], "what runs on box2, then and now")
        farm.broker.kill()  # and once more, with leases that nobody has noted
        farm.start_broker()
        shot.open()
        shot.home(ann, job, 10)
        equal(farm.attempts(job)[:len(committed)], committed, "what was committed before the kill")
        kept = [1, 2, 3, 4, *running]
        equal({frame: shot.starts()[frame] for frame in kept}, dict.fromkeys(kept, 1), "starts of what was committed or ran")
        equal(sorted(shot.starts()), list(range(1, 11)), "frames started")
        equal(farm.rows("SELECT value FROM meta WHERE name = 'epoch'"), [(3,)], "the epoch")


@scenario
def a_step_reads_on_another_worker_what_was_committed_before_the_brokers_death():
    with Farm() as farm:
        farm.start_broker()
        box1, ann = farm.worker("box1", "--no-probe", "--slots", "2", "--cores", "2"), farm.person("ann")
        write(farm.path("shot", "input"), "x")
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-6", "-o", farm.path("out"),
                         "-p", 'run=head -c 20000 /dev/urandom > "$OUT/noise.$FRAME"',
                         "-p", 'then=while [ ! -e %s ]; do sleep 0.05; done; sha256sum "$OUT"/noise.? > "$OUT/sums"' % farm.path("gate"))
        ann.wait_counts(job, done=6, running=1)
        box1.kill()
        farm.broker.kill()
        farm.start_broker()
        write(farm.path("gate"), "")
        farm.worker("box2", "--no-probe", "--slots", "2", "--cores", "2")
        ann.ask("fetch", job, "--follow", "-o", farm.path("home"), code=0, seconds=120)
        home = tree(farm.path("home"))
        sums = [line.split()[0] for line in home.pop("sums").decode().splitlines()]
        equal(sums, [hashlib.sha256(home["noise.%d" % i]).hexdigest() for i in range(1, 7)], "what the second step read")


@scenario
def a_submission_and_a_watch_live_through_the_brokers_death():
    with Farm() as farm:
        farm.start_broker()
        farm.worker("box1", "--slots", "1")
        ann, shot = farm.person("ann"), Shot(farm)
        argv = ["render", farm.path("shot"), "--preset", "command", "-f", "1-3", "-o", farm.path("out"),
                "-p", GATED % {"w": shot.witness}]
        render = ann.start(*argv)
        try:
            shot.wait_starts(lambda starts: starts, "a frame runs")
            farm.broker.kill()
            farm.start_broker()
            shot.open()
            answer = ann.finish(render, argv)
        finally:
            render.kill()
        equal(answer.code, 0, answer)
        equal(tree(farm.path("out")), {"f.%d" % i: b"%d\n" % i for i in (1, 2, 3)}, "frames home")


@scenario
def retrying_one_frame_while_20_others_run_disturbs_none():
    with Farm() as farm:
        farm.start_broker()
        ann, shot = farm.person("ann"), Shot(farm)
        farm.worker("box1", "--slots", "11", "--cores", "64")
        farm.worker("box2", "--slots", "11", "--cores", "64")
        job = shot.submit(ann, "1-21")
        shot.open(7)
        ann.wait_counts(job, done=1, running=20)
        shot.wait_starts(lambda starts: len(starts) == 21, "21 frames have started")
        ann.ask("retry", job, "-f", "7", code=0)
        shot.wait_starts(lambda starts: starts[7] == 2, "frame 7 starts anew")
        shot.open()
        ann.wait_counts(job, done=21)
        equal({frame: n for frame, n in shot.starts().items() if n != 1}, {7: 2}, "frames started more than once")
        floors = {row[1]: row[2] for row in farm.attempts(job) if row[5] == 0}
        equal({task for task, floor in floors.items() if floor != floors[0]}, {6}, "tasks with a floor of their own")
        rows = farm.attempts(job)
        equal([row for row in rows if row[5] != 0], [], "attempts that failed")
        equal(len(rows), 22, "attempts")


@scenario
def workers_that_all_fall_silent_keep_what_they_run():
    with Farm() as farm:
        farm.start_broker("--lease-seconds", "2")
        ann, ops, shot = farm.person("ann"), farm.person("ops", studio=None, role="operator"), Shot(farm)
        boxes = [farm.worker("box%d" % i, "--slots", "1") for i in range(3)]
        job = shot.submit(ann, "1-3")
        shot.wait_starts(lambda starts: len(starts) == 3, "three frames run")
        ann.wait_counts(job, running=3)
        for box in boxes:  # as if the broker's cable were out: the frames go on
            os.kill(box.popen.pid, signal.SIGSTOP)
        until(lambda: len(away(ops)) == 3, "the broker hears nobody")
        equal(ann.counts(job)["running"], 3, "frames that count as running")
        for box in boxes:
            os.kill(box.popen.pid, signal.SIGCONT)
        until(lambda: not away(ops), "everybody is back")
        shot.open()
        shot.home(ann, job, 3)
        equal([row for row in farm.attempts(job) if row[5] == 7], [], "attempts lost")
        equal(shot.starts(), {1: 1, 2: 1, 3: 1}, "starts")


if __name__ == "__main__":
    main()
