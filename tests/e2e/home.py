"""What fetch, render and their words promise where something is in the way: a disk, a person's file, a
link that breaks, a name that is no text."""
import contextlib
import fcntl
import json
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time

from farm import CLIENT, Farm, check, equal, main, read, scenario, tree, until, write
from kills import shot_farm
from links import Relay


@scenario
def two_tasks_that_wrote_one_path_with_different_content_are_named_to_who_builds_on_both():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        argv = ("render", farm.path("shot"), "--preset", "command", "-f", "7-8", "-o", farm.path("out"))
        answer = ann.ask(*argv, "-p", 'run=echo equal > "$OUT/equal"; echo $FRAME > "$OUT/same"',
                         "-p", 'then=cat "$OUT/same" > "$OUT/end"', code=1)
        check("same: frame 7 of run and frame 8 of run both wrote it" in answer.err or
              "same: frame 8 of run and frame 7 of run both wrote it" in answer.err, answer)
        check("end" not in tree(farm.path("out")), "the second step did not run")
        ann.ask(*argv[:-1], farm.path("out2"), "-p", 'run=echo equal > "$OUT/equal"; echo $FRAME > "$OUT/f.$FRAME"',
                "-p", 'then=cat "$OUT"/f.? "$OUT/equal" > "$OUT/end"', code=0)
        equal(tree(farm.path("out2"))["end"], b"7\n8\nequal\n", "equal content is no harm")


@scenario
def show_tells_where_each_frame_stands_in_one_line():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        job = shot.submit(ann, "1-12")
        shot.wait_starts(lambda starts: sorted(starts) == [1, 2], "two frames run")
        shot.open(1)
        shot.wait_starts(lambda starts: len(starts) == 3, "the next one runs")
        ann.wait_counts(job, done=1, running=2)
        line = re.search("frames .*", ann.ask("show", job, code=0).out).group()
        check(re.fullmatch(r"frames   1-12: done 1, rendering 2-3, next 4(-5)?, waiting [56]-12", line), line)
        step = ann.show(job)["steps"][0]
        equal([step[name] for name in ("frames_done", "frames_failed", "frames_running")], ["1", "", "2-3"], "as JSON")
        shot.open()
        ann.wait_counts(job, done=12)
        check(re.search("frames   1-12: done 1-12\n", ann.ask("show", job, code=0).out), "at the end")


class Wire:
    """A TCP relay whose two directions can be held up; the way up, by itself after so many bytes, and never
    faster than `pace` bytes a second."""

    def __init__(self, target, bytes_up=None, pace=None):
        self.bytes_up, self.pace = bytes_up, pace
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.target, self.port = target.rsplit(":", 1)[1], self.listener.getsockname()[1]
        self.up, self.down = threading.Event(), threading.Event()
        self.up.set()
        self.down.set()
        self.taken = 0  # bytes that came from the peer, held up or not
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def endpoint(self):
        return "tcp://127.0.0.1:%d" % self.port

    def open(self):
        self.bytes_up = None
        self.up.set()

    def accept(self):
        while True:
            near = self.listener.accept()[0]
            far = until(self.lead, "somebody is there")
            threading.Thread(target=self.pump, args=(near, far, self.up), daemon=True).start()
            threading.Thread(target=self.pump, args=(far, near, self.down), daemon=True).start()

    def lead(self):
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", int(self.target)))

    def pump(self, source, sink, gate):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.taken += len(data) if gate is self.up else 0
                if self.bytes_up is not None and self.taken > self.bytes_up:
                    self.up.clear()
                gate.wait()
                if self.pace and gate is self.up:
                    time.sleep(len(data) / self.pace)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@scenario
def a_submission_stopped_while_it_may_be_accepted_says_so():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        control, bulk = Wire(farm.control), Wire(farm.bulk)
        ann.configure(control=control.endpoint, bulk=bulk.endpoint)
        argv = ("submit", farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "-p", "run=true")
        for held, words, jobs in ((False, ["upload of shot stopped at", "westlight submit --resume"], 0),
                                  (True, ["may have been accepted", "westlight show"], 1)):
            control.down.set()
            bulk.up.clear()
            taken = bulk.taken
            popen = ann.start(*argv)
            until(lambda taken=taken: bulk.taken > taken, "the client would send its blocks")
            if held:
                control.down.clear()
                bulk.up.set()
                until(lambda: farm.rows("SELECT count(*) FROM jobs")[0][0], "the broker has accepted the job")
            os.kill(popen.pid, signal.SIGINT)
            answer = ann.finish(popen, argv)
            check(answer.code == 4 and all(word in answer.err for word in words), words, answer)
            control.down.set()
            bulk.up.set()
            found = [row["id"] for row in ann.ask("jobs", "--all", "--json", code=0).json if not row["upload"]]
            equal(len(found), jobs, "jobs on the farm")
        equal(found, [answer.id], "the job's id was told")


@scenario
def a_fetch_is_partial_where_results_came_while_it_ran():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        # Frame 1 leaves more names than a pipe holds: fetch, which nobody reads, stops after its list.
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-2", "-o", farm.path("out"), "-p",
                         'run=while [ $FRAME = 2 ] && [ ! -e %s/gate ]; do sleep 0.05; done; [ $FRAME = 2 ] || for i in $(seq 500); do '
                         '> "$OUT/$(printf %%0200d $i)"; done; echo $FRAME > "$OUT/last.$FRAME"' % shot.witness)
        ann.wait_counts(job, done=1)
        argv = ("fetch", job, "-o", farm.path("home"))
        popen = ann.start(*argv)
        until(lambda: len(os.listdir(farm.path("home"))) > 100 if os.path.exists(farm.path("home")) else 0, "it brings frame 1")
        write(os.path.join(shot.witness, "gate"), "")
        ann.wait_counts(job, done=2)
        answer = ann.finish(popen, argv)
        check("last.2" not in tree(farm.path("home")) and answer.code == 4 and "fetch again" in answer.err, answer)
        ann.ask(*argv, code=0)
        check("last.2" in tree(farm.path("home")), "the next fetch brings it")


@scenario
def a_file_that_a_person_made_while_its_frame_was_under_way_is_not_replaced():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        relay = Relay(farm, "relay")
        home, path = farm.path("home"), farm.path("home", "f.1")
        run = "run=head -c 1500000 /dev/urandom > \"$OUT/f.1\"; echo > \"$OUT/g.1\""

        def begun(popen):
            """It has looked, and writes: a file that has no name yet."""
            folder = "/proc/%d/fd" % popen.pid
            with contextlib.suppress(OSError):
                return any(os.readlink(os.path.join(folder, name)).startswith(home + "/#") for name in os.listdir(folder))

        for found in (None, "ours"):  # nothing was there; then, what was fetched of an older job
            job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "-p", run)
            ann.wait_counts(job, done=1)
            relay.tell("rate 1000000")
            ann.configure(control=relay.control, bulk=relay.bulk)
            argv = ("fetch", job, "-o", home)
            popen = ann.start(*argv)
            until(lambda popen=popen: begun(popen), "the frame is under way")
            write(path, "painted meanwhile")
            answer = ann.finish(popen, argv)
            equal(read(path)[:50], b"painted meanwhile", "the person's file, where there was %s" % found)
            check(answer.code != 0 and "f.1" in answer.err and "--force" in answer.err, answer)
            check("g.1" in tree(home), "the rest comes home")
            ann.configure()
            ann.ask(*argv, "--force", code=0)
            equal(len(read(path)), 1500000, "by force it is the farm's")


@scenario
def a_disk_that_fills_is_told_at_once_and_render_goes_on_when_there_is_room():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        argv = ["render", farm.path("shot"), "--preset", "command", "-f", "1-3", "-p",
                'run=while [ $FRAME -gt 1 ] && [ ! -e %s/gate ]; do sleep 0.05; done; head -c 100000 /dev/zero > "$OUT/f.$FRAME"' % shot.witness]

        def start(out):  # no file may be larger than 50 kB: every frame is
            with open(farm.path(out + ".err"), "wb") as err:
                return subprocess.Popen(["sh", "-c", 'trap "" XFSZ; ulimit -S -f 100; exec "$@"', "sh", CLIENT, *argv, "-o", farm.path(out)],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, env=ann.env, text=True)

        popen = start("one")
        until(lambda: b"File too large" in read(farm.path("one.err")), "it is told while frames still render")
        check(popen.poll() is None, "render goes on")
        resource.prlimit(popen.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        write(os.path.join(shot.witness, "gate"), "")
        out = popen.communicate(timeout=60)[0]
        check(popen.returncode == 0 and "3 of 3 tasks home: 3 files, verified" in out, out)
        equal(sorted(tree(farm.path("one"))), ["f.1", "f.2", "f.3"], "frames home")

        popen = start("two")
        out = popen.communicate(timeout=60)[0]
        err = read(farm.path("two.err")).decode()
        check(popen.returncode == 4 and "0 of 3 tasks home: 0 files" in out and "not everything is home" in err, out, err)


def on_a_terminal(person, *argv, columns=80):
    """What a command writes to a terminal of that width, and its exit code."""
    near, far = os.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    popen = subprocess.Popen([CLIENT, *argv], stdin=far, stdout=far, stderr=far, env=dict(person.env, TERM="xterm"), start_new_session=True)
    stream, end = b"", b"<the end>"
    while not stream.endswith(end):
        # Behind its last word comes one of ours, because what a terminal holds when it closes may be lost.
        if popen.poll() is not None:
            os.write(far, end)
            while not stream.endswith(end):
                stream += os.read(near, 65536)
        elif select.select([near], [], [], 0.05)[0]:
            stream += os.read(near, 65536)
    os.close(far)
    os.close(near)
    stream = stream[:-len(end)]
    return popen.wait(60), stream.decode().replace("\r\n", "\n")


@scenario
def on_a_terminal_the_bar_stays_on_one_line_and_tells_how_long_it_takes():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        argv = ("render", farm.path("shot"), "--preset", "command", "-f", "1-24", "-p", 'run=sleep 0.05; echo $FRAME > "$OUT/f.$FRAME"')
        code, stream = on_a_terminal(ann, *argv, "-o", farm.path("out"))
        equal(code, 0, "exit code")
        bars = re.findall(r"\r(\[[#.]+\] [^\x1b]*)\x1b\[K", stream)
        check(len(bars) > 5, "bars:", repr(stream))
        check(all(len(bar) < 80 for bar in bars), "a bar that would wrap:", bars)
        check(all(a != b for a, b in zip(bars, bars[1:])), "a bar drawn anew though nothing changed:", bars)
        check("\r\x1b[K[" not in stream, "a bar is drawn over the old one, which is not wiped first")
        done = [int(re.search(r"(\d+)/24 frames", bar).group(1)) for bar in bars]
        check(done == sorted(done) and all(re.search(r", \d+ running, \d+ s", bar) for bar in bars), bars)
        check(all("left" not in bar for n, bar in zip(done, bars) if n < 3), "an estimate before three frames are done:", bars)
        check(any(re.search(r"about \d+ s left", bar) for bar in bars), "no estimate:", bars)
        last = re.sub(r"[^\n]*\r\x1b\[K", "", stream).strip().split("\n")
        check(all(len(line) <= 80 and "\x1b" not in line and "\r" not in line for line in last[-2:]), "the last lines:", last)
        check(last[-2].startswith("24 of 24 tasks home: 24 files, verified"), last)

        plain = ann.ask(*argv, "-o", farm.path("plain"), code=0).out
        check("\r" not in plain and "\x1b" not in plain and "[" not in plain, "no terminal: plain lines", plain)


@scenario
def a_terminal_obeys_nothing_that_a_task_or_a_person_called_a_thing():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        home, name = farm.path("home"), "sh\x1b]0;own\x07\xe4.\x9b31m"
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "--name", name, "--note", name, "-p",
                         "run=n=$(printf 'f\\033[31m\\303\\244'); echo > \"$OUT/$n\"; printf 'log\\033[2J\\303\\244\\302\\2332J\\n'")
        for code, said in (on_a_terminal(ann, "fetch", job, "--follow", "-o", home), on_a_terminal(ann, "show", job),
                           on_a_terminal(ann, "jobs", "--all"), on_a_terminal(ann, "log", job)):
            left = re.sub(r"\r?\x1b\[(K|\d+m)", "", said.replace("\x1b[31m", "obeyed"))  # the bar's, and colours of our own
            check(code == 0 and not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]|obeyed", left), repr(said))
            check("\xe4" in left and r"\x1b" in left, "it is shown:", repr(said))
        equal(list(tree(home)), ["f\x1b[31m\xe4"], "the file has its name")
        equal(ann.ask("log", job, code=0).out, "log\x1b[2J\xe4\x9b2J\n", "what is no terminal gets it as it was printed")
        equal(ann.ask("jobs", "--all", "--json", code=0).json[0]["name"], name, "as JSON")


@scenario
def on_a_terminal_an_error_is_wrapped_between_words_and_a_command_to_copy_is_not():
    with Farm() as farm:
        farm.start_broker()
        bob = farm.person("bob", known=False)
        said = bob.ask("jobs", code=3).err.strip()
        check("\n" not in said and len(said) > 160, "without a terminal it is one line:", said)
        code, stream = on_a_terminal(bob, "jobs")
        told = stream.strip().split("\n")
        equal((code, " ".join(line.strip() for line in told)), (3, said), "the words")
        check(all(line.startswith("  ") for line in told[1:]) and all(len(line) <= 80 for line in told[:-1]), told)
        equal(told[-1].strip(), "westlight-broker allow --state DIR --role studio --studio NAME '%s'" % bob.public, "the command to copy")


@scenario
def a_name_that_is_no_text_is_listed_as_json_all_the_same():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        name = "Sz\udcfc\udce2\udc82.blend"  # bytes FC, and E2 82, which is cut off
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "--name", name,
                         "-p", 'run=echo x > "$OUT/f"')
        ann.wait_counts(job, done=1)
        for row in (ann.show(job), ann.ask("jobs", "--all", "--json", code=0).json[0],
                    json.loads(ann.ask("watch", job, "--json", code=0).out.splitlines()[-1])):
            equal((row["name"], row["counts"]["done"]), ("Sz\ufffd\ufffd\ufffd.blend", 1), "the row")
        home = farm.path("h\udcfc")
        equal(ann.ask("fetch", job, "-o", home, "--json", code=0).json["folder"], farm.path("h\ufffd"), "the folder")


@scenario
def whoever_waits_is_told_that_the_farm_is_away_and_that_it_is_back():
    with Farm() as farm:
        farm.start_broker()
        farm.worker("box1", "--no-probe", "--slots", "1", "--cores", "1")
        ann, go, home = farm.person("ann"), farm.path("go"), farm.path("home")
        write(farm.path("shot", "input"), "x")
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-2", "-o", farm.path("out"), "-p",
                         'run=until [ "$FRAME" = 1 ] || [ -e %s ]; do sleep 0.1; done; echo x > "$OUT/f.$FRAME"' % go)
        fetch = ann.start("fetch", job, "--follow", "-o", home)
        until(lambda: read(os.path.join(home, "f.1"), b""), "the first frame is home")
        os.set_blocking(fetch.stderr.fileno(), False)
        said = []

        def told(words):
            with contextlib.suppress(BlockingIOError):
                said.append(os.read(fetch.stderr.fileno(), 65536).decode())
            return words in "".join(said)
        farm.broker.kill()
        until(lambda: told("the farm does not answer: this waits, and goes on when it does"), lambda: "said: %s" % said)
        farm.start_broker()
        until(lambda: told("the farm answers again"), lambda: "said: %s" % said)
        write(go, "")
        equal(fetch.wait(60), 0, "the fetch ends well")
        equal(sorted(tree(home)), ["f.1", "f.2"], "frames home")
        fetch.stdout.close()
        fetch.stderr.close()


if __name__ == "__main__":
    main()
