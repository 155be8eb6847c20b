"""What an operator does to workers: drain, undrain, clear, note, pool; and workers that the broker itself sets
aside. All of it lives through power cuts."""
import re

from farm import WORKER, Farm, check, equal, main, scenario, until, write
from kills import GATED, Shot, running_on


def worker_of(ops, name):
    return next((worker for worker in ops.ask("workers", "--json", code=0).json if worker["name"] == name), None)


def wait_state(ops, name, state):
    return until(lambda: (lambda worker: worker if worker and worker["state"] == state else None)(worker_of(ops, name)),
                 lambda: "%s is %s:\n%s\n%s" % (name, state, ops.ask("workers"), ops.farm.logs()))


def why(person, job):
    return person.show(job)["steps"][0]["why"]


def wait_why(person, job, *words):
    until(lambda: all(word in why(person, job) for word in words), lambda: "%s; it is: %s" % (words, why(person, job)))


@scenario
def a_drained_worker_finishes_what_runs_and_stays_drained_through_every_restart():
    with Farm() as farm:
        farm.start_broker()
        ann, ops, shot = farm.person("ann"), farm.person("ops", None, "operator"), Shot(farm)
        box = farm.worker("box1", "--slots", "1")
        job = shot.submit(ann, "1-4")
        shot.wait_starts(lambda starts: starts == {1: 1}, "frame 1 runs")
        ann.wait_counts(job, running=1, leased=1)  # and one is prefetched behind it
        answer = ops.ask("workers", "drain", "box1", "--note", "disk swap", code=0)
        check("box1" in answer.out and "draining" in answer.out, answer)
        until(lambda: ann.counts(job)["leased"] == 0, "what was prefetched is taken back")
        wait_why(ann, job, "every worker that could run it is drained")
        wait_state(ops, "box1", "draining")
        farm.broker.kill()
        farm.start_broker()
        wait_state(ops, "box1", "draining")
        shot.open(1)
        ann.wait_counts(job, done=1)
        row = wait_state(ops, "box1", "drained")
        equal((row["note"], row["drained"], row["connected"], row["running"]), ("disk swap", True, True, 0), "the row")
        box.stop()
        farm.broker.kill()  # nothing but the store knows now
        farm.start_broker()
        equal(worker_of(ops, "box1")["state"], "drained, away", "before it is back")
        shot.open()
        farm.worker("box1", "--slots", "1")
        wait_state(ops, "box1", "drained")
        wait_why(ann, job, "every worker that could run it is drained")
        equal(shot.starts(), {1: 1}, "starts while it is drained")
        ops.ask("workers", "undrain", "box1", code=0)
        shot.home(ann, job, 4)
        equal(shot.starts(), {frame: 1 for frame in range(1, 5)}, "starts")


@scenario
def a_pool_takes_its_own_jobs_only_and_a_worker_may_change_pools_while_it_renders():
    with Farm() as farm:
        farm.start_broker()
        ann, ops, shot = farm.person("ann"), farm.person("ops", None, "operator"), Shot(farm)
        farm.worker("box1", "--slots", "1")
        wait_state(ops, "box1", "idle")
        ops.ask("workers", "pool", "box1", "night", code=0)
        equal(worker_of(ops, "box1")["pool"], "night", "the pool")
        argv = [farm.path("shot"), "--preset", "command", "-o", farm.path("out"), "-p", GATED % {"w": shot.witness}]
        plain = ann.submit("-f", "1-2", *argv)
        wait_why(ann, plain, "in a pool", "asks for none")
        nobody = ann.submit("-f", "1", "--pool", "dawn", *argv)
        wait_why(ann, nobody, "no connected worker is in the pool dawn")
        pooled = ann.submit("-f", "11-13", "--pool", "night", *argv)
        shot.wait_starts(lambda starts: starts == {11: 1}, "the pool's job runs")
        ann.wait_counts(pooled, running=1, leased=1)
        ops.ask("workers", "pool", "box1", "", code=0)  # 11 is finished, 12 goes back
        until(lambda: ann.counts(pooled)["leased"] == 0, "what was prefetched and no longer fits is taken back")
        wait_why(ann, pooled, "no connected worker is in the pool night")
        shot.open()
        ann.wait_counts(plain, done=2)
        equal(ann.counts(pooled)["done"], 1, "what ran when the pool changed is finished, and no more of it")
        equal(shot.starts(), {11: 1, 1: 1, 2: 1}, "starts")


@scenario
def a_worker_on_which_everything_fails_is_set_aside_until_it_is_cleared():
    with Farm() as farm:
        farm.start_broker()
        ann, ops, shot = farm.person("ann"), farm.person("ops", None, "operator"), Shot(farm)
        farm.worker("good", "--slots", "1", "--prefetch", "0")
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-30", "-o", farm.path("out"), "-p",
                         "run=case $PWD in */bad/*) exit 1;; esac; " + GATED[4:] % {"w": shot.witness})
        shot.open(1)
        shot.wait_starts(lambda starts: 2 in starts, "the good one is at its second frame")
        farm.worker("bad", "--slots", "1")
        until(lambda: (worker_of(ops, "bad") or {"failed": 0})["failed"] >= 5, "the bad one has failed 5 frames")
        equal(worker_of(ops, "bad")["set_aside"], False, "a scene that fails is no reason")
        shot.open()  # what failed there is done elsewhere
        row = until(lambda: (lambda worker: worker if worker["set_aside"] else None)(worker_of(ops, "bad")),
                    lambda: "bad is set aside\n%s\n%s" % (ops.ask("workers"), farm.logs()))
        equal((row["state"], row["failed_in_a_row"] >= 5), ("set aside", True), "the row")
        check(re.search(r"set aside: \d+ tasks failed in a row", ops.ask("workers").out), ops.ask("workers"))
        ann.wait_counts(job, done=30)
        farm.broker.kill()
        farm.start_broker()
        equal(worker_of(ops, "bad")["set_aside"], True, "after a power cut")
        ops.ask("workers", "clear", "bad", code=0)
        row = wait_state(ops, "bad", "idle")
        equal((row["set_aside"], row["failed_in_a_row"]), (False, 0), "the row when it is cleared")
        equal(worker_of(ops, "good")["set_aside"], False, "the other one")


@scenario
def whoever_is_meant_must_be_clear_and_only_an_operator_may():
    with Farm() as farm:
        farm.start_broker()
        ann, ops = farm.person("ann"), farm.person("ops", None, "operator")
        farm.worker("box1", "--slots", "1")
        farm.worker("box2", "--slots", "1")
        for name in ("box1", "box2"):
            wait_state(ops, name, "idle")
        key = worker_of(ops, "box2")["key"]
        farm.allow("worker", farm.new_key(farm.path("off.key")), "off")  # was never here
        check("operator" in ann.ask("workers", "drain", "box1", code=3).err, "a studio is refused")
        check("no such worker" in ops.ask("workers", "drain", "box1", "box9", code=2).err, "an unknown one is named")
        equal(worker_of(ops, "box1")["drained"], False, "and nothing was done to the other")
        twin = farm.new_key(farm.path("twin.key"))
        farm.allow("worker", twin, "box1")
        farm.start("twin", [WORKER, "--broker", farm.control, "--bulk", farm.bulk, "--server-key",
                            farm.server_key, "--key", farm.path("twin.key"), "--state", farm.path("twin"), "--slots", "1"])
        until(lambda: sum(worker["name"] == "box1" for worker in ops.ask("workers", "--json").json) == 2, "there are two box1")
        said = ops.ask("workers", "drain", "box1", code=2).err
        check("box1" in said and "key" in said, "two of one name:", said)
        ops.ask("workers", "note", "--", twin[:8], "the other box1", code=0)  # a key may begin with a dash
        ops.ask("workers", "drain", "--", key[:6], "off", code=0)
        rows = {worker["key"]: worker for worker in ops.ask("workers", "--json", code=0).json}
        equal((rows[twin]["note"], rows[key]["state"], rows[key]["drained"]), ("the other box1", "drained", True), "by key")
        equal([row["state"] for row in rows.values() if row["name"] == "off"], ["drained, away"], "one that was never here")
        document = ops.ask("workers", "undrain", "--json", "--", key, code=0).json
        equal((document["did"], [row["name"] for row in document["workers"]]), ("undrain", ["box2"]), "what --json says")
        table = ops.ask("workers", code=0).out
        for word in ("STATE", "POOL", "NOTE", "the other box1"):
            check(word in table, "the table has", word, table)
        check("westlight help workers" in ops.ask("workers", "drain", code=2).err, "drain whom?")
        check("frobnicate" in ops.ask("workers", "frobnicate", "box1", code=2).err, "a verb that is none")


if __name__ == "__main__":
    main()
