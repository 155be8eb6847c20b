"""The private farm of --local: no configuration, nothing left running, and the same command goes on."""
import os
import shutil
import signal
import socket
import subprocess
import time

from farm import BROKER, CLIENT, WORKER, Farm, alive, check, equal, lines, main, read, scenario, tree, until, write

PROGRAMS = (b"westlight-broker", b"westlight-worker")
FRAMES = {"f.%d" % i: b"%d\n" % i for i in range(1, 7)}


class Desk:
    """Somebody's own machine: a home without any configuration, and a scene."""

    def __init__(self, farm, name="desk"):
        self.farm, self.home = farm, farm.path(name)
        os.makedirs(self.home)
        self.env = dict(farm.env, HOME=self.home)
        self.witness = os.path.join(self.home, "witness")
        os.makedirs(self.witness)
        write(os.path.join(self.home, "shot", "input"), "x")

    def argv(self, *more, run='echo $FRAME > "$OUT/f.$FRAME"'):
        return ["render", "shot", "--preset", "command", "-f", "1-6", "-o", "out", "--local",
                "-p", "run=echo $FRAME $$ >> %s/starts; %s" % (self.witness, run), *more]

    def gated(self, *more):
        """Frames 1 and 2 end by themselves, the others when the gate opens."""
        return self.argv(*more, run='while [ $FRAME -gt 2 ] && [ ! -e %s/gate ]; do sleep 0.05; done; '
                                    'echo $FRAME > "$OUT/f.$FRAME"' % self.witness)

    def open(self):
        write(os.path.join(self.witness, "gate"), "")

    def start(self, argv, client=CLIENT):
        return subprocess.Popen([client, *argv], cwd=self.home, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, start_new_session=True)

    def ask(self, *argv, code=0):
        return self.finish(self.start(argv), argv, code)

    def finish(self, popen, argv, code=0):
        out, err = popen.communicate(timeout=120)
        check(popen.returncode == code, "exit code %d wanted, got %d: %s\n%s%s" % (code, popen.returncode, argv, out, err))
        return out + err

    def starts(self):
        """How often each frame was started."""
        words = read(os.path.join(self.witness, "starts"), b"").decode().split()
        return {int(frame): words[::2].count(frame) for frame in words[::2]}

    def running(self):
        """The private farm's processes and the shells they run, by their pids."""
        shells = [int(word) for word in lines(os.path.join(self.witness, "starts"))[1::2]]
        return [pid for pid in farm_processes(self.home) + shells if alive(pid)]

    def nothing_runs(self):
        until(lambda: not self.running(), lambda: "what still runs: %s" % self.running(), 15)


def farm_processes(home):
    """The brokers and workers whose state lies below."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = read("/proc/%s/cmdline" % name, b"").split(b"\0")
        except ProcessLookupError:
            continue
        if os.path.basename(words[0]) in PROGRAMS and any(word.startswith(home.encode()) for word in words):
            found.append(int(name))
    return found


@scenario
def a_first_render_needs_no_configuration_and_leaves_nothing_running():
    with Farm() as farm:
        desk = Desk(farm)
        said = desk.ask(*desk.argv("--workers", "2", "--slots", "2"))
        equal(tree(desk.home + "/out"), FRAMES, "frames home")
        check("6 of 6 tasks home" in said and "2 workers" in said, said)
        # A keeper of a task is told to end, and on a busy machine it ends a moment after its worker.
        until(lambda: not farm_processes(desk.home), lambda: "these live on: %s" % farm_processes(desk.home), 5)
        for name in ("me.key", "worker-1.key", "secret"):
            equal(os.stat("%s/.local/state/westlight/local/1/%s" % (desk.home, name)).st_mode & 0o777, 0o600, name)


@scenario
def the_same_command_again_fetches_and_renders_nothing():
    with Farm() as farm:
        desk = Desk(farm)
        desk.ask(*desk.argv())
        os.unlink(desk.home + "/out/f.3")
        said = desk.ask(*desk.argv())
        check("goes on where it stopped" in said and "6 of 6 tasks home" in said, said)
        equal(tree(desk.home + "/out"), FRAMES, "frames home")
        equal(desk.starts(), {frame: 1 for frame in range(1, 7)}, "starts")


@scenario
def an_edited_scene_renders_over_its_own_frames_and_over_nobody_elses():
    with Farm() as farm:
        desk = Desk(farm)

        def argv(frames):
            return ["render", "shot", "--preset", "command", "-f", frames, "-o", "out", "--local",
                    "-p", 'run=cat input > "$OUT/f.$FRAME"']

        def home(*contents):
            equal(tree(desk.home + "/out"), {"f.%d" % (i + 1): content for i, content in enumerate(contents)}, "frames home")
        desk.ask(*argv("1-3"))
        write(desk.home + "/shot/input", "another scene")
        desk.ask(*argv("1-3"))
        home(b"another scene", b"another scene", b"another scene")
        write(desk.home + "/out/f.2", "painted over")
        write(desk.home + "/shot/input", "a third")
        said = desk.ask(*argv("1-4"), code=4)
        check("f.2: a file that was not fetched, or was changed since, is in the way" in said, said)
        home(b"a third", b"painted over", b"a third", b"a third")
        desk.ask(*argv("1-4"), "--force")
        home(b"a third", b"a third", b"a third", b"a third")


def interrupted(desk, end):
    """Renders until frames 1 and 2 are home and others run, then ends it that way; what was running."""
    argv = desk.gated("--slots", "2")
    popen = desk.start(argv)
    until(lambda: len(tree(desk.home + "/out")) >= 2 and len(desk.starts()) >= 4, "two frames are home, others run")
    check(desk.running(), "there are processes to end")
    end(popen)
    return popen, argv


@scenario
def ctrl_c_ends_the_private_farm_and_the_same_command_goes_on():
    with Farm() as farm:
        desk = Desk(farm)
        popen, argv = interrupted(desk, lambda popen: os.kill(popen.pid, signal.SIGINT))
        said = desk.finish(popen, argv, code=4)
        check("run the same command to go on" in said, said)
        desk.nothing_runs()
        desk.open()
        check("6 of 6 tasks home" in desk.ask(*argv), "the second run completes the first")
        equal(tree(desk.home + "/out"), FRAMES, "frames home")
        equal({frame: desk.starts()[frame] for frame in (1, 2)}, {1: 1, 2: 1}, "starts of what was home")


@scenario
def what_was_stopped_does_not_hold_up_another_command_and_goes_on_with_its_own():
    with Farm() as farm:
        desk = Desk(farm)
        popen, argv = interrupted(desk, lambda popen: os.kill(popen.pid, signal.SIGINT))
        desk.finish(popen, argv, code=4)
        starts = desk.starts()
        other = desk.ask("render", "shot", "--preset", "command", "-f", "7-8", "-o", "out2", "--local", "--slots", "2",
                         "-p", 'run=echo $FRAME > "$OUT/f.$FRAME"')
        check("2 of 2 tasks home" in other, other)
        equal(desk.starts(), starts, "starts of the one that was stopped")
        desk.open()
        check("6 of 6 tasks home" in desk.ask(*argv), "its own command completes it")


@scenario
def a_command_that_was_killed_takes_its_farm_with_it_and_loses_nothing_that_was_committed():
    with Farm() as farm:
        desk = Desk(farm)
        popen, argv = interrupted(desk, lambda popen: popen.kill())
        popen.communicate(timeout=20)
        desk.nothing_runs()
        desk.open()
        desk.ask(*argv)
        equal(tree(desk.home + "/out"), FRAMES, "frames home")
        equal({frame: desk.starts()[frame] for frame in (1, 2)}, {1: 1, 2: 1}, "starts of what was home")


@scenario
def two_private_farms_at_once_and_a_busy_well_known_port_are_no_trouble():
    with Farm() as farm, socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 7420))
            taken.listen()
        except OSError:
            pass  # it is taken already, which is what is wanted
        desk = Desk(farm)
        first = desk.gated()
        popen = desk.start(first)
        try:
            until(lambda: len(tree(desk.home + "/out")) >= 2, "the first has begun")
            out = desk.ask("render", "shot", "--preset", "command", "-f", "7-8", "-o", "out2", "--local",
                           "-p", 'run=echo $FRAME > "$OUT/f.$FRAME"')
            check("2 of 2 tasks home" in out, out)
            said = desk.ask(*first, code=3)
            check("this command is running already" in said, said)
            desk.open()
            desk.finish(popen, first)
        finally:
            popen.kill()
        equal((tree(desk.home + "/out"), tree(desk.home + "/out2")), (FRAMES, {"f.7": b"7\n", "f.8": b"8\n"}), "frames home")


@scenario
def what_runs_on_the_private_farm_can_be_looked_at_meanwhile():
    with Farm() as farm:
        desk = Desk(farm)
        argv = desk.gated()
        popen = desk.start(argv)
        try:
            until(lambda: len(desk.starts()) >= 3, "a gated frame runs")
            said = desk.ask("show", "last", "--farm", "local")
            check("of local" in said and "running" in said, said)
            check("worker-1" in desk.ask("workers", "--farm", "local"), "its worker is listed")
            desk.open()
            desk.finish(popen, argv)
        finally:
            popen.kill()
        said = desk.ask("show", "last", "--farm", "local", code=3)
        check("tcp://127.0.0.1" in said, "afterwards nobody is there, and that is said:", said)


@scenario
def a_key_file_whose_path_reads_like_a_key_is_no_trouble():
    with Farm() as farm:
        desk = Desk(farm)
        desk.env["WESTLIGHT_LOCAL"] = "l" * 31  # with "/1/me.key": 40 characters, each of them Z85's
        equal(len(desk.env["WESTLIGHT_LOCAL"] + "/1/me.key"), 40, "length of the path")
        desk.ask(*desk.argv())
        equal(tree(desk.home + "/out"), FRAMES, "frames home")


@scenario
def a_command_killed_while_its_keys_were_registered_is_no_trouble_for_the_next():
    with Farm() as farm:
        desk, bin = Desk(farm), farm.path("bin")
        os.makedirs(bin)
        client = shutil.copy(CLIENT, bin)  # it looks for the other programs beside itself
        os.symlink(os.path.realpath(WORKER), bin + "/westlight-worker")
        write(bin + "/westlight-broker", '#!/bin/sh\n[ "$1" != allow ] || ! mkdir %s/once || { kill -KILL $PPID; exit 1; }\n'
              'exec %s "$@"\n' % (bin, BROKER), 0o755)
        desk.finish(desk.start(desk.argv(), client), "the one killed", -signal.SIGKILL)
        desk.finish(desk.start(desk.argv(), client), "the next")
        equal(tree(desk.home + "/out"), FRAMES, "frames home")


@scenario
def what_no_worker_there_can_run_ends_with_code_3_and_the_reason():
    with Farm() as farm:
        desk = Desk(farm)
        began = time.monotonic()
        said = desk.ask(*desk.argv("-p", "gpus=99"), code=3)
        check("amount.worker.gpu" in said, said)
        check(time.monotonic() - began < 30, "it took too long")
        equal(desk.starts(), {}, "starts")


@scenario
def what_fails_there_names_no_command_that_cannot_work():
    with Farm() as farm:
        desk = Desk(farm)
        said = desk.ask(*desk.argv(run="exit 7"), code=1)
        check("has paused itself: its first attempts all failed" in said and "the same command tries again" in said, said)
        for word in ("westlight retry", "westlight resume", "westlight log"):
            check(word not in said, word, said)


@scenario
def a_frame_that_fails_there_says_what_it_printed_and_is_tried_again_by_the_same_command():
    with Farm() as farm:
        desk = Desk(farm)
        argv = desk.argv("--slots", "2", run='if [ $FRAME = 5 ] && [ ! -e %s/mended ]; then echo the lamp is broken; exit 7; fi; '
                                             'echo $FRAME > "$OUT/f.$FRAME"' % desk.witness)
        said = desk.ask(*argv, code=1)
        check("frame 5" in said and "the lamp is broken" in said and "7" in said, said)
        equal(len(tree(desk.home + "/out")), 5, "frames home")
        write(desk.witness + "/mended", "")
        desk.ask(*argv)
        equal(tree(desk.home + "/out"), FRAMES, "frames home")
        equal([desk.starts()[frame] for frame in (1, 2, 3, 4, 6)], [1] * 5, "starts of what was home")


if __name__ == "__main__":
    main()
