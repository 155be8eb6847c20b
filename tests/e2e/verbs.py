"""The daily verbs: submit, watch, show, log, fetch, cancel, pause, resume, retry, jobs, workers; as text
and as JSON."""
import json
import os
import re
import signal
import subprocess

from farm import CLIENT, ID, Farm, alive, check, equal, lines, main, read, scenario, tree, until, write
from kills import GATED, shot_farm


@scenario
def submit_prints_the_id_before_it_uploads_and_what_to_do_next():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        argv = [farm.path("shot"), "--preset", "command", "-f", "1-2", "-o", farm.path("out"), "-p", "run=true"]
        said = ann.ask("submit", *argv, code=0).out.splitlines()
        check(re.fullmatch("job [0-9a-f]{32}", said[0]) and said[1].startswith("accepted:"), said)
        check("westlight watch" in said[2] and "westlight fetch" in said[2], said)
        document = ann.ask("submit", *argv, "--json", code=0).json
        equal(sorted(document), ["blocks", "blocks_sent", "bytes_sent", "file_bytes", "files", "folder", "id", "software"], "what --json says")
        ann.configure(bulk="tcp://127.0.0.1:1")  # nobody takes the blocks: the id is there all the same
        write(farm.path("shot", "input"), os.urandom(100))
        stuck = ann.start("submit", *argv)
        try:
            check(ID.search(stuck.stdout.readline()), "the id comes first")
            check(stuck.poll() is None, "it is still uploading")
        finally:
            stuck.kill()
            stuck.communicate()
        rows = ann.configure().ask("jobs", "--all", "--json", code=0).json
        equal(len([row for row in rows if not row["upload"]]), 2, "jobs accepted")


@scenario
def ctrl_c_in_render_leaves_the_job_on_the_farm_and_says_how_to_go_on():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        out = farm.path("out")
        argv = ["render", farm.path("shot"), "--preset", "command", "-f", "1-3", "-o", out, "-p", GATED % {"w": shot.witness}]
        render = ann.start(*argv)
        shot.wait_starts(lambda starts: len(starts) == 2, "two frames run")
        os.kill(render.pid, signal.SIGINT)
        answer = ann.finish(render, argv)
        equal(answer.code, 4, answer)
        short = answer.id[:8]
        for words in ("westlight watch " + short, "westlight fetch %s -o '%s' --follow" % (short, out), "westlight cancel " + short):
            check(words in answer.out, "it says", words, answer)
        shot.open()
        ann.ask("fetch", short, "-o", out, "--follow", code=0)
        equal(tree(out), {"f.%d" % i: b"%d\n" % i for i in (1, 2, 3)}, "frames home")
        equal(shot.starts(), {1: 1, 2: 1, 3: 1}, "starts")


@scenario
def watch_tells_every_change_until_the_job_is_finished():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        job = shot.submit(ann, "1-4")
        text, document = ann.start("watch", job), ann.start("watch", "last", "--json")
        shot.wait_starts(lambda starts: len(starts) == 2, "two frames run")
        shot.open()
        answer = ann.finish(text)
        check(answer.code == 0 and "done 4/4 done" in answer.out, answer)
        rows = [json.loads(line) for line in ann.finish(document).out.splitlines()]
        done = [row["counts"]["done"] for row in rows]
        equal((done, done[-1], rows[-1]["finished"]), (sorted(done), 4, True), "what --json told")


@scenario
def cancelling_frames_stops_those_and_cancelling_the_job_stops_the_rest():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        job = shot.submit(ann, "1-6")
        shot.wait_starts(lambda starts: sorted(starts) == [1, 2], "frames 1 and 2 run")
        check("2 tasks cancelled" in ann.ask("cancel", job, "-f", "2,5", code=0).out, "both are counted")
        shot.wait_starts(lambda starts: len(starts) == 3, "another frame has the slot that frame 2 had")
        shot.open(1)
        ann.wait_counts(job, done=1, cancelled=2)
        equal(ann.ask("cancel", job, "--json", code=0).json, {"id": job, "did": "cancel", "tasks": 3}, "what --json says")
        counts = ann.wait_counts(job, done=1, cancelled=5)
        equal(counts["running"] + counts["leased"], 0, "what still runs")
        equal(ann.show(job)["phase"], "cancelled", "the phase")
        answer = ann.ask("fetch", job, "-o", farm.path("home"), "--follow", code=4)
        equal(tree(farm.path("home")), {"f.1": b"1\n"}, "frames home")
        check("1 of 6 tasks done" in answer.out, answer)
        check(5 not in shot.starts(), "a cancelled frame never starts:", shot.starts())
        shot.open()
        check("1 task will run again" in ann.ask("retry", job, "-f", "4", code=0).out, "one of them is brought back")
        ann.wait_counts(job, done=2, cancelled=4)
        ann.ask("cancel", job, code=0)
        check("5 tasks will run again" in ann.ask("retry", job, "-f", "2-6", code=0).out, "retry brings the others back")
        shot.home(ann, job, 6)
        for verb in ("cancel", "pause"):
            check("nothing has changed" in ann.ask(verb, job, code=0).out, verb, "of what is done")
            equal((ann.show(job)["phase"], ann.show(job)["state"]), ("done", "active"), "the phase")


@scenario
def the_processes_of_a_cancelled_frame_end():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        pids = farm.path("pids")
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "-p",
                         "run=trap '' TERM; sleep 1000 & echo $! $$ > %s.new; mv %s.new %s; while :; do wait; done" % (pids, pids, pids))
        until(lambda: os.path.exists(pids), "the command runs")
        ann.ask("cancel", job, code=0)
        for pid in lines(pids):
            until(lambda pid=pid: not alive(int(pid)), "process %s is gone, though it minds no SIGTERM" % pid, 20)


@scenario
def a_paused_job_finishes_what_runs_and_goes_on_when_resumed():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        job = shot.submit(ann, "1-5")
        shot.wait_starts(lambda starts: len(starts) == 2, "two frames run")
        check("paused" in ann.ask("pause", job, code=0).out, "it says so")
        check(" by ann of acme" in ann.ask("show", job).out, "whose key it is, whatever the login")
        shot.open()
        ann.wait_counts(job, done=2)
        counts = ann.wait_counts(job, ready=3)
        equal((counts["running"], counts["leased"]), (0, 0), "what runs while it is paused")
        check("paused" in ann.ask("show", job, code=0).out and "westlight resume" in ann.ask("show", job).out, "show says why")
        watch = ann.start("watch", job)
        check("paused 2/5 done" in watch.stdout.readline() and watch.poll() is None, "watch says so, and goes on")
        check("active" in ann.ask("resume", job, code=0).out, "it says so")
        equal(ann.finish(watch).code, 0, "watch")
        shot.home(ann, job, 5)
        equal(shot.starts(), {frame: 1 for frame in range(1, 6)}, "starts")


@scenario
def retry_makes_a_frame_anew_and_fetch_brings_the_new_one():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        out, count = farm.path("out"), farm.path("count")
        write(count, "x")
        job = ann.ask("render", farm.path("shot"), "--preset", "command", "-f", "1-3", "-o", out, "-p",
                      'run=echo $FRAME $(cat %s) > "$OUT/f.$FRAME"' % count, code=0).id
        write(count, "y")
        check("1 task will run again" in ann.ask("retry", job, "-f", "2", code=0).out, "it says so")
        ann.wait_counts(job, done=3)
        ann.ask("fetch", job, "--follow", code=0)  # to where it was rendered for
        equal(tree(out), {"f.1": b"1 x\n", "f.2": b"2 y\n", "f.3": b"3 x\n"}, "frames home")
        check("0 tasks" in ann.ask("retry", job, code=0).out, "without -f it is what failed: nothing")
        answer = ann.ask("fetch", job, "-o", farm.path("fresh"), code=0)
        check(answer.out.count("frame 2:") == 1 and "3 files" in answer.out, "one result a frame comes home", answer)


@scenario
def retry_of_a_failed_frame_runs_that_one_only():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        mended, out = farm.path("mended"), farm.path("out")
        argv = ("-p", 'run=echo $FRAME >> %s/all; [ $FRAME != 30 ] || [ -e %s ] || { echo the lamp is broken; exit 3; }; '
                      'echo $FRAME > "$OUT/f.$FRAME"' % (shot.witness, mended))
        answer = ann.ask("render", farm.path("shot"), "--preset", "command", "-f", "1-30", "-o", out, *argv, code=1)
        check("failed: frame 30\n" in answer.err and "frame 30: renderer failed on box1: sh exited with 3" in answer.err and
              "the lamp is broken" in answer.err, answer)
        check("frame 30: renderer failed" in ann.ask("show", answer.id, code=0).out, "show names it")
        broken = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-9", "-o", out, "-p", "run=exit 3")
        watch = ann.ask("watch", broken, code=1).err
        check("has paused itself: its first attempts all failed" in watch and "westlight retry " + broken[:8] in watch, watch)
        check("the lamp is broken" in ann.ask("log", answer.id, code=0).out, "log without -f is the failed one's")
        write(mended, "")
        check("1 task" in ann.ask("retry", answer.id, code=0).out, "one frame failed")
        ann.ask("fetch", answer.id, "-o", out, "--follow", code=0)
        equal(len(tree(out)), 30, "frames home")
        ran = lines(shot.witness + "/all")
        equal((len(ran), ran.count("30")), (29 + 4, 4), "attempts, and those of frame 30")


@scenario
def the_log_of_each_attempt_is_kept_and_a_running_one_can_be_followed():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        command = ('run=n=$(cat %s/n 2>/dev/null || echo 0); n=$((n + 1)); echo $n > %s/n; echo attempt $n of frame $FRAME; '
                   'while [ ! -e %s/gate.$n ]; do sleep 0.05; done; echo the end of $n; [ $n = 2 ] && echo x > "$OUT/f"' %
                   (shot.witness, shot.witness, shot.witness))
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "9", "-o", farm.path("out"), "-p", command)
        until(lambda: "attempt 1 of frame 9" in ann.ask("log", job, "-f", "9").out, "what runs is shown as it comes")
        follow = ann.start("log", job, "-f", "9", "--follow")
        equal(follow.stdout.readline(), "attempt 1 of frame 9\n", "the first line followed")
        shot.open(1)
        equal(ann.finish(follow).out, "the end of 1\n", "the rest of it")
        shot.open(2)
        ann.wait_counts(job, done=1)
        with open("/dev/full", "w", encoding="utf-8") as full:
            for words in (("log", job), ("jobs",), ("show", job, "--json")):
                done = subprocess.run([CLIENT, *words], env=ann.env, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
                check(done.returncode == 4 and "standard output could not be written" in done.stderr, words, done)
        closed = subprocess.run("exec <&- >&- 2>&-; exec %s jobs" % CLIENT, shell=True, env=ann.env, check=False)
        equal(closed.returncode, 0, "with every stream closed")
        for number in (1, 2):
            equal(ann.ask("log", job, "-f", "9", "--attempt", number, code=0).out,
                  "attempt %d of frame 9\nthe end of %d\n" % (number, number), "attempt %d" % number)
        attempts = ann.ask("log", job, "-f", "9", "--json", code=0).json
        equal([(a["number"], a["class"], a["worker"]) for a in attempts], [(1, "renderer failed", "box1"), (2, "ok", "box1")], "attempts")
        check("there is none of that number" in ann.ask("log", job, "-f", "9", "--attempt", 3).err, "a third one")
        check("one frame at a time" in ann.ask("log", job, "-f", "9-10", code=2).err, "two frames")
        check("no frame 10" in ann.ask("log", job, "-f", "10", code=2).err, "another frame")


@scenario
def progress_status_and_failure_that_a_command_prints_are_told():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        command = ('run=echo openjd_progress: 42; echo openjd_status: lighting the lamp; '
                   'while [ ! -e %s/gate.all ]; do sleep 0.05; done; echo openjd_fail: out of oil; exit 1' % shot.witness)
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "-p", command)

        def told():
            live = ann.show(job)["live"]
            return live and live[0]["percent"] == 42.0 and live[0]["status"] == "lighting the lamp"
        until(told, lambda: "progress and status: %s" % ann.ask("show", job))
        check("42.0 %: lighting the lamp" in ann.ask("show", job).out, "as text")
        shot.open()
        until(lambda: "out of oil" in ann.ask("show", job).out, "the failure is told in its own words")


@scenario
def a_job_with_a_higher_priority_goes_first_and_studios_share():
    with Farm() as farm:
        ann, shot = shot_farm(farm, slots=1)
        order = farm.path("order")

        def submit(person, name, frames, *options):
            return person.submit(farm.path("shot"), "--preset", "command", "-f", frames, "-o", farm.path("out"), "--name", name, "-p",
                                 'run=echo %s >> %s; echo x > "$OUT/%s.$FRAME"' % (name, order, name), *options)
        gate = shot.submit(ann, "1")
        shot.wait_starts(lambda starts: starts, "the slot is taken")
        ann.ask("pause", gate, code=0)
        bob = farm.person("bob", studio="other")
        jobs = [(ann, submit(ann, "low", "1-3")), (ann, submit(ann, "high", "1-3", "--priority", "5")), (bob, submit(bob, "bobs", "1-3"))]
        shot.open()
        for person, job in jobs:
            person.wait_counts(job, done=3)
        ran = lines(order)
        # One of the first job's frames was queued behind the running one before the second job came.
        equal([name for name in ran if name != "bobs"], ["low"] + ["high"] * 3 + ["low"] * 2, "the order within one studio")
        check("bobs" in ran[:3], "the other studio does not wait behind it:", ran)


@scenario
def lists_and_farms_by_name():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        job = shot.submit(ann, "1-2")
        shot.wait_starts(lambda starts: len(starts) == 2, "both run")
        check(job[:8] in ann.ask("jobs", code=0).out, "it is listed")
        equal([row["id"] for row in ann.ask("jobs", "--json", code=0).json], [job], "the list")
        shot.open()
        ann.wait_counts(job, done=2)
        check("no jobs that are not finished" in ann.ask("jobs", code=0).out, "what is done is listed no more")
        equal([row["phase"] for row in ann.ask("jobs", "--all", "--json", code=0).json], ["done"], "with --all it is")
        boss = farm.person("boss", role="operator")
        check("box1" in boss.ask("workers", code=0).out, "workers")
        equal([(w["name"], w["slots"], w["connected"]) for w in boss.ask("workers", "--json", code=0).json], [("box1", 2, True)], "workers")
        path = ann.env["WESTLIGHT_CONFIG"]
        here = read(path).decode()
        write(path, "default = nowhere\n" + here.replace("[farm test]", "[farm here]") +
              here.replace("[farm test]", "[farm nowhere]").replace(farm.control, "tcp://127.0.0.1:1"), 0o600)
        check("tcp://127.0.0.1:1" in ann.ask("jobs", code=3).err, "the default is taken")
        ann.ask("jobs", "--farm", "here", code=0)
        ann.env["WESTLIGHT_FARM"] = "here"
        ann.ask("jobs", code=0)
        check("mars" in ann.ask("jobs", "--farm", "mars", code=2).err, "a farm nobody named")
        key = read(ann.key)
        check("key" in ann.ask("key", "new", "--key", ann.key, code=2).err, "a key is never written over")
        equal(read(ann.key), key, "the key")


@scenario
def shells_complete_commands_and_the_options_of_each():
    with Farm() as farm:
        def complete(*words):
            script = 'source <("$0" completion bash); COMP_WORDS=(%s); COMP_CWORD=%d; _westlight; echo "${COMPREPLY[@]}"' % (
                " ".join(words), len(words) - 1)
            return farm.run("bash", "-c", script, CLIENT).stdout.split()
        equal(complete("westlight", "re"), ["render", "resume", "retry", "resubmit"], "commands")
        equal(complete("westlight", "render", "--cl"), ["--clock-range"], "an option of render")
        equal(complete("westlight", "pause", "--cl"), [], "which pause has not")
        check("--follow" in complete("westlight", "log", "--"), "an option of log")
        for shell, words in (("zsh", "'workers:list the farm'\\''s workers"), ("fish", "-n '__fish_seen_subcommand_from log' -l follow")):
            check(words in farm.run(CLIENT, "completion", shell).stdout, shell, "completion says", words)
        check("bash, zsh or fish" in farm.run(CLIENT, "completion", "tcsh", code=2).stderr, "another shell")


if __name__ == "__main__":
    main()
