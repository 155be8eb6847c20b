"""A farm from nothing by tokens: one string and one command make a worker or a person of it, however often anybody dies
meanwhile. Where the machine permits, each party has a network of its own."""
import base64
import hashlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time

from farm import BROKER, CLIENT, WORKER, Failed, Farm, Process, check, equal, main, read, scenario, tree, until, write

CRASHING = {program: program + "-crashing" for program in (BROKER, WORKER, CLIENT)}


class Host:
    """A machine of its own: a network namespace joined to the broker's by a bridge; or this one, where none can be made."""

    made = 0

    def __init__(self, farm, number):
        self.farm, self.address, self.name = farm, "127.0.0.1", None
        if farm.bridge:
            self.name, self.address = "wlj%d-%d" % (os.getpid(), number), "10.77.0.%d" % (number + 1)
            link = "wlj%dv%d" % (os.getpid() % 10000, number)
            for words in (["netns", "add", self.name], ["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", self.name],
                          ["link", "set", link, "master", farm.bridge, "up"], ["-n", self.name, "addr", "add", self.address + "/24", "dev", "eth0"],
                          ["-n", self.name, "link", "set", "eth0", "up"], ["-n", self.name, "link", "set", "lo", "up"]):
                subprocess.run(["ip", *words], check=True, capture_output=True)

    def argv(self, *words):
        return (["ip", "netns", "exec", self.name] if self.name else []) + [str(word) for word in words]

    def close(self):
        if self.name:
            subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)


class Town(Farm):
    """A farm whose parties live on hosts of their own."""

    def __init__(self, hosts=0):
        super().__init__()
        self.bridge, self.hosts, self.enrol = None, [], None
        if hosts and os.geteuid() == 0 and shutil.which("ip"):
            name = "wljb%d" % (os.getpid() % 100000)
            done = subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=False, capture_output=True)
            if done.returncode == 0:
                subprocess.run(["ip", "link", "set", name, "up"], check=True)
                self.bridge = name
        if hosts and not self.bridge:
            print("no network namespaces here: all on one host", flush=True)
        try:
            for number in range(hosts):
                self.hosts.append(Host(self, number))
        except subprocess.CalledProcessError as error:
            self.leave()
            raise Failed("a network namespace: %s" % error.stderr)

    def leave(self):
        for host in self.hosts:
            host.close()
        if self.bridge:
            subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)

    def __exit__(self, *what):
        super().__exit__(*what)
        self.leave()

    def open(self, program=BROKER, environment=None, host=None):
        """The first time on any free ports, afterwards on the same; it may be one that dies at once."""
        ready = write(self.path("ready"), "")
        any_port = "tcp://%s:*" % (host.address if host else "127.0.0.1")
        argv = [program, "run", "--state", self.state, "--ready-file", ready, "--control", self.control or any_port,
                "--bulk", self.bulk or any_port, "--enrol", self.enrol or any_port]
        self.broker = self.start("broker", host.argv(*argv) if host else argv, dict(self.env, **(environment or {})))
        until(lambda: read(ready, b"").endswith(b"\n") or not self.broker.alive(), "the broker is ready")
        check(self.broker.alive(), self.broker.log)
        words = dict(word.split("=", 1) for word in read(ready).decode().split()[1:])
        self.control, self.bulk, self.server_key, self.enrol = words["control"], words["bulk"], words["key"], words["enrol"]
        return self

    def token(self, *options):
        return self.run(BROKER, "token", "create", "--state", self.state, *options).stdout.strip()

    def keys(self, state=None):
        """{fingerprint: (role, state)} as the operator sees them."""
        found = re.findall(r"^([0-9a-f]{4}(?:-[0-9a-f]{4}){4}) +(\w+) .* (active|pending) +\S+$",
                           self.run(BROKER, "keys", "--state", self.state).stdout, re.M)
        return {mark: role for mark, role, is_now in found if state in (None, is_now)}

    def join_worker(self, name, token, code=0, program=WORKER, environment=None):
        done = self.run(program, "join", token, "--state", self.path(name), "--name", name, code=None,
                        env=dict(self.env, **(environment or {})))
        check(code is None or done.returncode == code, "join -> %d: %s%s" % (done.returncode, done.stdout, done.stderr))
        return done

    def home(self, name):
        folder = self.path("homes", name)
        os.makedirs(folder, exist_ok=True)
        return dict(self.env, HOME=folder, USER=name)

    def join_person(self, name, token, *options, code=0, program=CLIENT, environment=None):
        done = self.run(program, "join", token, *options, code=None, env=dict(self.home(name), **(environment or {})))
        check(code is None or done.returncode == code, "join -> %d: %s%s" % (done.returncode, done.stdout, done.stderr))
        return done


@scenario
def from_nothing_two_tokens_make_a_farm_that_renders():
    with Town(3) as farm:
        here, box, desk = farm.hosts
        print("each on a network of its own" if farm.bridge else "loopback", flush=True)
        farm.open(host=here)

        def typed(host, *words, env=None):
            shown = " ".join(os.path.basename(str(word)) if str(word).startswith("/") and os.access(word, os.X_OK) and not
                             os.path.isdir(word) else str(word) for word in words)
            done = subprocess.run(host.argv(*words), env=env or farm.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=120, check=False)
            print("$ %s\n%s%s" % (shown.replace(farm.folder, ""), done.stdout, done.stderr), flush=True)
            equal(done.returncode, 0, shown)
            return done.stdout

        token = typed(here, BROKER, "token", "create", "--state", farm.state, "--role", "worker", "--pool", "night").strip()
        typed(box, WORKER, "join", token, "--state", farm.path("box"))
        farm.processes.append(Process("worker", box.argv(WORKER, "--state", farm.path("box"), "--no-probe"), farm.path("worker.log"), farm.env))
        token = typed(here, BROKER, "token", "create", "--state", farm.state, "--role", "studio", "--studio", "Aurora").strip()
        ada = farm.home("ada")
        typed(desk, CLIENT, "join", token, "--name", "Ada", env=ada)
        write(farm.path("shot", "input"), "x")
        typed(desk, CLIENT, "render", farm.path("shot"), "--preset", "command", "-f", "1-3", "--pool", "night", "-o", farm.path("out"),
              "-p", 'run=echo "$FRAME" > "$OUT/f.$FRAME"', env=ada)
        equal(tree(farm.path("out")), {"f.%d" % n: b"%d\n" % n for n in (1, 2, 3)}, "frames")
        equal(farm.rows("SELECT name FROM studios"), [("Aurora",)], "studios")
        equal(os.stat(farm.path("box", "key")).st_mode & 0o777, 0o600, "mode of its key")


@scenario
def an_operators_pool_is_not_taken_back_by_the_token():
    with Town() as farm:
        farm.open()
        farm.join_worker("box", farm.token("--role", "worker", "--pool", "night"))
        boss = farm.home("boss")
        farm.join_person("boss", farm.token("--role", "operator"))

        def pool():
            rows = farm.run(CLIENT, "workers", "--json", env=boss).stdout
            return re.findall(r'"pool": *"(\w*)"', rows)

        box = farm.start("box", [WORKER, "--state", farm.path("box"), "--no-probe"])
        until(lambda: pool() == ["night"], pool)
        farm.run(CLIENT, "workers", "pool", "box", "day", env=boss)
        equal(pool(), ["day"], "its pool")
        box.stop()
        farm.broker.kill()
        farm.open()
        box = farm.start("box", [WORKER, "--state", farm.path("box"), "--no-probe"])
        until(lambda: "info joined" in box.log(), "the worker is back")
        equal(pool(), ["day"], "its pool, after both were away")


@scenario
def of_a_thousand_at_once_one_gets_in_by_a_token_for_one():
    with Town() as farm:
        farm.open()
        token = farm.token("--role", "worker")
        began, n = time.monotonic(), int(os.environ.get("WESTLIGHT_JOINERS", "1000"))
        all_of_them = [subprocess.Popen([WORKER, "join", token, "--state", farm.path("w%d" % i), "--name", "w%d" % i], env=farm.env,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for i in range(n)]
        codes = [one.wait(max(1, began + 240 - time.monotonic())) for one in all_of_them]
        print("%d redemptions in %.1f s" % (n, time.monotonic() - began), flush=True)
        equal((codes.count(0), codes.count(1)), (1, n - 1), "joined, refused")
        equal(farm.rows("SELECT count(*) FROM keys"), [(1,)], "keys")
        check(farm.broker.alive(), "the broker lives")


@scenario
def every_no_is_the_same_answer_and_takes_as_long():
    with Town() as farm:
        farm.open()
        ended, revoked, used = farm.token("--role", "worker", "--ttl", "1s"), farm.token("--role", "worker"), farm.token("--role", "worker")
        farm.run(BROKER, "token", "revoke", revoked, "--state", farm.state)
        farm.join_worker("first", used)
        unknown = farm.token("--role", "worker")
        forget(farm, unknown)
        time.sleep(1.1)
        said, took = set(), []
        for number, token in enumerate((ended, revoked, used, unknown) * 3):
            began = time.monotonic()
            done = farm.join_worker("late%d" % number, token, code=1)
            took.append(time.monotonic() - began)
            said.add(done.stdout + done.stderr)
        equal(len(said), 1, "answers: %s" % said)
        check(min(took) > 0.2, "each is at least 200 ms late:", took)
        print("refused after %.0f to %.0f ms" % (1000 * min(took), 1000 * max(took)), flush=True)
        equal(set(farm.keys().values()), {"worker"}, "keys")
        equal(len(farm.keys()), 1, "keys")


def forget(farm, token):
    """As if it had never been made."""
    form = base64.urlsafe_b64decode(token[4:] + "=" * (-len(token[4:]) % 4))
    database = sqlite3.connect(farm.state + "/state.db", timeout=10)
    with database:
        equal(database.execute("DELETE FROM tokens WHERE digest = ?", (hashlib.sha256(form[64:96]).digest(),)).rowcount, 1, "tokens forgotten")
    database.close()


@scenario
def who_must_be_approved_of_waits_through_everybodys_death():
    with Town() as farm:
        farm.open()
        token, ada = farm.token("--role", "studio", "--studio", "Aurora", "--approve"), farm.home("ada")
        argv = [CLIENT, "join", token, "--name", "Ada"]
        waits = farm.start("ada", argv, ada)
        until(lambda: "keys approve" in waits.log(), waits.log)
        mark = re.search(r"keys approve (\S+)", waits.log()).group(1)
        equal(farm.keys(), {mark: "studio"}, "who waits, by the same fingerprint")
        equal(farm.rows("SELECT count(*) FROM keys"), [(0,)], "keys that are let in")
        waits.kill()
        farm.broker.kill()
        farm.open()
        waits = farm.start("ada", argv, ada)
        until(lambda: "keys approve %s" % mark in waits.log(), waits.log)
        farm.broker.kill()
        farm.open()
        farm.run(BROKER, "keys", "approve", mark, "--state", farm.state)
        equal(waits.popen.wait(60), 0, "it has joined")
        farm.run(CLIENT, "jobs", env=ada)
        farm.run(BROKER, "keys", "revoke", mark, "--state", farm.state)
        time.sleep(1)
        farm.run(CLIENT, "jobs", env=ada, code=3)
        farm.join_person("ada", token, code=3)


@scenario
def a_second_farm_leaves_the_first_as_it_was():
    with Town() as one, Town() as other:
        one.open()
        other.open()
        ada = one.home("ada")
        one.join_person("ada", one.token("--role", "studio", "--studio", "Aurora"), "--farm", "west")
        refused = one.join_person("ada", other.token("--role", "studio", "--studio", "Aurora"), "--farm", "west", code=2)
        check("another farm west" in refused.stderr, refused.stderr)
        one.join_person("ada", other.token("--role", "operator"), "--farm", "east")
        for words in (["jobs"], ["jobs", "--farm", "west"], ["workers", "--farm", "east"]):
            one.run(CLIENT, *words, env=ada)
        one.join_person("ada", one.token("--role", "worker"), "--farm", "north", code=None)
        refused = one.run(WORKER, "join", other.token("--role", "worker"), "--state", one.path("box"), "--name", "box")
        refused = one.join_worker("box", one.token("--role", "worker"), code=2)
        check("another farm" in refused.stderr, refused.stderr)


@scenario
def a_slip_in_a_token_or_a_place_is_named():
    with Town() as farm:
        farm.open()
        token = farm.token("--role", "worker")
        for words, wanted in (([token[:-1]], "that is no token"), (["wl1:"], "that is no token"), (["*", token], "farm's name or address")):
            done = farm.run(WORKER, "join", *words, "--state", farm.path("box"), code=2)
            check(wanted in done.stderr, wanted, "is not in", done.stderr)
        farm.join_worker("box", token)


def points(program):
    listed = subprocess.run([CRASHING[program]], env=dict(os.environ, WESTLIGHT_CRASH="list"), capture_output=True, text=True,
                            check=True).stdout.split()
    return sorted(point for point in set(listed) if point.startswith(("enrol.", "join.")))


@scenario
def killed_between_any_two_steps_one_gets_in_and_can_finish():
    if not os.path.exists(CRASHING[BROKER]):
        print("no programs with points of crash here", flush=True)
        return
    with Town() as farm:
        farm.open()
        n = 0
        for program in (BROKER, WORKER, CLIENT):
            for point in points(program):
                n += 1
                name, died = "n%d" % n, {"WESTLIGHT_CRASH": point + ":1"}
                person = program == CLIENT
                join = farm.join_person if person else farm.join_worker
                token = farm.token(*(["--role", "studio", "--studio", "S%d" % n] if person else ["--role", "worker"]))
                if program == BROKER:
                    farm.broker.kill()
                    farm.open(CRASHING[BROKER], died)
                    armed = farm.broker
                    argv = [WORKER, "join", token, "--state", farm.path(name), "--name", name]
                    waits = farm.start(name, argv)
                    until(lambda: not armed.alive(), lambda: "the broker dies at %s: %s" % (point, waits.log()))
                    equal(armed.popen.returncode, -signal.SIGKILL, point)
                    farm.open()
                    equal(waits.popen.wait(60), 0, "%s: its newcomer has joined: %s" % (point, waits.log()))
                else:
                    equal(join(name, token, code=None, program=CRASHING[program], environment=died).returncode, -signal.SIGKILL, point)
                    join(name, token)
                join(name, token)
                farm.join_worker(name + "x", token, code=1) if not person else farm.join_person(name + "x", token, code=3)
                equal(len(farm.keys()), n, "keys, after " + point)
                if person:
                    farm.run(CLIENT, "jobs", env=farm.home(name))
        check(n >= 10, n, "points")
        print("%d points" % n, flush=True)


if __name__ == "__main__":
    main()
