"""Disks filled to the last byte while jobs run, and released: nothing lost, nothing done twice, nobody has to do
anything. The broker's state, or a worker's, lies on a small tmpfs in a mount namespace of the test's own.
"""
import contextlib
import ctypes
import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading

from farm import Farm, check, equal, lines, main, scenario, tree, until, write
from links import Relay

CYCLES = 5
FRAMES = 40
# A frame may end when so many have begun since it did that the limit has passed it. Every other one has written its output
# before it waits, every other one writes it afterwards.
COMMAND = ('run=n=1; while ! mkdir %(w)s/start.$n 2> /dev/null; do n=$((n + 1)); done; f="$OUT/f.$FRAME"; '
           'make() { head -c 40000 /dev/urandom > "$f" && sha256sum < "$f" >> %(w)s/sums; }; '
           '[ $((n %% 2)) -eq 0 ] || make || exit 1; '
           '[ $n -le $(cat %(w)s/limit) ] || echo $FRAME >> %(w)s/waiting; '
           'while [ $n -gt $(cat %(w)s/limit) ]; do sleep 0.02; done; [ $((n %% 2)) -eq 1 ] || make')


def own_mounts():
    """The script again, where it may mount; its exit code. 77: it may not."""
    for options in (["-m"], ["-Urm"]):
        if subprocess.run(["unshare", *options, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False).returncode == 0:
            return subprocess.run(["unshare", *options, sys.executable, *sys.argv], check=False,
                                  env=dict(os.environ, WESTLIGHT_OWN_MOUNTS="1")).returncode
    print("skipped: no mount namespace can be made here (unshare -m, or -Urm)")
    return 77


class Disk:
    def __init__(self, path, size, kind=b"tmpfs"):
        os.makedirs(path, mode=0o700)
        libc = ctypes.CDLL(None, use_errno=True)
        check(libc.mount(b"none", path.encode(), kind, 0, b"mode=700,size=%d" % size) == 0,
              kind, "on", path, os.strerror(ctypes.get_errno()))
        self.path, self.filler = path, os.path.join(path, "filler")

    def fill(self):
        size = 1 << 20
        with open(self.filler, "ab", buffering=0) as file:
            while size:
                try:
                    if file.write(bytes(size)) == size:
                        continue
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                size //= 2

    def release(self):
        os.unlink(self.filler)

    def unmount(self):
        ctypes.CDLL(None).umount2(self.path.encode(), 2)


class Job:
    """Frames that run up to a limit, where they stay until it is raised."""

    def __init__(self, farm, person):
        self.farm, self.person, self.witness = farm, person, farm.path("witness")
        self.limit = self.waited = 0
        os.makedirs(self.witness)
        write(farm.path("shot", "input"), os.urandom(1000))
        self.allow(4)
        self.id = self.submit().id

    def submit(self, code=0):
        return self.person.ask("submit", self.farm.path("shot"), "--preset", "command", "-f", "1-%d" % FRAMES, "-o",
                               self.farm.path("out"), "-p", COMMAND % {"w": self.witness}, code=code)

    def allow(self, more):
        self.limit += more
        write(os.path.join(self.witness, "limit.new"), "%d\n" % self.limit)
        os.rename(os.path.join(self.witness, "limit.new"), os.path.join(self.witness, "limit"))

    def wait_at_limit(self, n=2):
        """So many more frames wait than had before; which."""
        def waiting():
            return lines(os.path.join(self.witness, "waiting"))[self.waited:]
        until(lambda: len(waiting()) >= n, lambda: "%d frames wait\n%s\n%s" % (n, self.person.ask("show", self.id), self.farm.logs()))
        frames = waiting()
        self.waited += len(frames)
        return [int(frame) for frame in frames[-n:]]

    def finish(self):
        self.allow(1000)
        self.person.ask("fetch", self.id, "--follow", "-o", self.farm.path("home"), code=0)
        home = tree(self.farm.path("home"))
        equal(sorted(home), sorted("f.%d" % i for i in range(1, FRAMES + 1)), "frames home")
        sums = set(lines(os.path.join(self.witness, "sums")))
        for name, content in home.items():
            check(hashlib.sha256(content).hexdigest() in sums, name, "is not what its renderer wrote")
        equal(self.farm.results(self.id), {(0, task): 1 for task in range(FRAMES)}, "current results")
        equal([row for row in self.farm.attempts(self.id) if row[5] != 0], [], "attempts that failed")


@contextlib.contextmanager
def disk_farm(name, size, *kind):
    with Farm() as farm:
        disk = Disk(farm.path(name), size, *kind)
        try:
            yield farm, disk
        finally:
            for process in reversed(farm.processes):
                process.kill()
            disk.unmount()


def said(process, words, times=1):
    return lambda: process.log().count(words) >= times


@scenario
def a_vault_may_lie_where_nothing_goes_past_the_page_cache():
    with disk_farm("broker", 0, b"ramfs") as (farm, _):  # refuses O_DIRECT, once the file is there
        farm.start_broker()
        farm.worker("box1", "--no-probe", "--slots", "1", "--cores", "1")
        ann = farm.person("ann")
        plate = os.urandom(3_000_000)
        write(farm.path("shot", "plate"), plate)
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "-p", 'run=cp plate "$OUT/f.$FRAME"')
        ann.ask("fetch", job, "--follow", "-o", farm.path("home"), code=0)
        equal(tree(farm.path("home")), {"f.1": plate}, "the frame")


@scenario
def a_broker_whose_disk_is_filled_to_the_last_byte_loses_nothing_and_goes_on_by_itself():
    with disk_farm("broker", 32 << 20) as (farm, disk):
        farm.start_broker("--reserve", "4M", "--lease-seconds", "6")
        ann, ops = farm.person("ann"), farm.person("ops", studio=None, role="operator")
        for name in ("box1", "box2"):
            farm.worker(name, "--no-probe", "--slots", "2", "--cores", "2")
        job = Job(farm, ann)
        for cycle in range(CYCLES):
            job.wait_at_limit(4)
            disk.fill()
            note = ["workers", "note", "box1", "cycle %d" % cycle]
            waiting = ops.start(*note)  # must be written, so that the store meets the full disk
            # A log that has been moved home has room of its own for a little.
            until(lambda: said(farm.broker, "state=full")() or waiting.poll() is not None, farm.logs)
            job.allow(4)
            refused = job.submit(code=3)
            check("the farm's disk is full" in refused.err, refused)
            if cycle == 2:  # and a power cut on top of it
                farm.broker.kill()
                start = threading.Thread(target=farm.start_broker, args=("--reserve", "4M", "--lease-seconds", "6"))
                old = farm.broker
                start.start()
                until(lambda: not start.is_alive() or farm.broker is not old and "it starts by itself" in farm.broker.log(), farm.logs)
                disk.release()
                start.join()
            else:
                disk.release()
            noted = ops.finish(waiting, note)  # it came before the disk was full, and waited, or was told
            check(noted.code == 0 or "the farm's disk is full" in noted.err, noted)
        job.finish()
        check(any("state=full" in process.log() for process in farm.processes), "no commit met the full disk")


@scenario
def nothing_new_is_taken_below_the_reserve_and_what_runs_comes_home():
    with disk_farm("broker", 32 << 20) as (farm, disk):
        farm.start_broker("--reserve", "12M")
        ann, ops = farm.person("ann"), farm.person("ops", studio=None, role="operator")
        farm.worker("box1", "--no-probe", "--slots", "2", "--cores", "2")
        job = Job(farm, ann)
        job.wait_at_limit()
        equal(ops.ask("workers", code=0).err, "", "trouble")
        spare = shutil.disk_usage(disk.path).free - (6 << 20)
        write(disk.filler, bytes(spare))
        until(said(farm.broker, "state=reserve"), farm.logs)
        refused = job.submit(code=3)
        check("nothing new is taken until the operator frees space; what runs goes on" in refused.err, refused)
        check("the farm's disk is full (" in ops.ask("workers", code=0).err, "the list of workers does not say so")
        job.finish()
        disk.release()
        until(said(farm.broker, "state=enough"), farm.logs)
        job.submit()
        equal(ops.ask("workers", code=0).err, "", "trouble")


@scenario
def a_worker_whose_disk_is_filled_to_the_last_byte_takes_nothing_and_goes_on_by_itself():
    with disk_farm("box1", 32 << 20) as (farm, disk):
        farm.start_broker()
        ann, ops = farm.person("ann"), farm.person("ops", studio=None, role="operator")
        box = farm.worker("box1", "--no-probe", "--slots", "2", "--cores", "2", "--reserve", "4M")
        job = Job(farm, ann)
        for cycle in range(CYCLES):
            ran = job.wait_at_limit()
            until(lambda: not os.listdir(os.path.join(disk.path, "spool")), farm.logs)  # what goes would leave room
            disk.fill()
            until(lambda: [row["state"] for row in ops.ask("workers", "--json", code=0).json] == ["disk full"], farm.logs)
            before = len(box.log())
            job.allow(4)
            for frame in ran:  # what could not be written is handed back, what has been written waits
                until(lambda: re.search(r"(handed-back|result-waits|result) step=0 task=%d " % (frame - 1), box.log()[before:]), farm.logs)
            disk.release()
        job.finish()
        for words in ("handed-back", "result-waits"):
            check(words in box.log(), "no task", words)


@scenario
def what_is_handed_back_while_the_link_is_down_is_no_failure():
    with disk_farm("box1", 32 << 20) as (farm, disk):
        farm.start_broker()
        ann = farm.person("ann")
        relay = Relay(farm, "relay")
        box = farm.worker("box1", "--no-probe", "--slots", "2", "--cores", "2", "--reserve", "4M", control=relay.control, bulk=relay.bulk)
        job = Job(farm, ann)
        ran = job.wait_at_limit()
        disk.fill()
        relay.tell("stall")  # it goes into a connection that nobody hears, and that is lost then
        job.allow(4)
        for frame in ran:
            until(lambda: re.search(r"(released|result-waits|result) step=0 task=%d " % (frame - 1), box.log()), farm.logs)
        check(" released " in box.log(), "nothing was handed back")
        relay.tell("cut")
        disk.release()
        relay.tell("open")
        job.finish()


@scenario
def while_the_broker_takes_no_results_no_more_is_begun_than_the_workers_hold():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        box = farm.worker("box1", "--no-probe", "--slots", "2", "--cores", "2")
        job = Job(farm, ann)

        def begun():
            return len([name for name in os.listdir(job.witness) if name.startswith("start.")])
        job.wait_at_limit(2)
        farm.broker.kill()
        farm.start_broker("--reserve", "900000G")  # more than any disk has free
        until(said(farm.broker, "state=short"), farm.logs)
        job.allow(1000)
        until(said(box, "transfer-again", 5), farm.logs)  # every two seconds
        check(begun() <= 4 + 2 * 3, begun(), "of", FRAMES, "frames were begun\n", farm.logs())
        equal([row[5] for row in farm.attempts(job.id) if row[5] != 0], [], "attempts that failed")
        farm.broker.kill()
        farm.start_broker()
        job.finish()
        equal(begun(), FRAMES, "frames begun: each once")


if __name__ == "__main__":
    if not os.environ.get("WESTLIGHT_OWN_MOUNTS"):
        sys.exit(own_mounts())
    main()
