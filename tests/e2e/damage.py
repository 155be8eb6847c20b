"""Backups, the way back, and bits that turn over: what the broker gives out is what was given to it, or
it says what is damaged.
"""
import glob
import json
import os
import random
import re
import shutil
import subprocess
import tempfile

from farm import BROKER, Farm, check, equal, lines, main, read, scenario, tree, until, write

# Each run of a frame leaves other bytes, too many for the row of the result: they lie in the vault.
UNLIKE = 'run=echo "frame $FRAME" > "$OUT/f.$FRAME"; head -c 5000 /dev/urandom >> "$OUT/f.$FRAME"'
FRAMES = range(1, 7)


def lighted(farm, *options):
    """A broker, a person and a worker."""
    farm.start_broker(*options)
    farm.worker("box1", "--no-probe", "--slots", "2", "--cores", "2")
    return farm.person("ann")


def submit(farm, person, frames, command=UNLIKE, scene="shot", content=None):
    write(farm.path(scene, "input"), content if content is not None else "x")
    return person.submit(farm.path(scene), "--preset", "command", "-f", frames, "-o", farm.path("out"), "-p", command)


def fetch(farm, person, job, name, code=0, *options):
    answer = person.ask("fetch", job, "-o", farm.path(name), *options, code=code)
    return tree(farm.path(name)), answer


def look(farm, folder=None, code=0, *options):
    done = farm.run(BROKER, "--check", folder or farm.state, *options, code=code)
    return done.stdout


def backup(farm, name="backup", code=0):
    return farm.run(BROKER, "--backup", farm.path(name), "--state", farm.state, code=code)


def blocks(folder):
    return sorted(glob.glob(os.path.join(folder, "vault", "*", "??", "?" * 62)))


def flip(path, at, bit=0):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def refuses(farm, *words):
    """The broker does not start, and says why; no signal ends it."""
    done = subprocess.run([BROKER, "run", "--state", farm.state, "--control", "tcp://127.0.0.1:*", "--bulk", "tcp://127.0.0.1:*"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, env=farm.env, timeout=60, check=False)
    equal(done.returncode, 1, "the broker's exit code: %s" % done.stderr)
    for word in words:
        check(word in done.stderr, word, "in", done.stderr)


def done_job(farm, person, frames="1-6"):
    """A finished job, and the bytes of its frames."""
    job = submit(farm, person, frames)
    home, _ = fetch(farm, person, job, "first", 0, "--follow")
    return job, home


def blocks_of_results(farm, job):
    """{frame: its blocks' files}: those that a result's list of blocks names, found by what changes when it is gone."""
    found = {}
    for path in blocks(farm.state):
        os.rename(path, path + ".away")
        for line in look(farm, None, None, "--quick").splitlines():
            match = re.match(r"frame (-?\d+) of job %s" % job[:8], line)
            if match:
                found.setdefault(int(match.group(1)), []).append(path)
        os.rename(path + ".away", path)
    return found


@scenario
def a_backup_of_a_running_broker_is_whole_and_the_next_brings_only_what_is_new():
    with Farm() as farm:
        ann = lighted(farm)
        job, _ = done_job(farm, ann, "1-2")
        first = backup(farm)
        n = len(blocks(farm.state))
        check("%d new blocks" % n in first.stdout, first.stdout)
        check(" 0 findings" in look(farm, farm.path("backup")), "the backup is clean")
        check(" 0 findings" in look(farm), "the state is clean, while the broker runs")
        equal(sorted(os.listdir(farm.path("backup"))), ["backup", "keys", "state"], "what is in a backup")
        for name in ("broker.key", "master.key"):
            equal(os.stat(farm.path("backup", "keys", name)).st_mode & 0o777, 0o600, "mode of " + name)
            check(not os.path.exists(farm.path("backup", "state", name)), name, "lies apart from the database")
        submit(farm, ann, "1-2", scene="other", content="y" * 3000)
        ann.wait_counts("last", done=2)
        second = backup(farm)
        new = len(blocks(farm.state)) - n
        check(new > 0 and "%d new blocks" % new in second.stdout and "%d were there" % n in second.stdout, second.stdout)
        shutil.move(farm.path("backup", "keys"), farm.path("safe"))
        check("keys are not here" in look(farm, farm.path("backup")), "keys that are kept apart are told of")
        look(farm, farm.path("backup"), 0, "--keys", farm.path("safe"))
        told = json.loads(look(farm, farm.path("backup"), 0, "--json", "--quick", "--keys", farm.path("safe")))
        equal((told["findings"], told["jobs"], told["hashed"], told["running"]), (0, 2, False, False), "as JSON")
        os.rename(farm.path("backup", "backup"), farm.path("backup", "unfinished"))  # as one that was cut off
        check("was not finished" in farm.run(BROKER, "--check", farm.path("backup"), code=2).stderr, "it is no backup yet")
        check(" 0 new blocks" in backup(farm).stdout, "it is finished by the next")
        look(farm, farm.path("backup"))
        write(farm.path("taken", "file"), "not ours")
        check("no backup of this broker" in backup(farm, "taken", 1).stderr, "another's folder is refused")
        equal(tree(farm.path("taken")), {"file": b"not ours"}, "what lay there")


@scenario
def a_backup_on_another_file_system_is_a_copy_and_a_damaged_block_is_left_out():
    with Farm() as farm, tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if os.stat(elsewhere).st_dev == os.stat(farm.folder).st_dev:
            print("        skipped: /dev/shm is no other file system")
            return
        ann, folder = lighted(farm), os.path.join(elsewhere, "backup")
        job, home = done_job(farm, ann, "1-2")
        picture = max(blocks(farm.state), key=os.path.getsize)
        os.utime(picture, (2000, 2000))
        flip(picture, 99)
        done = farm.run(BROKER, "--backup", folder, "--state", farm.state, code=1)
        check("copied" in done.stdout and "1 blocks are damaged" in done.stderr, done.stdout, done.stderr)
        check("is missing: westlight retry %s -f " % job[:8] in look(farm, folder, 1), look(farm, folder, None))
        flip(picture, 99)
        before = os.stat(picture).st_mtime
        other = min(blocks(farm.state), key=os.path.getsize)
        os.utime(other, (1000, 1000))  # the sweeper goes by it
        check(" 1 new blocks copied" in farm.run(BROKER, "--backup", folder, "--state", farm.state).stdout, "it comes with the next")
        farm.broker.kill()
        shutil.rmtree(farm.state)
        farm.run(BROKER, "restore", folder, farm.state)
        farm.start_broker()
        equal(os.stat(other).st_mtime, 1000, "the time of a block that was in the backup already")
        equal(os.stat(picture).st_mtime, before, "the time of one that was brought")
        equal(fetch(farm, ann, job, "second")[0], home, "frames")


@scenario
def a_restored_state_uses_no_number_of_the_future_it_lost_and_no_frame_is_skipped_or_lost():
    with Farm() as farm:
        ann = lighted(farm)
        job, early = done_job(farm, ann, "1-3")
        gate, starts = farm.path("gate"), farm.path("starts")
        gated = 'run=echo x >> %s; while [ ! -e %s ]; do sleep 0.05; done; echo 1 > "$OUT/h"' % (starts, gate)
        known = submit(farm, ann, "1", gated)
        ann.wait_counts(known, running=1)
        backup(farm)
        ann.ask("set", job, "--frames", "1-6", code=0)
        ann.wait_counts(job, done=6)
        late, _ = fetch(farm, ann, job, "first")  # with receipts of results that the backup does not know
        equal(sorted(late), ["f.%d" % i for i in FRAMES], "home before")
        later = submit(farm, ann, "1-2")
        ann.wait_counts(later, done=2)
        highest = farm.rows("SELECT max(sequence) FROM attempts")[0][0]
        epoch = farm.rows("SELECT value FROM meta WHERE name = 'epoch'")[0][0]
        ann.wait_counts(submit(farm, ann, "1", gated), running=1)
        farm.broker.kill()
        shutil.rmtree(farm.state)
        farm.run(BROKER, "restore", farm.path("backup"), farm.state)
        check("not empty" in farm.run(BROKER, "restore", farm.path("backup"), farm.state, code=1).stderr, "a state is not overwritten")
        farm.start_broker()
        check("no job begins with" in ann.ask("show", later).text or "no such job" in ann.ask("show", later).text, ann.ask("show", later))
        check(farm.rows("SELECT value FROM meta WHERE name = 'epoch'")[0][0] > epoch + 1000, "the epoch left the lost future")
        ann.ask("set", job, "--frames", "1-6", code=0)
        ann.wait_counts(job, done=6)
        until(lambda: len(lines(starts)) == 3, "what was leased before the restoring is leased anew")
        write(gate, "")
        ann.wait_counts(known, done=1)
        again, _ = fetch(farm, ann, job, "first")
        fresh, _ = fetch(farm, ann, job, "second")
        equal(again, fresh, "what is home, and what the broker holds")
        equal({name: again[name] for name in early}, early, "frames of before the backup")
        check(all(again["f.%d" % i] != late["f.%d" % i] for i in (4, 5, 6)), "frames of the lost future were rendered anew")
        lost = [row for row in farm.rows("SELECT sequence, epoch FROM attempts WHERE sequence > ?", highest)]
        equal(len(lost), 4, "results after the restoring")
        check(all(row[1] > epoch for row in lost), "and their epochs", lost)
        check(" 0 findings" in look(farm), look(farm, None, None))


def damages(state, row):
    """Ways to damage a database; `row` is of a row that no later page in the log replaces."""
    database, log = os.path.join(state, "state.db"), os.path.join(state, "state.db-wal")

    def in_file(path, needle, offset=0):
        return lambda: flip(path, read(path).index(needle) + offset)
    yield "its magic", in_file(database, b"SQLite format 3")
    yield "its header's format", lambda: flip(database, 18, 2)
    yield "a table's description", in_file(database, b"CREATE TABLE results", 13)
    yield "a page", lambda: flip(database, read(database).index(row) // 4096 * 4096 + 4)
    yield "a row", in_file(database, row)
    yield "its end", lambda: os.truncate(database, os.path.getsize(database) // 2 // 4096 * 4096)
    yield "all of it", lambda: os.truncate(database, 0)
    yield "its file", lambda: os.unlink(database)
    yield "its log", lambda: flip(log, 32 + 24 + 100)
    yield "its log's header", lambda: flip(log, 9)


@scenario
def a_broker_does_not_start_on_a_damaged_database_and_check_says_the_same():
    with Farm() as farm:
        ann = lighted(farm)
        done_job(farm, ann, "1-2")
        farm.broker.stop()  # all of it is in the file
        row = farm.rows("SELECT blob FROM attempts LIMIT 1")[0][0]
        farm.start_broker()
        ann.ask("set", "last", "--note", "one", code=0)
        ann.ask("set", "last", "--note", "two", code=0)
        farm.broker.kill()  # and some in the log
        shutil.copytree(farm.state, farm.path("whole"), copy_function=shutil.copy2)
        for what, damage in damages(farm.state, row):
            shutil.rmtree(farm.state)
            shutil.copytree(farm.path("whole"), farm.state, copy_function=shutil.copy2)
            damage()
            try:
                findings = look(farm, None, 1)
                check("state.db" in findings, findings)
                refuses(farm, "state.db", "--check")
            except Exception as error:
                raise AssertionError("damaged was %s" % what) from error
        shutil.rmtree(farm.state)
        shutil.copytree(farm.path("whole"), farm.state, copy_function=shutil.copy2)
        look(farm)
        farm.start_broker()


@scenario
def a_damaged_block_of_a_frame_is_named_the_others_come_home_and_retry_heals_it():
    with Farm() as farm:
        ann = lighted(farm)
        job, home = done_job(farm, ann)
        owned = blocks_of_results(farm, job)
        pictures = {frame: max(paths, key=os.path.getsize) for frame, paths in owned.items()}
        equal(sorted(pictures), list(FRAMES), "frames with blocks")
        ways = {1: lambda path: flip(path, 40), 2: lambda path: os.truncate(path, 100), 3: lambda path: os.truncate(path, 0),
                4: os.unlink}
        for frame, way in ways.items():
            way(pictures[frame])
        os.rename(pictures[5], pictures[5] + ".x")  # 5 and 6 change places
        os.rename(pictures[6], pictures[5])
        os.rename(pictures[5] + ".x", pictures[6])
        found = look(farm, None, 1)
        for frame in FRAMES:
            check("frame %d of job %s: block " % (frame, job[:8]) in found, "frame", frame, "in", found)
            check("westlight retry %s -f %d renders it again" % (job[:8], frame) in found, found)
        got, answer = fetch(farm, ann, job, "second", 4)
        equal(got, {}, "frames that are home")
        why = "no such block" if "frame 4:" in answer.err else "damaged"  # they come side by side: any may be told of first
        check(why in answer.err and "retry %s -f" % job[:8] in answer.err and "(and 5 more)" in answer.err, answer)
        ann.ask("retry", job, "-f", "1-5", code=0)
        ann.wait_counts(job, done=6)
        got, answer = fetch(farm, ann, job, "second", 4)
        equal(sorted(got), ["f.%d" % i for i in range(1, 6)], "frames that are home")
        check(re.search(r"frame 6 of job %s: f\.6: block .*damaged.*; westlight retry %s -f 6 renders it again" % (job[:8], job[:8]),
                        answer.err), answer)
        equal(fetch(farm, ann, job, "second", 4)[1].code, 4, "the second reader is told the same")
        ann.ask("retry", job, "-f", "6", code=0)
        ann.wait_counts(job, done=6)
        got, _ = fetch(farm, ann, job, "second")
        equal(sorted(got), sorted(home), "frames that are home")
        for path in blocks_of_results(farm, job)[5]:
            os.remove(path)
        answer = fetch(farm, ann, job, "third", 4)[1]
        check(re.search(r"frame 5 of job %s: (f\.5|its list of files): block .*no such block.*; westlight retry %s -f 5" % (job[:8], job[:8]),
                        answer.err), answer)


@scenario
def a_damaged_input_fails_no_renderer_and_comes_again_with_the_next_submission():
    with Farm() as farm:
        farm.start_broker()
        ann, content = farm.person("ann"), os.urandom(40000)
        job = submit(farm, ann, "1", content=content)
        backup(farm)
        flip(max(blocks(farm.state), key=os.path.getsize), 1000)
        found = look(farm, None, 1)
        check("job %s (" % job[:8] in found and "an input: block" in found, found)
        farm.worker("box1", "--no-probe", "--slots", "1")
        rows = until(lambda: farm.attempts(job), lambda: "an attempt fails\n" + farm.logs())
        equal(rows[0][5], 2, "its class: missing input")
        check(re.search(r"input input: block \w+: it is damaged on the broker's disk: submit the scene again", ann.ask("show", job).text),
              ann.ask("show", job))
        again = submit(farm, ann, "1", content=content)
        ann.wait_counts(again, done=1)
        ann.ask("retry", job, code=None)
        ann.wait_counts(job, done=1)
        check(" 0 findings" in look(farm), look(farm, None, None))
        check("is damaged" in look(farm, farm.path("backup"), 1), "a link to what was damaged")
        backup(farm)
        check(" 0 findings" in look(farm, farm.path("backup")), "the next backup takes what came again")


@scenario
def bits_that_turn_over_anywhere_give_no_wrong_byte_and_no_crash(seeds=range(int(os.environ.get("WESTLIGHT_SEEDS", "12")))):
    with Farm() as farm:
        ann = lighted(farm)
        job, home = done_job(farm, ann)
        ann.ask("retry", job, "-f", "2", code=0)
        ann.wait_counts(job, done=6)
        home, _ = fetch(farm, ann, job, "first")
        ann.ask("set", job, "--note", "the last frame of the log, which a kill may have left half written", code=0)
        for process in farm.processes:
            process.kill()
        os.rename(farm.state, farm.path("whole"))
        files = [path for path in sorted(tree(farm.path("whole"))) if path not in ("lock", "state.db-shm")]
        told = {"refused": 0, "named": 0, "whole": 0}
        for seed in seeds:
            chance = random.Random(seed)
            shutil.copytree(farm.path("whole"), farm.state, copy_function=shutil.copy2)
            for _ in range(chance.choice((1, 3, 30))):
                path = os.path.join(farm.state, chance.choice(files + ["state.db", "state.db-wal"] * 20))
                flip(path, chance.randrange(os.path.getsize(path)), chance.randrange(8))
            code = farm.run(BROKER, "--check", farm.state, code=None).returncode
            check(code in (0, 1), "seed", seed, "--check ended with", code)
            try:
                outcome = turned_over(farm, ann, job, home)
            except Exception as error:
                raise AssertionError("seed %d" % seed) from error
            check(outcome != "whole" or code in (0, 1), "seed", seed)
            told[outcome] += 1
            shutil.rmtree(farm.state)
        print("       ", ", ".join("%s %d" % pair for pair in told.items()))


def turned_over(farm, person, job, home):
    broker = subprocess.Popen([BROKER, "run", "--state", farm.state, "--ready-file", farm.path("ready2"), "--control", farm.control,
                               "--bulk", farm.bulk], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              env=farm.env, text=True, errors="replace")
    try:
        until(lambda: broker.poll() is not None or os.path.exists(farm.path("ready2")), "it starts or says why not")
        if broker.poll() is not None:
            err = broker.stderr.read()
            equal(broker.returncode, 1, err)
            check("state.db" in err or ".key" in err, "it says what is damaged:", err)
            return "refused"
        answer = person.ask("fetch", job, "-o", farm.path("turned"), seconds=30)
        got = tree(farm.path("turned"))
        check(all(home[name] == content for name, content in got.items()), "a wrong byte", sorted(got))
        check(broker.poll() is None, "the broker lives:", broker.returncode)
        if answer.code == 0:
            equal(sorted(got), sorted(home), "frames that are home, of a fetch that says that all are")
            return "whole"
        check(answer.err, "it says what is missing", answer)
        return "named"
    finally:
        broker.kill()
        broker.wait()
        shutil.rmtree(farm.path("turned"), ignore_errors=True)
        if os.path.exists(farm.path("ready2")):
            os.unlink(farm.path("ready2"))


if __name__ == "__main__":
    main()
