"""What a studio's project costs on the way: files put and got, at 0 ms and at a distance, and what of a
project that was sent before is sent again. Real programs and keys; prints one JSON object.

  project.py [--files N] [--delay MS] [--mib N] [--only small,again,edits]

put      westlight submit: files read, sealed, sent, durable, accepted
stage    from there until a worker has them on its disk and its task begins
collect  the task's output, as many files, sealed, sent, durable, committed
get      westlight fetch: until every file is on the studio's disk, verified and synced

All of it lies in a folder of TMPDIR. (An ext4 without a journal is slow to make files for minutes after
many were removed, which a task's folder is; one with a journal is not.)
"""
import argparse
import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from farm import RELAY, Farm, until, write  # noqa: E402

MIB = 1 << 20


def fill(folder, files, size):
    for i in range(files):
        write(os.path.join(folder, "%02d" % (i % 100), "f%05d.bin" % i), os.urandom(size))


class Site:
    """A farm, one worker of it beside the broker, and a studio at a distance."""

    def __init__(self, farm, delay_ms, worker=True):
        self.farm = farm
        farm.start_broker()
        self.ann = farm.person("ann")
        if delay_ms is not None:
            relay = farm.start("relay%d" % delay_ms, [RELAY, "--delay", str(delay_ms), *[at[len("tcp://"):] for at in (farm.control, farm.bulk)]])
            line = until(lambda: relay.log().endswith("\n") and relay.log(), "the relay listens")
            control, bulk = ("tcp://127.0.0.1:" + port for port in line.split()[1:])
            self.ann.configure(control=control, bulk=bulk)
        if worker:
            farm.worker("box", "--no-probe", "--slots", "1", "--cores", "1")

    def submit(self, folder, run="true", options=()):
        """What it said (the job, what was sent), and its seconds."""
        answer = self.ann.ask("submit", folder, "--preset", "command", "-f", "1", "-o", self.farm.path("out"), "-p", "run=" + run, "--json",
                              *options, code=0, cwd=self.farm.folder, seconds=600)
        said = json.loads(answer.out)
        return said, answer.seconds


def small(options, delay_ms):
    with Farm() as farm:
        site = Site(farm, delay_ms)
        fill(farm.path("shot"), options.files, 4096)
        began = farm.path("began")
        said, put = site.submit("shot", 'date +%%s.%%N > %s; cp -r . "$OUT"/copy' % began)
        accepted = time.time()
        site.ann.wait_counts(said["id"], done=1, seconds=300)
        done = time.time()
        started = float(open(began, encoding="ascii").read())
        got = site.ann.ask("fetch", said["id"], "-o", farm.path("home"), code=0, cwd=farm.folder, seconds=600)
        return {"files": options.files, "put_s": put, "stage_s": started - accepted, "collect_s": done - started, "get_s": got.seconds}


def again(options):
    with Farm() as farm:
        site = Site(farm, None, worker=False)
        for i in range(options.mib // 256):
            write(farm.path("shot", "cache%d.bin" % i), os.urandom(256 * MIB))
        sent_first, first = site.submit("shot")
        sent, second = site.submit("shot")
        return {"bytes": options.mib * MIB, "first_s": first, "first": sent_first, "again_s": second, "again": sent}


def edits(options):
    with Farm() as farm:
        site = Site(farm, None, worker=False)
        path, found = farm.path("shot", "cache.bin"), {}
        data = bytearray(os.urandom(options.mib // 2 * MIB))
        write(path, bytes(data))
        site.submit("shot")
        data[len(data) // 3] ^= 1
        write(path, bytes(data))
        found["one_byte_changed"] = site.submit("shot")[0]
        write(path, b"x" + bytes(data))
        found["one_byte_inserted"] = site.submit("shot")[0]
        fill(farm.path("many"), options.files, 4096)
        found["files_first"] = site.submit("many")[0]
        write(farm.path("many", "47", "f04747x.bin"), os.urandom(4096))
        found["one_file_added"] = site.submit("many")[0]
        return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--delay", type=int, default=16)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--only", default="small,again,edits")
    options = parser.parse_args()
    wanted, found = options.only.split(","), {"bench": "project"}
    if "small" in wanted:
        found["near"] = small(options, 0)
        found["far"] = dict(small(options, options.delay), delay_ms=options.delay)
    if "again" in wanted:
        found["again"] = again(options)
    if "edits" in wanted:
        found["edits"] = edits(options)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
