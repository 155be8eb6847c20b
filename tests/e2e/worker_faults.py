"""What a worker must bear: results of many files, renderers whose keeper is killed."""
import os
import signal

from farm import Farm, alive, check, equal, lines, main, scenario, sessions, tree, until, write

LONG = "/".join(letter * 240 for letter in "abcd")  # makes a list of 1,500 files longer than one block


@scenario
def a_list_of_files_longer_than_a_block_comes_home_and_is_read_by_the_next_step():
    with Farm() as farm:
        farm.start_broker()
        ann, out = farm.person("ann"), farm.path("out")
        farm.worker("box1", "--slots", "1")
        write(farm.path("shot", "input"), "x")
        answer = ann.ask("render", farm.path("shot"), "--preset", "command", "-f", "1", "-o", out,
                         "-p", 'run=mkdir -p "$OUT/%s" && cd "$OUT/%s" && for i in $(seq 1500); do echo $i > $i; done' % (LONG, LONG),
                         "-p", 'then=cd "$OUT/%s" && ls | wc -l > "$OUT/count"' % LONG,
                         code=0)
        home = tree(out)
        equal(home.pop("count").strip(), b"1500", "files that the second step found")
        equal(home, {"%s/%d" % (LONG, i): b"%d\n" % i for i in range(1, 1501)}, "files at home")
        equal(farm.results(answer.id), {(0, 0): 1, (1, 0): 1}, "current results")


@scenario
def short_tasks_one_after_another_find_nothing_of_each_other():
    with Farm() as farm:
        farm.start_broker()
        ann, out = farm.person("ann"), farm.path("out")
        farm.worker("box1", "--slots", "2", "--cores", "2", "--prefetch", "4")
        write(farm.path("shot", "input"), "x")
        answer = ann.ask("render", farm.path("shot"), "--preset", "command", "-f", "1-60", "-o", out, "-p",
                         'run=[ -z "$(ls -A "$TMPDIR" "$OUT" | grep -v ":$" | grep .; ls -A | grep -vx input)" ] || { ls -AR . "$TMPDIR" "$OUT"; exit 3; }; '
                         'touch left "$TMPDIR/left"; mkdir "$OUT/sub"; echo $FRAME > "$OUT/sub/$FRAME"', code=0)
        equal(tree(out), {"sub/%d" % i: b"%d\n" % i for i in range(1, 61)}, "files at home")
        equal(farm.results(answer.id), {(0, i): 1 for i in range(60)}, "current results")
        until(lambda: not os.listdir(farm.path("box1", "spool")), "nothing is kept in the spool")
        until(lambda: not sessions(farm.path("box1")), "nothing is kept of a session")
        until(lambda: len(os.listdir(farm.path("box1", "sessions"))) == 2, "an empty folder a slot lies ready")


@scenario
def what_a_renderer_started_ends_though_its_keeper_was_killed():
    with Farm() as farm:
        farm.start_broker()
        ann, pids = farm.person("ann"), farm.path("pids")
        farm.worker("box1", "--slots", "1")
        write(farm.path("shot", "input"), "x")
        ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "-p",
                   "run=[ -e %s ] && exit 0; setsid sleep 1000 & echo $! > %s.new; mv %s.new %s; "
                   "kill -9 $PPID; wait" % (pids, pids, pids, pids))
        until(lambda: os.path.exists(pids), "the command runs")
        for pid in lines(pids):
            until(lambda pid=pid: not alive(int(pid)), "process %s is gone" % pid, 15)


@scenario
def a_worker_starts_anew_only_when_nothing_is_left_of_what_the_last_one_ran():
    with Farm() as farm:
        farm.start_broker()
        ann, witness = farm.person("ann"), farm.path("witness")
        farm.worker("box1", "--slots", "1")
        write(farm.path("shot", "input"), "x")
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "-p", "optional=yes", "-p",
                         "run=[ -e %s ] && exit 0; echo $$ $PPID > %s.new; mv %s.new %s; exec sleep 1000" % ((witness,) * 4))
        pid, keeper = until(lambda: [int(word) for word in lines(witness)], "the command runs")
        os.kill(keeper, signal.SIGSTOP)  # as one whose renderer takes long to die
        farm.processes[-1].kill()
        again = farm.worker("box1", "--slots", "1")
        until(lambda: "waiting lock=" in again.log(), lambda: "it waits: " + again.log())
        check(alive(pid) and "joined" not in again.log(), "it has not begun:", again.log())
        os.kill(keeper, signal.SIGCONT)
        ann.wait_counts(job, done=1)
        check(not alive(pid), "what the last one ran is gone")


if __name__ == "__main__":
    main()
