"""A private farm for one scenario: a broker, workers and people, each with keys of their own, in a
folder that goes when the scenario ends. Nothing here knows what a scenario wants to prove.

Everything waits for an event, with a deadline; what is ended is ended by its pid.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback

BROKER, WORKER, CLIENT, RELAY, HOSTILE, NVML, FAULTY = (os.environ.get("WESTLIGHT_" + name, name.lower()) for name in
                                          ("BROKER", "WORKER", "CLIENT", "RELAY", "HOSTILE", "NVML", "FAULTY"))
SOURCE = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
PATIENCE_S = 60  # for what should take a moment: a sanitised build on a busy machine is slow
ID = re.compile(r"\b[0-9a-f]{32}\b")


class Failed(Exception):
    pass


def check(condition, *what):
    if not condition:
        raise Failed(" ".join(str(part() if callable(part) else part) for part in what))


def short(value):
    """What a person can read of it: of a tree of files, the sizes of those that are large."""
    if isinstance(value, dict):
        value = {key: "%d bytes" % len(data) if isinstance(data, bytes) and len(data) > 200 else data for key, data in value.items()}
    text = repr(value)
    return text if len(text) < 4000 else text[:4000] + "... (%d characters)" % len(text)


def equal(got, wanted, what):
    if got != wanted:
        other = ""
        if isinstance(got, dict) and isinstance(wanted, dict):
            other = "; they differ in %s" % sorted((k for k in {*got, *wanted} if got.get(k) != wanted.get(k)), key=str)[:20]
        raise Failed("%s: got %s, wanted %s%s" % (what, short(got), short(wanted), other))


def sessions(state):
    """Folders of a worker's sessions that hold something; it keeps empty ones ready, of a fixed form."""
    folder = os.path.join(state, "sessions")
    return sorted({os.path.relpath(path, folder).split(os.sep)[0] for path, below, files in os.walk(folder)
                   for name in below + files
                   if path != folder and os.path.relpath(os.path.join(path, name), folder).split(os.sep)[1:]
                   not in (["work"], ["files"], ["work", "tmp"])})


def until(event, what, seconds=PATIENCE_S):
    """Waits until event() is true; its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = event()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed("not within %g s: %s" % (seconds, what() if callable(what) else what))
        time.sleep(0.02)


def read(path, default=None):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        if default is None:
            raise
        return default


def write(path, content, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)
    return path


def lines(path):
    return read(path, b"").decode().split()


def tree(folder):
    """Every file below, by its relative path."""
    found = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            if os.path.isfile(path):
                found[os.path.relpath(path, folder)] = read(path)
    return found


def scan(folder, needle):
    """The files below that hold these bytes."""
    found = []
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            if os.path.isfile(path) and not os.path.islink(path) and needle in read(path, b""):
                found.append(os.path.relpath(path, folder))
    return found


def run(argv, cwd):
    done = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    equal(done.returncode, 0, "%s: %s" % (" ".join(argv), done.stderr[-2000:]))


def alive(pid):
    """A zombie that its new parent has not yet seen is dead."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Process:
    """One program with its log; ended by its pid."""

    def __init__(self, name, argv, log, env):
        self.name, self.log_path = name, log
        self.start_at = os.path.getsize(log) if os.path.exists(log) else 0
        with open(log, "ab") as file:
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env,
                                          start_new_session=True)
        self.pid = self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def log(self):
        return read(self.log_path, b"")[self.start_at:].decode(errors="replace")

    def kill(self):
        """At once, as a power cut would."""
        if self.alive():
            self.popen.kill()
        self.popen.wait(PATIENCE_S)

    def stop(self):
        """In good order; the exit code."""
        if self.alive():
            self.popen.terminate()
        try:
            return self.popen.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed("%s did not end within 20 s of SIGTERM" % self.name)


class Answer:
    """What a command said."""

    def __init__(self, argv, code, out, err, seconds):
        self.argv, self.code, self.out, self.err, self.seconds = argv, code, out, err, seconds

    @property
    def text(self):
        return self.out + self.err

    @property
    def id(self):
        found = ID.search(self.out) or ID.search(self.err)
        check(found, "no job id in", self)
        return found.group()

    @property
    def json(self):
        try:
            return json.loads(self.out)
        except ValueError as error:
            raise Failed("no JSON (%s): %s" % (error, self))

    def __str__(self):
        return "%s -> %s\n--- out\n%s--- err\n%s" % (" ".join(self.argv), self.code, self.out[-3000:], self.err[-3000:])


class Person:
    """Somebody with a key: their own home, configuration and secret."""

    def __init__(self, farm, name):
        self.farm, self.name, self.program = farm, name, CLIENT
        self.home = os.path.join(farm.folder, "people", name)
        os.makedirs(self.home)
        self.key, self.secret = os.path.join(self.home, "key"), os.path.join(self.home, "secret")
        self.env = dict(farm.env, HOME=self.home, XDG_STATE_HOME=self.home + "/.state",
                        XDG_CONFIG_HOME=self.home + "/.config", WESTLIGHT_CONFIG=self.home + "/config")
        self.public = farm.new_key(self.key, self.secret)

    def configure(self, control=None, bulk=None, server_key=None):
        write(self.env["WESTLIGHT_CONFIG"], "[farm test]\ncontrol = %s\nbulk = %s\nserver_key = %s\nkey = %s\nsecret = %s\n" % (
            control or self.farm.control, bulk or self.farm.bulk, server_key or self.farm.server_key, self.key, self.secret), 0o600)
        return self

    def start(self, *argv, cwd=None):
        return subprocess.Popen([self.program, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=self.env, cwd=cwd or self.home, text=True, errors="replace", start_new_session=True)

    def finish(self, popen, argv=(), seconds=120):
        began = time.monotonic()
        try:
            out, err = popen.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            popen.kill()
            out, err = popen.communicate()
            raise Failed("not within %g s: %s" % (seconds, Answer(["westlight", *argv], "killed", out, err, seconds)))
        return Answer(["westlight", *argv], popen.returncode, out, err, time.monotonic() - began)

    def ask(self, *argv, code=None, cwd=None, seconds=120):
        argv = [str(word) for word in argv]
        answer = self.finish(self.start(*argv, cwd=cwd), argv, seconds)
        if code is not None:
            check(answer.code == code, "exit code %s wanted:" % code, answer)
        return answer

    def submit(self, *argv):
        return self.ask("submit", *argv, code=0).id

    def show(self, job):
        return self.ask("show", job, "--json", code=0).json

    def counts(self, job):
        return self.show(job)["counts"]

    def wait_counts(self, job, seconds=PATIENCE_S, **wanted):
        def reached():
            counts = self.counts(job)
            return counts if all(counts[name] >= least for name, least in wanted.items()) else None
        return until(reached, lambda: "%s; it is %s\n%s" % (wanted, self.ask("show", job), self.farm.logs()), seconds)


class Farm:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="westlight-e2e-")
        self.state = os.path.join(self.folder, "broker")
        self.processes, self.control, self.bulk, self.server_key, self.broker = [], None, None, None, None
        self.env = {name: os.environ[name] for name in ("PATH", "LANG", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS")
                    if name in os.environ}
        self.env.update(HOME=os.path.join(self.folder, "nobody"), TMPDIR=self.folder, LC_ALL="C.UTF-8")
        os.makedirs(self.env["HOME"])

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is not None:
            with contextlib.suppress(Exception):
                print(self.logs(), file=sys.stderr)
        for process in reversed(self.processes):
            process.kill()
        if not os.environ.get("WESTLIGHT_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def logs(self, last=1500):
        return "".join("--- %s\n%s\n" % (process.name, process.log()[-last:]) for process in self.processes)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def run(self, *argv, code=0, env=None):
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env or self.env,
                              timeout=PATIENCE_S, check=False)
        if code is not None:
            check(done.returncode == code, "%s -> %s: %s%s" % (" ".join(argv), done.returncode, done.stdout, done.stderr))
        return done

    def new_key(self, key, secret=None):
        return self.run(CLIENT, "key", "new", "--key", key, *(["--secret", secret] if secret else [])).stdout.strip()

    def allow(self, role, public, name, studio=None):
        self.run(BROKER, "allow", "--state", self.state, "--role", role, "--name", name,
                 *(["--studio", studio] if studio else []), "--", public)

    def start(self, name, argv, env=None):
        process = Process(name, argv, self.path(name + ".log"), env or self.env)
        self.processes.append(process)
        return process

    def start_broker(self, *options):
        check(self.launch_broker(*options), lambda: "the broker ended: " + self.broker.log())
        return self

    def launch_broker(self, *options, program=BROKER, environment=None):
        """The first time on any free port, afterwards on the same. False where it ends before it is ready."""
        ready = write(self.path("ready"), "")
        self.broker = self.start("broker", [program, "run", "--state", self.state, "--ready-file", ready,
                                            "--control", self.control or "tcp://127.0.0.1:*",
                                            "--bulk", self.bulk or "tcp://127.0.0.1:*", *options],
                                 dict(self.env, **(environment or {})))
        line = until(lambda: (not self.broker.alive() and "dead") or (read(ready, b"").endswith(b"\n") and read(ready).decode()),
                     "the broker is ready")
        if line == "dead":
            return False
        words = dict(word.split("=", 1) for word in line.split()[1:])
        self.control, self.bulk, self.server_key = words["control"], words["bulk"], words["key"]
        return True

    def person(self, name, studio="acme", role="studio", known=True):
        person = Person(self, name)
        if known:
            self.allow(role, person.public, name, studio)
        return person.configure()

    def worker(self, name, *options, control=None, bulk=None, path=None, environment=None,
               program=WORKER):
        """Starts a worker, the first time with a new key; the same name again is the same worker."""
        key = self.path(name + ".key")
        if not os.path.exists(key):
            self.allow("worker", self.new_key(key), name)
        argv = [program, "--broker", control or self.control, "--bulk", bulk or self.bulk, "--server-key", self.server_key,
                "--key", key, "--state", self.path(name), "--name", name, *options]
        return self.start(name, argv, dict(self.env, **(environment or {}), **({"PATH": path} if path is not None else {})))

    def rows(self, query, *values):
        """Asks the store's database, as an operator with sqlite3 could."""
        database = sqlite3.connect("file:%s/state.db?mode=ro" % self.state, uri=True, timeout=10)
        try:
            return database.execute(query, values).fetchall()
        finally:
            database.close()

    def results(self, job):
        """{(step, task): how many current results}, at the newest floor that has one."""
        rows = self.rows("SELECT step, task, count(*) FROM attempts WHERE class = 0 AND job = ? GROUP BY step, task, floor",
                         bytes.fromhex(job))
        return {(step, task): n for step, task, n in rows}

    def attempts(self, job):
        return self.rows("SELECT step, task, floor, epoch, attempt, class FROM attempts WHERE job = ? ORDER BY sequence",
                         bytes.fromhex(job))


SCENARIOS = []


def scenario(function):
    """A fact, in the order of the file; its name states it."""
    SCENARIOS.append(function)
    return function


def main():
    wanted, failed = sys.argv[1:], 0
    for function in SCENARIOS:
        if function.__module__ != "__main__" or (wanted and function.__name__ not in wanted):
            continue
        began = time.monotonic()
        try:
            function()
            word = "ok"
        except Exception:  # whatever it is, the other scenarios still run
            traceback.print_exc()
            failed, word = failed + 1, "FAILED"
        print("%-6s %6.1f s  %s" % (word, time.monotonic() - began, function.__name__.replace("_", " ")), flush=True)
    sys.exit(1 if failed else 0)
