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
    write(farm.path(name, "textures", "wood2.png"), os.urandom(size))
    return ("submit", farm.path(name), "--preset", "command", "-f", "1", "-o", farm.path(name + "-out"), "-p",
            'run=wc -c < textures/wood2.png > "$OUT/f.1"')


@scenario
def a_studio_at_its_quota_submits_nothing_new_and_goes_on_when_it_has_more():
    with Farm() as farm:
        farm.start_broker("--grace", "2s")
        ann, eve = farm.person("ann"), farm.person("eve", studio="other")
        equal(listed(farm), {"acme": (0.0, "none"), "other": (0.0, "none")}, "the studios")
        first = ann.ask(*project(farm, "first", 2 * MB), code=0).id
        quota(farm, "acme", "5M")
        second = project(farm, "second", 5 * MB)
        write(farm.path("second", "textures", "wood10.png"), os.urandom(4 * MB))  # goes after wood2.png
        refused = ann.ask(*second, code=3)
        check(re.search(r"job second \([0-9a-f]{8}\): sending .*/second/textures/wood2\.png: .*the studio's quota is used up: "
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
def a_farm_without_room_says_for_which_job_and_at_which_file():
    with Farm() as farm:
        farm.start_broker("--reserve", "1000T")
        refused = farm.person("ann").ask(*project(farm, "first", 2 * MB), code=3)
        check(re.search(r"job first \(\w{8}\): sending .*/first/textures/wood2\.png: .*the farm's disk is full: nothing new is "
                        r"taken until the operator frees space", refused.err), refused)


def gated(farm, name, size, frames, brings):
    """A job whose input is as large as `size`, and whose frames of `brings` bytes end when `name` is opened."""
    write(farm.path(name, "input"), os.urandom(size))
    return (farm.path(name), "--preset", "command", "-f", frames, "-o", farm.path(name + "-out"), "-p",
            'run=while [ ! -e %s ]; do sleep 0.05; done; head -c %d /dev/urandom > "$OUT/f.$FRAME"' % (farm.path("open", name), brings))


def why(person, job):
    return person.show(job)["steps"][0]["why"]


def held(person, job):
    """Nothing of it is with a worker, for its quota."""
    counts = person.counts(job)
    return counts if counts["running"] + counts["leased"] == 0 and "the studio's quota is used up" in why(person, job) else None


@scenario
def nothing_of_a_studio_far_past_its_quota_is_leased_what_runs_comes_home_and_it_goes_on_by_itself():
    with Farm() as farm:
        farm.start_broker()
        ann, eve, ops = farm.person("ann"), farm.person("eve", studio="other"), farm.person("ops", studio=None, role="operator")
        for name in ("box1", "box2", "box3", "box4"):
            farm.worker(name, "--no-probe", "--slots", "1", "--cores", "1")
        job = ann.submit(*gated(farm, "shot", 4 * MB, "1-100", 50_000))
        ann.wait_counts(job, running=4, leased=1)
        quota(farm, "acme", "3M")  # what lies there is a quarter more, and less than a half
        until(lambda: ann.counts(job)["leased"] == 0 and "quota" in why(ann, job), lambda: "what waits at workers goes back: %s" % ann.ask("show", job))
        shown = ann.ask("show", job, code=0).out
        check(re.search(r"state +running: its studio's quota is used up\n", shown), shown)
        check(re.search(r"waits +the studio's quota is used up: 4\.\d MB of 3\.1 MB: nothing more is begun .*westlight-broker studio", shown), shown)
        check("its studio's quota is used up: westlight show %.8s" % job in ann.ask("jobs", code=0).out, ann.ask("jobs"))
        equal(ann.counts(job)["running"], 4, "frames that run on")
        write(farm.path("open", "shot"), "")
        before = until(lambda: held(ann, job), lambda: "what ran has come home: %s" % ann.ask("show", job))["done"]
        write(farm.path("open", "eve"), "")
        other = eve.submit(*gated(farm, "eve", MB, "1-12", 100_000))
        eve.ask("fetch", other, "--follow", "-o", farm.path("eves"), code=0)
        equal(len(tree(farm.path("eves"))), 12, "the other studio's frames")

        farm.broker.kill()
        folder = os.path.join(farm.state, "vault", "1", "00")  # of 256: one that cannot be read is not counted
        aside = farm.path("aside")
        os.path.exists(folder) and os.rename(folder, aside)
        write(folder, "")
        farm.start_broker()
        until(lambda: "of its quota is being counted" in why(ann, job), lambda: "it waits to be counted: %s" % ann.ask("show", job))
        until(lambda: len(ops.ask("workers", "--json", code=0).json) == 4, "the workers are back")
        equal(ann.counts(job)["leased"] + ann.counts(job)["running"], 0, "leases of a studio whose blocks are not counted yet")
        os.remove(folder)
        os.path.exists(aside) and os.rename(aside, folder)
        until(lambda: len(ops.ask("workers", "--json", code=0).json) == 4, "the workers are back")
        counts = until(lambda: held(ann, job), lambda: "it waits as before: %s" % ann.ask("show", job))
        equal([counts["done"], counts["ready"]], [before, 100 - before], "done, and the rest of it, which waits")
        ann.ask("fetch", job, "-o", farm.path("home"), code=4)
        equal(len(tree(farm.path("home"))), counts["done"], "what was done comes home")
        quota(farm, "acme", "40M")
        ann.ask("fetch", job, "--follow", "-o", farm.path("home"), code=0)
        equal(len(tree(farm.path("home"))), 100, "with more room it goes on by itself")
        equal({attempt[-1] for attempt in farm.attempts(job)}, {0}, "classes of its attempts: none has failed")


@scenario
def a_result_that_is_half_a_quota_too_much_fails_and_is_rendered_again_when_there_is_room():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        farm.worker("box1", "--no-probe", "--slots", "1", "--cores", "1")
        job = ann.submit(*gated(farm, "shot", MB, "1-3", 500_000))
        ann.wait_counts(job, running=1)
        quota(farm, "acme", "700K")
        until(lambda: "quota" in why(ann, job), lambda: "it begins nothing more: %s" % ann.ask("show", job))
        write(farm.path("open", "shot"), "")
        until(lambda: held(ann, job), lambda: "its frame has failed: %s" % ann.ask("show", job))
        equal([ann.counts(job)["done"], len(farm.attempts(job))], [0, 1], "attempts, none of which is done")
        shown = ann.ask("show", job, code=0).out
        check("transfer failed on box1: its output could not be sent" in shown and re.search(r"quota is used up: 1\.[01] MB of 0\.7 MB", shown), shown)
        quota(farm, "acme", "none")
        ann.ask("fetch", job, "--follow", "-o", farm.path("home"), code=0)
        equal(len(tree(farm.path("home"))), 3, "with more room it goes on by itself")


if __name__ == "__main__":
    main()
