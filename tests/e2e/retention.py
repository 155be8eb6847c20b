"""What is delivered, how long a job is kept, and what leaves the disk with it.

Frames are a copy of the job's input, so that blocks of inputs and results lie in the vault.
"""
import os
import random
import signal
import time

from farm import Farm, check, equal, main, scenario, tree, until, write
from home import Wire
from kills import shot_farm

RUN = 'run=cat plate > "$OUT/f.$FRAME"; echo "$FRAME" >> "$OUT/f.$FRAME"'
UNKNOWN = "no such job"


def blocks(farm):
    """The names of all sealed blocks."""
    return {os.path.join(base[-2:], name) for base, _, names in os.walk(os.path.join(farm.state, "vault")) for name in names}


def plate(farm, seed=1, size=3_000_000):
    return write(farm.path("shot", "plate"), random.Random(seed).randbytes(size))


def submit(farm, person, frames, *options):
    return person.submit(farm.path("shot"), "--preset", "command", "-f", frames, "-o", farm.path("out"), "-p", RUN, *options)


def wanted(farm, frames):
    with open(farm.path("shot", "plate"), "rb") as file:
        data = file.read()
    return {"f.%d" % frame: data + b"%d\n" % frame for frame in frames}


def gone(person, job):
    answer = person.ask("show", job)
    return answer.code != 0 and UNKNOWN in answer.text


def rows_of(farm, job):
    return sum(farm.rows("SELECT count(*) FROM %s WHERE job = ?" % table, bytes.fromhex(job))[0][0]
               for table in ("jobs", "results", "reports", "changes", "edits", "notes", "delivered"))


@scenario
def what_its_submitter_fetched_is_delivered_and_a_colleagues_fetch_does_not_count():
    with Farm() as farm:
        farm.start_broker()
        farm.worker("box1", "--no-probe", "--slots", "4", "--cores", "4")
        ann, bob = farm.person("ann"), farm.person("bob")
        plate(farm, size=2000)
        job = submit(farm, ann, "1-4")
        ann.wait_counts(job, done=4)
        bob.ask("fetch", job, "-o", farm.path("bobs"), code=0)
        equal(ann.show(job)["delivered"], 0, "delivered after a colleague's fetch")
        check("delivered  0 of 4" in ann.ask("show", job, code=0).out, "show says what is not home")
        ann.ask("fetch", job, "-o", farm.path("home"), code=0)
        shown = ann.show(job)
        equal(shown["delivered"], 4, "delivered after the submitter's fetch")
        check(6.9 < (shown["kept_until"] - time.time()) / 86400 < 7.1, "kept for a week:", shown["kept_until"])
        ann.ask("fetch", job, "-o", farm.path("home"), code=0)  # again: nothing is news
        equal(len(farm.rows("SELECT 1 FROM delivered")), 1, "records of deliveries")
        ann.ask("retry", job, "-f", "2", code=0)
        ann.wait_counts(job, done=4)
        shown = ann.show(job)
        equal(shown["delivered"], 3, "delivered after frame 2 was made anew")
        check(29.9 < (shown["kept_until"] - time.time()) / 86400 < 30.1, "kept for a month:", shown["kept_until"])
        farm.broker.kill()
        farm.start_broker()
        equal(ann.show(job)["delivered"], 3, "delivered, after the broker's death")
        bob.ask("fetch", job, "-o", farm.path("bobs"), "--deliver", code=0)
        equal(ann.show(job)["delivered"], 4, "delivered after a colleague said so")
        equal(tree(farm.path("home")), wanted(farm, range(1, 5)), "frames home")


@scenario
def a_file_in_the_way_keeps_one_frame_from_its_submitter_and_that_one_is_not_delivered():
    with Farm() as farm:
        farm.start_broker()
        farm.worker("box1", "--no-probe", "--slots", "4", "--cores", "4")
        ann = farm.person("ann")
        plate(farm, size=2000)
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-4", "-o", farm.path("out"), "-p",
                         'run=mkdir "$OUT/d$FRAME"; echo "$FRAME" > "$OUT/d$FRAME/f"')
        ann.wait_counts(job, done=4)
        write(farm.path("home", "d1"), "mine")
        answer = ann.ask("fetch", job, "-o", farm.path("home"))
        check(answer.code != 0 and "d1" in answer.err, "the file is named:", answer)
        equal(tree(farm.path("home")), dict({"d%d/f" % i: b"%d\n" % i for i in (2, 3, 4)}, d1=b"mine"), "what is home")
        equal(ann.show(job)["delivered"], 3, "delivered")


class Unheard:
    """A broker that hears no acknowledgement: fetches whose frames come home when they cannot say so. Their
    blocks are held up until nothing else is still to be asked."""

    def __init__(self, farm, person):
        self.farm, self.person, self.homes, self.popens = farm, person, [], []
        self.bulk, self.control = Wire(farm.bulk), Wire(farm.control)
        self.bulk.down.clear()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for popen in self.popens:
            popen.kill()

    def fetch(self, job):
        taken, home = self.bulk.taken, self.farm.path("home", job)
        self.person.configure(control=self.control.endpoint, bulk=self.bulk.endpoint)
        popen = self.person.start("fetch", job, "--follow", "-o", home)
        self.homes.append(home)
        self.popens.append(popen)
        until(lambda: self.bulk.taken > taken, "it has a pass, and asks for blocks")
        self.person.configure()
        return popen

    def let_home(self):
        taken = self.control.taken
        self.control.up.clear()
        self.bulk.down.set()
        until(lambda: all(tree(home) for home in self.homes), "the first frames are home")
        until(lambda: self.control.taken > taken, "something is said")


@scenario
def what_was_home_while_the_broker_was_away_is_acknowledged_by_the_same_fetch():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        shot.open(1)
        jobs = [shot.submit(ann, "1"), shot.submit(ann, "1-2")]
        for job in jobs:
            ann.wait_counts(job, done=1)
        with Unheard(farm, ann) as unheard:
            popens = [unheard.fetch(job) for job in jobs]
            unheard.let_home()
            farm.broker.kill()
            given_up = time.monotonic() + 6
            until(lambda: time.monotonic() > given_up, "the acknowledgement was waited for long enough")
            farm.start_broker()
            ann.ask("retry", jobs[1], "-f", "1", code=0)  # there are two results of it to be told of
            ann.wait_counts(jobs[1], done=1)
            unheard.control.up.set()
            until(lambda: ann.show(jobs[0])["delivered"] == 1, lambda: "at the end: %s" % ann.ask("show", jobs[0]))
            shot.open(2)
            for job, popen, n in zip(jobs, popens, (1, 2)):
                equal(ann.finish(popen).code, 0, "exit code")
                equal(ann.show(job)["delivered"], n, "delivered")


@scenario
def ctrl_c_ends_a_fetch_whose_acknowledgement_nobody_hears():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        shot.open(1)
        job = shot.submit(ann, "1-2")
        ann.wait_counts(job, done=1)
        with Unheard(farm, ann) as unheard:
            popen = unheard.fetch(job)
            unheard.let_home()
            began = time.monotonic()
            os.kill(popen.pid, signal.SIGINT)
            answer = ann.finish(popen)
        check(answer.code == 4 and time.monotonic() - began < 3, answer)
        check("1 file in" in answer.out and "stopped" in answer.out, answer)
        equal(ann.show(job)["delivered"], 0, "delivered")
        ann.ask("fetch", job, "-o", farm.path("home", job))
        equal(ann.show(job)["delivered"], 1, "delivered, by the next fetch")


@scenario
def a_delivered_job_goes_with_its_blocks_and_what_another_job_shares_stays():
    with Farm() as farm:
        farm.start_broker("--retain-delivered", "2s", "--grace", "1s")
        farm.worker("box1", "--no-probe", "--slots", "4", "--cores", "4")
        ann = farm.person("ann")
        plate(farm)
        other = submit(farm, ann, "5-6")
        ann.wait_counts(other, done=2)
        before = blocks(farm)
        job = submit(farm, ann, "1-3")
        ann.ask("fetch", job, "--follow", "-o", farm.path("home"), code=0)
        watch = ann.start("watch", job)
        check(len(blocks(farm)) >= len(before) + 9, "its frames lie in the vault")
        until(lambda: gone(ann, job), "the delivered job is forgotten")
        ann.finish(watch)
        equal(rows_of(farm, job), 0, "rows of the job") if until(lambda: rows_of(farm, job) == 0, "its rows go") else None
        until(lambda: blocks(farm) == before, lambda: "its blocks go, and no other's: %d left over, %d lost\n%s" % (
            len(blocks(farm) - before), len(before - blocks(farm)), farm.logs()))
        answer = ann.ask("fetch", job, "-o", farm.path("home2"))
        check(UNKNOWN in answer.text and not os.path.exists(farm.path("home2", "f.1")), "a forgotten job:", answer)
        ann.ask("retry", other, "-f", "5", code=0)  # reads the plate again
        ann.wait_counts(other, done=2)
        ann.ask("fetch", other, "-o", farm.path("home"), code=0)
        equal(tree(farm.path("home")), wanted(farm, [1, 2, 3, 5, 6]), "frames home")
        until(lambda: gone(ann, other), "the other is forgotten, too")
        until(lambda: not blocks(farm), lambda: "the vault is empty: %s" % sorted(blocks(farm)))
        job = submit(farm, ann, "1-3")  # as if it had never been there
        ann.ask("fetch", job, "--follow", "-o", farm.path("again"), code=0)
        equal(tree(farm.path("again")), wanted(farm, [1, 2, 3]), "frames home once more")


def stopped_reader(farm):
    """A job that its submitter has at home, and a colleague's fetch of it that stands still in the middle."""
    farm.worker("box1", "--no-probe", "--slots", "4", "--cores", "4")
    ann, bob = farm.person("ann"), farm.person("bob")
    plate(farm, size=1_000_000)
    job = submit(farm, ann, "1-60")
    ann.wait_counts(job, done=60)
    ann.ask("fetch", job, "-o", farm.path("home"), code=0)
    reader = bob.start("fetch", job, "-o", farm.path("bobs"))
    until(lambda: os.path.isdir(farm.path("bobs")) and len(os.listdir(farm.path("bobs"))) > 2, "some frames")
    os.kill(reader.pid, signal.SIGSTOP)
    return ann, bob, job, reader


@scenario
def a_job_is_not_forgotten_under_whoever_is_fetching_it():
    with Farm() as farm:
        farm.start_broker("--retain-delivered", "2s", "--grace", "60s")
        ann, bob, job, reader = stopped_reader(farm)
        stopped = time.monotonic()
        until(lambda: time.monotonic() > stopped + 4, "more than what is delivered is kept for")
        check(not gone(ann, job), "the job is kept while it is read")
        os.kill(reader.pid, signal.SIGCONT)
        bob.finish(reader)
        equal(tree(farm.path("bobs")), wanted(farm, range(1, 61)), "frames of the slow reader")


@scenario
def whoever_sleeps_through_the_end_of_a_job_is_told_so():
    with Farm() as farm:
        farm.start_broker("--retain-delivered", "1s", "--grace", "1s")
        ann, _, job, reader = stopped_reader(farm)
        until(lambda: gone(ann, job), "the job is forgotten")
        until(lambda: not blocks(farm), "its blocks are swept")
        os.kill(reader.pid, signal.SIGCONT)
        out, err = reader.communicate(timeout=60)
        check(reader.returncode != 0 and UNKNOWN in err, "told that it is gone:", reader.returncode, out, err)


@scenario
def a_broker_killed_while_it_forgets_and_sweeps_loses_nothing_else():
    options = ["--retain-delivered", "1s", "--grace", "1s"]
    with Farm() as farm:
        farm.start_broker(*options)
        farm.worker("box1", "--no-probe", "--slots", "4", "--cores", "4")
        ann = farm.person("ann")
        plate(farm)
        kept = submit(farm, ann, "5")
        ann.wait_counts(kept, done=1)
        before = blocks(farm)
        jobs = []
        for i in range(5):
            jobs.append(submit(farm, ann, "%d-%d" % (10 * i + 10, 10 * i + 12)))
            ann.ask("fetch", jobs[-1], "--follow", "-o", farm.path("home"), code=0)
            time_to_die = time.monotonic() + 0.9 + 0.3 * i
            until(lambda: time.monotonic() > time_to_die, "the moment")
            farm.broker.kill()
            farm.start_broker(*options)
        until(lambda: all(gone(ann, job) for job in jobs), "all are forgotten")
        until(lambda: blocks(farm) == before, lambda: "their blocks go, and no other's: %d left over, %d lost\n%s" % (
            len(blocks(farm) - before), len(before - blocks(farm)), farm.logs()))
        until(lambda: sum(rows_of(farm, job) for job in jobs) == 0, "their rows go")
        equal(farm.rows("PRAGMA integrity_check"), [("ok",)], "the database")
        ann.ask("retry", kept, "-f", "5", code=0)
        ann.wait_counts(kept, done=1)
        ann.ask("fetch", kept, "-o", farm.path("kept"), code=0)
        equal(tree(farm.path("kept")), wanted(farm, [5]), "the frame that was kept")


if __name__ == "__main__":
    main()
