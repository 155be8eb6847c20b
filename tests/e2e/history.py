"""What clients and renderers saw, judged: nothing lost, nothing twice, nothing stuck, nothing stale.

A history is a list of events, each a dict with `at` (seconds) and `do`:

  asked     op, verb (submit, retry, cancel, set), job (submit: its name), frames
  answered  op, job, tasks: the command said yes, and how many tasks it changed
  refused   op, why: it said no
  killed    who
  started   job (its name), frame, token: a renderer was started
  fetched   job, files {frame: token}: what lies in a folder after a fetch; last: of a finished job
  finished  job, done, failed: frames, as the broker says
  store     jobs {id: name}, results {id: {(frame, floor): n}}, changes {id: {verb: n}}: at the very end

An asked request without an answer was cut short, and may have taken effect or not; twice it may not.
Run by itself, this file plants each kind of fault and sees it found.
"""
import copy

STUCK_S = 60


class Judge:
    def __init__(self, history):
        self.history, self.faults = history, []
        self.answers = {event["op"]: event for event in history if event["do"] == "answered"}
        self.refused = {event["op"]: event for event in history if event["do"] == "refused"}
        self.asked = [event for event in history if event["do"] == "asked"]
        self.store = [event for event in history if event["do"] == "store"][-1]
        self.finished = {event["job"]: event for event in history if event["do"] == "finished"}

    def fault(self, kind, *what):
        self.faults.append("%s: %s" % (kind, " ".join(str(part) for part in what)))

    def ops(self, job, verb=None):
        return [event for event in self.asked if event["verb"] != "submit" and event["job"] == job
                and (verb is None or event["verb"] == verb) and event["op"] not in self.refused]

    def took(self, event):
        """How many tasks it changed; None where nobody knows."""
        answer = self.answers.get(event["op"])
        return None if answer is None else answer["tasks"]

    def jobs(self):
        names = list(self.store["jobs"].values())
        asked = {event["job"]: event for event in self.asked if event["verb"] == "submit"}
        for name in sorted(set(names)):
            if names.count(name) > 1:
                self.fault("twice", "submission", name, "made %d jobs" % names.count(name))
            if name not in asked:
                self.fault("twice", "job", name, "that nobody submitted")
        for name, event in asked.items():
            answer = self.answers.get(event["op"])
            if answer and self.store["jobs"].get(answer["job"]) != name:
                self.fault("lost", "job", answer["job"], "was accepted and is not there")
        for event in self.refused.values():
            self.fault("refused", event["why"])
        return {job: asked[name] for job, name in self.store["jobs"].items() if name in asked}

    def wanted(self, job, submit):
        """Every set is repeated until it is answered."""
        frames = set(submit["frames"])
        for event in self.ops(job, "set"):
            frames = set(event["frames"])
        return frames

    def states(self, job, frame):
        """What it may be in the end, and when it was last asked to be made anew."""
        allowed, fresh = {"done"}, None
        for event in self.ops(job):
            if frame not in event["frames"] or event["verb"] == "set":
                continue
            took, state = self.took(event), {"retry": "done", "cancel": "cancelled"}[event["verb"]]
            if took is None:
                allowed = allowed | {state}
            elif took > 0:
                allowed = {state}
                fresh = event["at"] if state == "done" else fresh
        return allowed, fresh

    def frames(self, job, submit):
        name, end = self.store["jobs"][job], self.finished.get(job)
        if not end:
            self.fault("stuck", "job", name, "never finished")
            return
        kills = [event["at"] for event in self.history if event["do"] == "killed" and event["at"] <= end["at"]]
        if kills and end["at"] - kills[-1] > STUCK_S:
            self.fault("stuck", "job", name, "took %.0f s after the last kill" % (end["at"] - kills[-1]))
        starts = {event["token"]: event for event in self.history if event["do"] == "started" and event["job"] == name}
        fetched = [event for event in self.history if event["do"] == "fetched" and event["job"] == job]
        last = [event["files"] for event in fetched if event.get("last")]
        for frame in sorted(self.wanted(job, submit)):
            allowed, fresh = self.states(job, frame)
            state = "done" if frame in end["done"] else "failed" if frame in end["failed"] else "cancelled"
            where = "frame %d of %s" % (frame, name)
            if state not in allowed:
                self.fault("lost" if state != "done" else "stale", where, "is", state, "and not", *sorted(allowed))
            if state != "done":
                continue
            tokens = [files.get(frame) for files in last]
            if not tokens or None in tokens:
                self.fault("lost", where, "is done and did not come home")
                continue
            if len(set(tokens)) > 1:
                self.fault("twice", where, "was delivered with different bytes")
            if fresh is not None and tokens[-1] in starts and starts[tokens[-1]]["at"] < fresh:
                self.fault("stale", where, "is of a start before it was asked for anew")
            if not [event for event in self.ops(job) if frame in event["frames"] and event["verb"] != "set"]:
                seen = {event["files"][frame] for event in fetched if frame in event["files"]}
                if len(seen) > 1:
                    self.fault("twice", where, "was delivered with different bytes, and nobody asked for another")
        for event in fetched:
            for frame, token in event["files"].items():
                if token not in starts or starts[token]["frame"] != frame:
                    self.fault("foreign", "frame", frame, "of", name, "is not what any of its starts made:", token)

    def effects(self, job):
        name = self.store["jobs"][job]
        for (frame, floor), n in self.store["results"].get(job, {}).items():
            if n > 1:
                self.fault("twice", "frame %d of %s has %d current results at floor %d" % (frame, name, n, floor))
        for verb in ("retry", "cancel", "set"):
            ops, n = self.ops(job, verb), self.store["changes"].get(job, {}).get(verb, 0)
            sure = len([event for event in ops if (self.took(event) or 0) > 0])
            if n < sure:
                self.fault("lost", "%d of %d answered requests to %s %s" % (sure - n, sure, verb, name))
            # An edit is kept even where it changes no task: a repeated one may be.
            if n > len([event for event in ops if verb == "set" or self.took(event) != 0]):
                self.fault("twice", "%d requests to %s %s took effect %d times" % (len(ops), verb, name, n))

    def all(self):
        for job, submit in self.jobs().items():
            self.frames(job, submit)
            self.effects(job)
        return self.faults


def judge(history):
    return Judge(history).all()


# ---- faults that must be found

def good():
    """Two jobs: one is retried, cancelled and extended; the other's submission was cut short."""
    history = [
        {"at": 1, "do": "asked", "op": 1, "verb": "submit", "job": "one", "frames": [1, 2, 3]},
        {"at": 2, "do": "answered", "op": 1, "job": "aa", "tasks": 3},
        {"at": 2, "do": "asked", "op": 2, "verb": "submit", "job": "two", "frames": [1]},
        {"at": 3, "do": "killed", "who": "client"},
        {"at": 4, "do": "started", "job": "one", "frame": 1, "token": "t1"},
        {"at": 4, "do": "started", "job": "one", "frame": 2, "token": "t2"},
        {"at": 5, "do": "asked", "op": 3, "verb": "cancel", "job": "aa", "frames": [3]},
        {"at": 5, "do": "answered", "op": 3, "job": "aa", "tasks": 1},
        {"at": 5, "do": "fetched", "job": "aa", "files": {1: "t1"}},
        {"at": 6, "do": "asked", "op": 4, "verb": "retry", "job": "aa", "frames": [2]},
        {"at": 6, "do": "answered", "op": 4, "job": "aa", "tasks": 1},
        {"at": 7, "do": "started", "job": "one", "frame": 2, "token": "t3"},
        {"at": 7, "do": "started", "job": "two", "frame": 1, "token": "t4"},
        {"at": 8, "do": "asked", "op": 5, "verb": "set", "job": "aa", "frames": [1, 2, 3, 4]},
        {"at": 8, "do": "answered", "op": 5, "job": "aa", "tasks": 1},
        {"at": 9, "do": "asked", "op": 6, "verb": "retry", "job": "aa", "frames": [2]},
        {"at": 9, "do": "killed", "who": "client"},
        {"at": 9, "do": "started", "job": "one", "frame": 4, "token": "t5"},
        {"at": 10, "do": "finished", "job": "aa", "done": [1, 2, 4], "failed": []},
        {"at": 10, "do": "finished", "job": "bb", "done": [1], "failed": []},
        {"at": 11, "do": "fetched", "job": "aa", "files": {1: "t1", 2: "t3", 4: "t5"}, "last": True},
        {"at": 11, "do": "fetched", "job": "aa", "files": {1: "t1", 2: "t3", 4: "t5"}, "last": True},
        {"at": 11, "do": "fetched", "job": "bb", "files": {1: "t4"}, "last": True},
        {"at": 12, "do": "store", "jobs": {"aa": "one", "bb": "two"},
         "results": {"aa": {(1, 0): 1, (2, 0): 1, (2, 1): 1, (4, 0): 1}, "bb": {(1, 0): 1}},
         "changes": {"aa": {"cancel": 1, "retry": 1, "set": 1}}},
    ]
    return history


def find(history, do, nth=0, **wanted):
    return [event for event in history if event["do"] == do and all(event.get(key) == value for key, value in wanted.items())][nth]


PLANTS = {
    "an accepted job is gone": ("lost", lambda h: h[-1]["jobs"].pop("aa")),
    "a submission made two jobs": ("twice", lambda h: h[-1]["jobs"].update(cc="two")),
    "a job comes from nowhere": ("twice", lambda h: h[-1]["jobs"].update(cc="three")),
    "a job never finishes": ("stuck", lambda h: h.remove(find(h, "finished", job="bb"))),
    "a job takes more than a minute": ("stuck", lambda h: find(h, "finished", job="aa").update(at=70)),
    "a frame is not done": ("lost", lambda h: find(h, "finished", job="aa")["done"].remove(1)),
    "a frame failed": ("lost", lambda h: find(h, "finished", job="aa").update(done=[1, 2], failed=[4])),
    "a frame that was added is forgotten": ("lost", lambda h: find(h, "finished", job="aa")["done"].remove(4)),
    "a cancelled frame is done all the same": ("stale", lambda h: find(h, "finished", job="aa")["done"].append(3)),
    "a done frame is not home": ("lost", lambda h: [find(h, "fetched", n, job="aa", last=True)["files"].pop(1) for n in (0, 1)]),
    "two clients got different bytes": ("twice", lambda h: find(h, "fetched", 1, job="aa", last=True)["files"].update({2: "t2"})),
    "a frame changes that nobody touched": ("twice", lambda h: find(h, "fetched", job="aa")["files"].update({1: "t0"})),
    "a retried frame is the old one": ("stale", lambda h: [find(h, "fetched", n, job="aa", last=True)["files"].update({2: "t2"}) for n in (0, 1)]),
    "bytes of another frame": ("foreign", lambda h: find(h, "fetched", job="bb")["files"].update({1: "t1"})),
    "two current results": ("twice", lambda h: h[-1]["results"]["aa"].update({(1, 0): 2})),
    "a retry took effect twice": ("twice", lambda h: h[-1]["changes"]["aa"].update(retry=3)),
    "an answered retry had no effect": ("lost", lambda h: h[-1]["changes"]["aa"].update(retry=0)),
    "a cancel took effect twice": ("twice", lambda h: h[-1]["changes"]["aa"].update(cancel=2)),
    "an edit took effect twice": ("twice", lambda h: h[-1]["changes"]["aa"].update(set=2)),
    "an answered edit had no effect": ("lost", lambda h: h[-1]["changes"]["aa"].update(set=0)),
    "a request is refused": ("refused", lambda h: h.insert(8, {"at": 6, "do": "refused", "op": 6, "why": "nobody answers"})),
}


def test():
    from farm import Failed, check, equal
    equal(judge(good()), [], "faults of a good history")
    also = good()
    also[-1]["changes"]["aa"]["retry"] = 2  # the one that was cut short may have taken effect
    equal(judge(also), [], "faults of another good one")
    for name, (kind, plant) in PLANTS.items():
        history = copy.deepcopy(good())
        plant(history)
        faults = judge(history)
        check(any(fault.startswith(kind + ":") for fault in faults), "%s: %s was not found, only %s" % (name, kind, faults))
        print("found   %s: %s" % (name, faults[0]))


if __name__ == "__main__":
    test()
