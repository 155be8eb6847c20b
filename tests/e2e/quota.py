"""What a studio may fill of the vault: who is refused what at its quota, and who is not."""
import os
import re

from farm import BROKER, Farm, check, equal, main, scenario, tree, until, write

MB = 1_000_000


def quota(farm, studio, size):
    farm.run(BROKER, "studio", "--state", farm.state, studio, "--quota", size)


def listed(farm):
    """{studio: (gigabytes used, quota)}"""
    rows = farm.run(BROKER, "studio", "--state", farm.state).stdout.splitlines()[1:]
    return {row.split()[0]: (float(row.split()[3]), " ".join(row.split()[5:])) for row in rows}


def project(farm, name, size):
    write(farm.path(name, "textures", "wood.png"), os.urandom(size))
    return ("submit", farm.path(name), "--preset", "command", "-f", "1", "-o", farm.path(name + "-out"), "-p",
            'run=wc -c < textures/wood.png > "$OUT/f.1"')


@scenario
def a_studio_at_its_quota_submits_nothing_new_and_goes_on_when_it_has_more():
    with Farm() as farm:
        farm.start_broker("--grace", "2s")
        ann, eve = farm.person("ann"), farm.person("eve", studio="other")
        equal(listed(farm), {"acme": (0.0, "none"), "other": (0.0, "none")}, "the studios")
        first = ann.ask(*project(farm, "first", 2 * MB), code=0).id
        quota(farm, "acme", "5M")
        refused = ann.ask(*project(farm, "second", 5 * MB), code=3)
        check(re.search(r"job second \([0-9a-f]{8}\): sending .*/second/textures/wood\.png: .*the studio's quota is used up: "
                        r"[\d.]+ MB of 5\.2 MB: .*westlight-broker studio --quota SIZE", refused.err), refused)
        check(0.002 < listed(farm)["acme"][0] < 0.0053 and listed(farm)["acme"][1] == "0.005 GB", "the list:", listed(farm))
        eve.ask(*project(farm, "third", 6 * MB), code=0)

        farm.broker.kill()  # it counts what is there when it starts; what no job refers to is swept meanwhile
        farm.start_broker("--grace", "2s")
        until(lambda: listed(farm)["acme"][0] < 0.0021, lambda: "what was sent in vain is swept: %s" % listed(farm))
        refused = ann.ask("submit", "--resume", code=3)
        check("the studio's quota is used up" in refused.err, refused)
        small = project(farm, "small", 2 * MB)
        until(lambda: ann.ask(*small).code == 0, "there is room again for what is small enough")
        quota(farm, "acme", "20M")
        ann.ask("submit", "--resume", re.search(r"job second \((\w+)\)", refused.err).group(1), code=0)
        quota(farm, "acme", "1M")
        refused = ann.ask("resubmit", first, code=3)
        check("the submission: the studio's quota is used up: " in refused.err, refused)
        quota(farm, "acme", "none")
        again = ann.ask("resubmit", first, code=0).id
        farm.worker("box1", "--no-probe")
        ann.ask("fetch", again, "--follow", "-o", farm.path("home"), code=0)
        equal(tree(farm.path("home")), {"f.1": b"2000000\n"}, "the frame")
        said = farm.run(BROKER, "studio", "--state", farm.state, "nobody", "--quota", "1G", code=1).stderr
        check("studio nobody: no key of it was ever allowed" in said, said)


@scenario
def results_go_a_quarter_past_the_quota_then_their_job_pauses_and_nobody_else_is_disturbed():
    with Farm() as farm:
        farm.start_broker()
        ann, eve, ops = farm.person("ann"), farm.person("eve", studio="other"), farm.person("ops", studio=None, role="operator")
        for name in ("box1", "box2", "box3", "box4"):
            farm.worker(name, "--no-probe", "--slots", "1", "--cores", "1")
        write(farm.path("shot", "input"), "x")
        quota(farm, "acme", "4M")
        run = 'run=head -c 500000 /dev/urandom > "$OUT/f.$FRAME"'
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-40", "-o", farm.path("out"), "-p", run)
        until(lambda: ann.show(job)["phase"] == "paused", lambda: "it pauses: %s\n%s" % (ann.ask("show", job), farm.logs()))
        shown = ann.ask("show", job, code=0).out
        check("the studio's quota is used up" in shown, shown)
        check(0.0042 < listed(farm)["acme"][0] < 0.0053, "more than the quota, and no more than a quarter:", listed(farm))
        other = eve.submit(farm.path("shot"), "--preset", "command", "-f", "1-12", "-o", farm.path("out"), "-p", run)
        eve.ask("fetch", other, "--follow", "-o", farm.path("eve"), code=0)
        equal(len(tree(farm.path("eve"))), 12, "the other studio's frames")
        equal([row["name"] for row in ops.ask("workers", "--json", code=0).json if row["set_aside"]], [], "workers that are set aside")

        done = ann.counts(job)["done"]
        ann.ask("fetch", job, "-o", farm.path("home"))
        equal(len(tree(farm.path("home"))), done, "what was done comes home")
        quota(farm, "acme", "40M")
        ann.ask("retry", job, code=0)
        ann.ask("resume", job)
        ann.ask("fetch", job, "--follow", "-o", farm.path("home"), code=0)
        equal(len(tree(farm.path("home"))), 40, "and with more room the rest")


if __name__ == "__main__":
    main()
