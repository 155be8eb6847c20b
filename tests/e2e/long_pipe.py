"""Much data for many at once: what the broker holds of it, and what a project that was sent before costs."""
import hashlib
import os
import re
import signal
import sqlite3

from farm import Farm, check, equal, main, read, scenario, tree, until, write

PEERS = int(os.environ.get("WESTLIGHT_PEERS", "16"))
MIB = 1 << 20


def peak(process):
    return int(re.search(r"VmHWM:\s+(\d+) kB", read("/proc/%d/status" % process.pid).decode()).group(1)) * 1024


@scenario
def the_broker_stays_within_its_memory_while_many_pull_and_one_of_them_reads_nothing():
    budget, size = 4 * PEERS * MIB, 48 * MIB
    with Farm() as farm:
        farm.start_broker("--bulk-memory", str(budget))
        farm.worker("box1", "--no-probe", "--slots", "1", "--cores", "1")
        ann = farm.person("ann")
        write(farm.path("shot", "scene"), "x")
        job = ann.ask("submit", "shot", "--preset", "command", "-f", "1", "-o", "out", "-p",
                      'run=head -c %d /dev/urandom > "$OUT/cache.$FRAME"' % size, code=0, cwd=farm.folder).id
        ann.wait_counts(job, done=1)
        before = peak(farm.broker)
        pulls = [(["fetch", job, "-o", farm.path("home%d" % i)], i) for i in range(PEERS)]
        running = [ann.start(*argv) for argv, _ in pulls]
        stalled = running[0]
        until(lambda: os.path.exists(farm.path("home0")), "the first one has begun")
        os.kill(stalled.pid, signal.SIGSTOP)  # its link stays, and nothing is read from it
        for popen in running[1:]:
            answer = ann.finish(popen, seconds=300)
            check(answer.code == 0, answer)
        after = peak(farm.broker)
        print("        %d peers, budget %d MiB: peak %d MiB, %d before" % (PEERS, budget / MIB, after / MIB, before / MIB))
        check(after - before <= budget, "at its peak the broker held %d MiB more than before, with a budget of %d" % (
            (after - before) / MIB, budget / MIB))
        os.kill(stalled.pid, signal.SIGCONT)
        answer = ann.finish(stalled, seconds=300)
        check(answer.code == 0, "who slept gets it all the same", answer)
        whole = tree(farm.path("home1"))
        equal([len(data) for data in whole.values()], [size], "the size")
        for i in range(PEERS):
            check(tree(farm.path("home%d" % i)) == whole, "home%d has the same bytes" % i)


@scenario
def what_was_known_and_is_gone_from_the_farm_is_read_and_sent_once_more():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        write(farm.path("shot", "cache.vdb"), os.urandom(5 * MIB))
        for i in range(20):
            write(farm.path("shot", "texture%d" % i), os.urandom(20000))

        def submit():
            return ann.ask("submit", "shot", "--preset", "command", "-f", "1", "-o", "out", "--json", "-p",
                           'run=cat *.vdb tex* | sha256sum > "$OUT/sum.$FRAME"', code=0, cwd=farm.folder).json
        equal(submit()["bytes_sent"] > 5 * MIB, True, "the first goes whole")
        until(lambda: submit() and known(ann) > 1, "files that have settled are known")
        farm.broker.kill()
        gone = [path for path in blocks(farm) if os.path.getsize(path) > 100000]
        for path in gone:
            os.remove(path)
        farm.start_broker()
        again = submit()
        check(again["bytes_sent"] > 5 * MIB, "what was lost is sent again:", again)
        farm.worker("box1", "--no-probe", "--slots", "1", "--cores", "1")
        ann.ask("fetch", again["id"], "--follow", code=0, cwd=farm.folder)
        data = [read(farm.path("shot", name)) for name in sorted(os.listdir(farm.path("shot")))]
        equal(tree(farm.path("out"))["sum.1"].split()[0].decode(), hashlib.sha256(b"".join(data)).hexdigest(), "what the worker had")


def blocks(farm):
    return [os.path.join(base, name) for base, _, names in os.walk(os.path.join(farm.state, "vault")) for name in names]


def known(person):
    database = sqlite3.connect("file:%s/.state/westlight/known/files.db?mode=ro" % person.home, uri=True, timeout=10)
    try:
        return database.execute("SELECT count(*) FROM known").fetchone()[0]
    finally:
        database.close()


if __name__ == "__main__":
    main()
