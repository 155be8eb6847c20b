#!/usr/bin/env python3
"""Broker, workers and clients are killed at random under load, and what everybody saw is judged.

    kill_loop.py [--rounds N] [--seed S]

A round kills one of them (now and then two) at a random moment and starts it again. After some rounds the
load rests until every job is done and home, and history.py judges. Exit code 1 where it finds a fault; the
seed repeats the choices, though not the moments.
"""
import argparse
import json
import os
import random
import signal
import sys
import threading
import time
import traceback

import history
from farm import Failed, Farm, lines, read, until, write

WORKERS, CLIENTS, ROUNDS_OF_A_WAVE = 3, 3, 10
OPS_OF_A_JOB = 6
PAUSE_S = 0.4  # at most, before a kill
RUN = ('run=t=$(cat /proc/sys/kernel/random/uuid); echo "$FRAME:$t:$(date +%%s.%%N)" >> %s; sleep 0.0$((FRAME %% 10)); '
       '%secho "$t" > "$OUT/f.$FRAME"')
BIG = 'head -c 1500000 /dev/urandom > "$OUT/big.$FRAME"; '


class Client(threading.Thread):
    """One person who submits, changes and fetches, one command after another."""

    def __init__(self, loop, number, seed, person):
        super().__init__(name="client%d" % number)
        self.loop, self.chance = loop, random.Random(seed)
        self.person = person or loop.farm.person(self.name)
        self.job, self.popen, self.error = None, None, None

    def run(self):
        try:
            while self.loop.going.is_set():
                self.turn()
        except Exception as error:  # told by the loop
            self.error = "%s\n%s" % (error, traceback.format_exc())

    def command(self, *argv):
        """Its answer; None where it was killed."""
        argv = [str(word) for word in argv]
        self.popen = self.person.start(*argv)
        answer = self.person.finish(self.popen, argv)
        return None if answer.code == -signal.SIGKILL else answer

    def ask(self, verb, job, frames, *argv):
        """A request that changes something, with its answer, into the history."""
        op = self.loop.note("asked", op=None, verb=verb, job=job, frames=frames)["op"]
        answer = self.command(*argv, "--json")
        if answer and answer.code == 0:
            document = json.loads(answer.out)
            self.loop.note("answered", op=op, job=document["id"], tasks=document.get("tasks", 0))
            return document["id"]
        if answer:
            self.loop.note("refused", op=op, why=str(answer))
        return None

    def turn(self):
        if not self.job or self.job["ops"] >= OPS_OF_A_JOB:
            self.submit()
            return
        job, self.job["ops"] = self.job, self.job["ops"] + 1
        frame = self.chance.choice(job["frames"])
        does = self.chance.choice(["retry", "change", "fetch", "jobs"])
        if does == "retry":
            self.ask("retry", job["id"], [frame], "retry", job["id"], "-f", frame)
        elif does == "change" and job["cancels"]:
            self.ask("cancel", job["id"], [frame], "cancel", job["id"], "-f", frame)
        elif does == "change":
            job["frames"] = list(range(1, len(job["frames"]) + 1 + self.chance.randrange(1, 3)))
            while self.loop.going.is_set() and not self.ask("set", job["id"], job["frames"], "set", job["id"], "-f",
                                                            "1-%d" % len(job["frames"])):
                pass
        elif does == "fetch":
            self.fetch(job["id"], self.loop.farm.path("home", job["id"]))
        else:
            self.command("jobs", "--json")

    def submit(self):
        name, self.job = "%s-%d" % (self.name, self.loop.count()), None
        frames = list(range(1, self.chance.randrange(4, 13)))
        run = RUN % (self.loop.starts(name), BIG if self.chance.random() < 0.2 else "")
        write(self.loop.farm.path("shots", self.name, "input"), os.urandom(self.chance.choice([10, 10, 2000000])))
        job = self.ask("submit", name, frames, "submit", self.loop.farm.path("shots", self.name), "--preset", "command",
                       "-f", "1-%d" % len(frames), "-o", self.loop.farm.path("out", name), "--name", name, "-p", run)
        if job:
            self.job = {"id": job, "frames": frames, "ops": 0, "cancels": self.chance.random() < 0.5}

    def fetch(self, job, folder, last=False):
        answer = self.command("fetch", job, "-o", folder, *(["--follow"] if last else []))
        if answer:
            files = {int(name[2:]): read(os.path.join(folder, name)).decode().strip() for name in os.listdir(folder) if name.startswith("f.")}
            self.loop.note("fetched", job=job, files=files, last=last, code=answer.code, said=answer.text[-400:])
        return answer


class Loop:
    def __init__(self, farm, seed):
        self.farm, self.chance, self.seed = farm, random.Random(seed), seed
        self.lock, self.history, self.number, self.ops = threading.Lock(), [], 0, 0
        self.going, self.kills, self.clients = threading.Event(), {}, []
        self.judged, self.slowest_s, self.parked = set(), 0, 0
        farm.start_broker("--lease-seconds", "6")
        self.boxes = {"box%d" % i: self.start_box("box%d" % i) for i in range(WORKERS)}
        os.makedirs(farm.path("starts"))

    def start_box(self, name):
        return self.farm.worker(name, "--no-probe", "--slots", "2", "--cores", "2")

    def starts(self, name):
        return self.farm.path("starts", name)

    def count(self):
        with self.lock:
            self.number += 1
            return self.number

    def note(self, do, **what):
        with self.lock:
            if do == "asked":
                self.ops += 1
                what["op"] = self.ops
            event = dict(what, do=do, at=time.time())
            self.history.append(event)
            return event

    # ---- killing

    def kill(self):
        what = self.chance.choice(["broker", "worker", "client"])
        if what == "client":
            popen = self.chance.choice(self.clients).popen
            if popen and popen.poll() is None:
                popen.kill()
        else:
            name = "broker" if what == "broker" else self.chance.choice(sorted(self.boxes))
            process = self.farm.broker if what == "broker" else self.boxes[name]
            if not process.alive():
                raise RuntimeError("%s ended by itself:\n%s" % (name, process.log()[-3000:]))
            process.kill()
            self.farm.processes.remove(process)
        self.note("killed", who=what)
        self.kills[what] = self.kills.get(what, 0) + 1
        time.sleep(self.chance.uniform(0, 0.15))
        if what == "broker":
            self.farm.start_broker("--lease-seconds", "6")
        elif what == "worker":
            self.boxes[name] = self.start_box(name)

    def wave(self, rounds):
        self.going.set()
        for client in self.clients:
            client.start()
        for _ in range(rounds):
            time.sleep(self.chance.uniform(0, PAUSE_S))  # the random moment is what this is about
            self.kill()
            if self.chance.random() < 0.2:
                self.kill()
        self.going.clear()
        for client in self.clients:
            client.join()
            if client.error:
                raise RuntimeError(client.error)

    # ---- judging

    def finish(self, person, job):
        """Waits until the job is over; takes up what was parked because its workers were killed three times."""
        def over():
            row = person.show(job)
            return row if row["finished"] or row["phase"] == "paused" else None

        while True:
            try:
                row = until(over, "", history.STUCK_S)
            except Failed:
                print(person.ask("show", job), file=sys.stderr)
                return None
            if not row["counts"]["failed"] and row["finished"]:
                return row
            lost = self.farm.rows("SELECT step, task FROM attempts WHERE job = ? AND class = 7 GROUP BY step, task, floor"
                                  " HAVING count(*) >= 3", bytes.fromhex(job))
            if len(lost) < row["counts"]["failed"]:
                return row  # a fault, and judged as one
            self.parked += row["counts"]["failed"]
            for _, task in lost:
                op = self.note("asked", op=None, verb="retry", job=job, frames=[task + 1])["op"]
                answer = person.ask("retry", job, "-f", task + 1, "--json", code=0)
                self.note("answered", op=op, job=job, tasks=answer.json["tasks"])

    def reckon(self):
        person, stored = self.clients[0].person, self.stored()
        for job in stored["jobs"]:
            row = self.finish(person, job)
            if row:
                step = row["steps"][0]
                self.note("finished", job=job, done=ranges(step["frames_done"]), failed=ranges(step["frames_failed"]))
        kills = [event["at"] for event in self.history if event["do"] == "killed"]
        self.slowest_s = max(self.slowest_s, time.time() - kills[-1])
        for job, name in stored["jobs"].items():
            owner = self.clients[int(name[len("client"):].split("-")[0])]  # whose receipts know what came before
            for folder in (self.farm.path("home", job), self.farm.path("last", job)):
                owner.fetch(job, folder, last=True)
        self.history.append(dict(self.stored(), do="store", at=time.time()))
        for name in stored["jobs"].values():
            for line in lines(self.starts(name)):
                frame, token, at = line.split(":")
                self.history.append({"do": "started", "job": name, "frame": int(frame), "token": token, "at": float(at)})
        faults = history.judge(self.history)
        faults += ["left: " + path for path in self.left()]
        self.judged |= set(stored["jobs"])
        return faults

    def left(self):
        for name in self.boxes:
            until(lambda name=name: not os.listdir(self.farm.path(name, "spool")), name + " keeps no result")
        paths = [os.path.join(base, name) for base, _, names in os.walk(self.farm.folder) for name in names]
        return [path for path in paths if "/put-" in path or path.endswith(".new") or "/.westlight-" in path]

    def stored(self):
        jobs, results, changes = {}, {}, {}
        for job, name in self.farm.rows("SELECT hex(job), name FROM jobs"):
            if job.lower() not in self.judged:
                jobs[job.lower()] = name
        for job, task, floor, n in self.farm.rows("SELECT hex(job), task, floor, count(*) FROM attempts WHERE class = 0"
                                                  " GROUP BY job, task, floor"):
            results.setdefault(job.lower(), {})[(task + 1, floor)] = n
        for verb, query in (("retry", "changes WHERE kind = 1"), ("cancel", "changes WHERE kind = 2"), ("set", "edits")):
            for job, n in self.farm.rows("SELECT hex(job), count(*) FROM %s GROUP BY job" % query):
                changes.setdefault(job.lower(), {})[verb] = n
        return {"jobs": jobs, "results": results, "changes": changes}

    def run(self, rounds):
        """The faults of the first wave that has some."""
        done, jobs, frames, persons, self.parked = 0, 0, 0, [None] * CLIENTS, 0
        while done < rounds:
            n = min(ROUNDS_OF_A_WAVE, rounds - done)
            self.history = []
            self.clients = [Client(self, i, self.chance.random(), person) for i, person in enumerate(persons)]
            persons = [client.person for client in self.clients]  # threads end with their wave; persons stay
            self.wave(n)
            done += n
            faults = self.reckon()
            stored = [event for event in self.history if event["do"] == "store"][-1]
            jobs += len(stored["jobs"])
            frames += sum(len(stored["results"].get(job, {})) for job in stored["jobs"])
            print("%d rounds: %d jobs, %d results, %d requests, kills %s, parked %d, at rest within %.1f s, %d faults" % (
                done, jobs, frames, self.ops, self.kills, self.parked, self.slowest_s, len(faults)), flush=True)
            if faults:
                return faults
        return []


def ranges(text):
    """The frames of "1-4,7"."""
    frames = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        frames += range(int(first), int(last or first) + 1)
    return frames


def main():
    parser = argparse.ArgumentParser(description="kills broker, workers and clients under load")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    args = parser.parse_args()
    began = time.monotonic()
    with Farm() as farm:
        loop = Loop(farm, args.seed)
        try:
            faults = loop.run(args.rounds)
        except Exception:
            traceback.print_exc()
            print(farm.logs(3000), file=sys.stderr)
            faults = ["the loop itself"]
        for fault in faults:
            print(fault)
        if faults and loop.history:
            with open(os.path.join(os.environ.get("WESTLIGHT_HISTORY", farm.folder), "history.json"), "w", encoding="utf-8") as file:
                for event in sorted(loop.history, key=lambda event: event["at"]):
                    file.write(repr(event) + "\n")
            print(farm.logs(6000), file=sys.stderr)
    print("seed %d: %d rounds in %.0f s, %d faults" % (args.seed, args.rounds, time.monotonic() - began, len(faults)))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
