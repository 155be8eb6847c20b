"""What `meson install` puts on a machine: programs that are hardened, units that are, and a farm that runs under their
filter of system calls. systemd itself is not started: its own judgement of the units is asked for."""
import os
import re
import shutil
import stat
import subprocess
import sys

from farm import BROKER, WORKER, Farm, check, equal, main, scenario, write

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.dirname(os.path.dirname(os.path.abspath(BROKER)))
UNITS = {"broker": 20, "worker": 40}  # the most exposure, in tenths, that systemd-analyze may see


def installed(farm):
    root = farm.path("root")
    farm.run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", root)
    return root


def found(root, name):
    places = [os.path.join(folder, name) for folder, _, names in os.walk(root) if name in names]
    equal(len(places), 1, "places of " + name)
    return places[0]


@scenario
def each_program_comes_with_its_manual_its_unit_and_its_user():
    with Farm() as farm:
        root = installed(farm)
        for name in ("westlight", "westlight-broker", "westlight-worker"):
            check(os.access(found(root, name), os.X_OK), name, "runs")
        for name in ("westlight.1", "westlight-broker.8", "westlight-worker.8"):
            found(root, name)
        for part in UNITS:
            unit = open(found(root, "westlight-%s.service" % part), encoding="utf-8").read()
            program = re.search(r"^ExecStart=(\S+)", unit, re.M).group(1)
            check(os.access(root + program, os.X_OK), "its program is there:", program)
            user = re.search(r"^User=(\S+)", unit, re.M).group(1)
            users = open(found(root, "westlight-%s.conf" % part), encoding="utf-8").read()
            check(re.search(r"^u %s " % user, users, re.M), "its user is made:", user)
            state = re.search(r"^StateDirectory=(\S+)", unit, re.M).group(1)
            check("/var/lib/" + state in users, "and lives in its state:", users)


@scenario
def the_programs_are_hardened():
    with Farm() as farm:
        root = installed(farm)
        for name in ("westlight", "westlight-broker", "westlight-worker"):
            program = found(root, name)
            header = farm.run("readelf", "-hlWd", program).stdout
            symbols = farm.run("readelf", "-W", "--dyn-syms", program).stdout
            check(re.search(r"Type:\s+DYN", header), name, "is at a random address")
            check("GNU_RELRO" in header and re.search(r"FLAGS_1.*NOW", header), name, "has fixed tables of addresses")
            check(re.search(r"GNU_STACK.* RW +0x", header), name, "has no code on its stack:", header)
            check("__stack_chk_fail" in symbols, name, "guards its stack")
            check(re.search(r"__\w+_chk@", symbols), name, "checks its copies")
            mode = stat.S_IMODE(os.stat(program).st_mode)
            equal(mode & 0o6022, 0, name + " is nobody's to write, and takes nobody's rights")


def analyze_is_there():
    return shutil.which("systemd-analyze") is not None


@scenario
def systemd_finds_the_units_little_exposed():
    with Farm() as farm:
        root = installed(farm)
        for part, most in UNITS.items():
            unit = found(root, "westlight-%s.service" % part)
            judged = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=%d" % most, unit],
                                    capture_output=True, text=True, check=False)
            last = judged.stdout.strip().split("\n")[-1]
            print("       ", last.lstrip("→ "))
            equal(judged.returncode, 0, "%s: %s%s" % (part, last, judged.stderr))


def filtered(farm, root, part, program):
    unit = found(root, "westlight-%s.service" % part)
    path = write(farm.path("filtered-" + part),
                 "#!/bin/sh\nexec %s %s/unit_filter.py %s %s \"$@\"\n" % (sys.executable, HERE, unit, program), 0o755)
    return path


@scenario
def a_farm_runs_under_the_units_filters_of_system_calls():
    with Farm() as farm:
        root = installed(farm)
        refused = write(farm.path("mounts"), "#!/bin/sh\nmount -t tmpfs none %s\n" % farm.folder, 0o755)
        unit = found(root, "westlight-broker.service")
        done = farm.run(sys.executable, os.path.join(HERE, "unit_filter.py"), unit, refused, code=None)
        check(done.returncode != 0, "the filter holds:", done.stderr)
        check(farm.launch_broker(program=filtered(farm, root, "broker", BROKER)), lambda: farm.broker.log())
        farm.worker("box1", program=filtered(farm, root, "worker", WORKER))
        ann = farm.person("ann")
        write(farm.path("shot", "input"), "x" * 3000000)
        ann.ask("render", farm.path("shot"), "--preset", "command", "-f", "1-6", "-o", farm.path("out"),
                "-p", 'run=cat input | head -c $((FRAME * 400000)) > "$OUT/f.$FRAME"', code=0)
        for frame in range(1, 7):
            equal(os.path.getsize(farm.path("out", "f.%d" % frame)), frame * 400000, "frame %d" % frame)
        farm.broker.kill()
        check(farm.launch_broker(program=filtered(farm, root, "broker", BROKER)), lambda: farm.broker.log())
        ann.ask("render", farm.path("shot"), "--preset", "command", "-f", "1-2", "-o", farm.path("again"),
                "-p", 'run=cp input "$OUT/f.$FRAME"', code=0)
        farm.broker.stop()


if __name__ == "__main__":
    if not analyze_is_there() or os.uname().machine != "x86_64":
        print("skipped: it takes systemd-analyze, and numbers of system calls as x86-64 has them")
        sys.exit(77)
    main()
