"""README.md's first session, typed as it is written and in its order; only places, ports, keys and
sizes are put in (PUT below). What was typed and what came back is printed: the transcript."""
import os
import re
import subprocess

from farm import BROKER, CLIENT, SOURCE, WORKER, Farm, Process, check, equal, main, read, run, scenario, tree, until, write

SMALLER = {"480x270": "48x27", "1-240": "1-12", "1-300": "1-14", "-f 17": "-f 7"}  # a render of minutes is not the point


def blocks():
    """The code blocks of the first session, each a list of lines."""
    with open(os.path.join(SOURCE, "README.md"), encoding="utf-8") as file:
        session = file.read().split("## A first session")[1].split("## Read on")[0]
    return [block.strip("\n").split("\n") for block in re.findall(r"```\n(.*?)```", session, re.S)]


class Typist:
    """Somebody at a shell, in a folder of their own."""

    def __init__(self, farm):
        self.farm, self.put, self.left = farm, dict(SMALLER), []
        self.desk = farm.path("desk")
        write(os.path.join(self.desk, ".keep"), "")
        os.makedirs(farm.path("bin"))
        for program in (CLIENT, BROKER, WORKER):
            os.symlink(program, farm.path("bin", os.path.basename(program)))
        self.env = dict(farm.env, HOME=farm.path("home"), PATH=farm.path("bin") + ":" + farm.env["PATH"])
        os.makedirs(self.env["HOME"])

    def line(self, text):
        for written, here in self.put.items():
            text = text.replace(written, here)
        return text

    def type(self, text, code=0):
        """Runs it as a shell would; what it says."""
        command = self.line(text)
        done = subprocess.run(command, shell=True, cwd=self.desk, env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=180, check=False)
        print("$ %s\n%s%s" % (text, done.stdout, done.stderr), flush=True)
        check(done.returncode == code, "exit code %d, not %d: %s\n%s%s" % (done.returncode, code, command, done.stdout, done.stderr))
        return done.stdout

    def leave_running(self, text, more=""):
        """A terminal of its own for what does not end."""
        print("$ %s &" % text, flush=True)
        command = ["sh", "-c", "cd '%s' && exec %s %s" % (self.desk, self.line(text).split(" #")[0], more)]
        process = Process(text.split()[0], command, self.farm.path("terminal%d.log" % len(self.left)), dict(self.env))
        self.left.append(process)
        self.farm.processes.append(process)
        return process


def finished(typist):
    """The next command is typed when the frames are there."""
    def state():
        return subprocess.run([typist.farm.path("bin", "westlight"), "show", "last"], env=typist.env, capture_output=True, text=True,
                              check=False).stdout
    until(lambda: re.search("^state +done", state(), re.M), state, 120)


@scenario
def the_readmes_first_session_works_as_it_is_written():
    with Farm() as farm:
        typist = Typist(farm)
        local, broker, tokens, joins, works, workers, studios, backup = blocks()
        os.symlink(os.path.join(SOURCE, "tests"), os.path.join(typist.desk, "tests"))
        check("24 of 24" in typist.type(local[0]), "24 frames")
        equal(len(tree(os.path.join(typist.desk, "lighthouse-frames"))), 24, "frames in lighthouse-frames")

        typist.put.update({"/srv/westlight": farm.path("srv"), "/var/lib/westlight": farm.path("worker")})
        ready, endpoints = farm.path("ready"), "--control tcp://127.0.0.1:%s --bulk tcp://127.0.0.1:* --ready-file " + farm.path("ready")
        service = typist.leave_running(broker[0], endpoints % "*" + " --enrol tcp://127.0.0.1:*")
        until(lambda: read(ready, b"").endswith(b"\n"), "the broker is ready")
        port, door = (re.search(r"%s=tcp://127\.0\.0\.1:(\d+)" % name, read(ready).decode()).group(1) for name in ("control", "enrol"))
        typist.put["farm.example"] = "127.0.0.1:" + door
        tokens = [typist.type(line).strip() for line in tokens]
        typist.put.update({"WORKER-TOKEN": tokens[0], "ARTIST-TOKEN": tokens[1]})
        typist.type(joins[0])
        typist.leave_running(joins[1])
        typist.type(joins[2])

        run(["blender", "--background", "--factory-startup", "-noaudio", "--python-exit-code", "1", "--python-expr",
             "import bpy; s = bpy.context.scene; s.render.engine = 'CYCLES'; s.cycles.samples = 1; s.cycles.use_denoising = False; "
             "s.render.resolution_x, s.render.resolution_y = 32, 24; "
             "bpy.ops.wm.save_as_mainfile(filepath='%s/shot.blend')" % typist.desk], farm.folder)
        os.unlink(os.path.join(typist.desk, "tests"))  # the scene's folder travels
        first = re.search(r"\b[0-9a-f]{32}\b", typist.type(works[0])).group()
        typist.put["3f2a9c"] = first[:6]
        for line in works[1:]:
            if "resubmit" in line or "archive" in line:
                finished(typist)
            typist.type(line)
        equal(sorted(tree(os.path.join(typist.desk, "frames"))), ["shot.%04d.png" % n for n in range(1, 13)], "frames fetched")

        artist = typist.env["HOME"]
        typist.env["HOME"] = farm.path("operator")
        os.makedirs(typist.env["HOME"])
        for role, join in (("operator", "westlight join farm.example TOKEN --name Grace"),
                           ("worker", "westlight-worker join farm.example TOKEN --name node2 --state node2")):
            typist.put["TOKEN"] = typist.type("westlight-broker token create --state /srv/westlight --role " + role).strip()
            typist.type(join)
        for line in workers:
            typist.type(line)
        check("node1" in typist.type("westlight workers"), "its worker is listed")
        typist.env["HOME"] = artist

        check(re.search(r"^Aurora .* none$", typist.type(studios[0]), re.M), "the studio is listed")
        typist.type(studios[1])
        check(re.search(r"^Aurora .* 536\.\d+ GB$", typist.type(studios[0]), re.M), "its quota is set")

        typist.put["/backup/westlight"] = farm.path("backup")
        for line in backup[:-1]:
            typist.type(line)
        service.stop()
        os.rename(farm.path("srv"), farm.path("lost"))
        typist.type(backup[-1])
        os.unlink(ready)
        typist.leave_running(broker[0], endpoints % port)
        until(lambda: read(ready, b"").endswith(b"\n"), "the broker is ready")
        check("take two" in typist.type("westlight jobs --all"), "the jobs are back")


if __name__ == "__main__":
    main()
