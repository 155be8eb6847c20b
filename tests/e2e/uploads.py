"""An upload that is cut short: who sees it, who ends it, and how it goes on."""
import hashlib
import os
import re
import signal

from farm import Farm, check, equal, main, read, scenario, tree, until, write
from home import Wire
from kills import shot_farm

MB = 1_000_000


class Upload:
    """A scene of `size` random bytes, submitted by ann over a link that stands still after half of it, or is
    slow. A frame says which bytes its worker had."""

    def __init__(self, farm, size=20 * MB, pace=None, options=()):
        self.farm, self.pace = farm, pace
        self.ann, self.shot = shot_farm(farm, options=options)
        self.bob = farm.person("bob")  # of the same studio
        self.eve = farm.person("eve", studio="other")
        self.data = os.urandom(size)
        write(farm.path("shot", "input"), self.data)
        self.argv = ("submit", "shot", "--preset", "command", "-f", "1-2", "-o", "out", "--name", "crater", "-p",
                     'run=sha256sum < input > "$OUT/f.$FRAME"')
        self.start(None if pace else size // 2)

    def start(self, bytes_up):
        self.bulk = Wire(self.farm.bulk, bytes_up, self.pace)
        self.ann.configure(bulk=self.bulk.endpoint)
        self.popen = self.ann.start(*self.argv, cwd=self.farm.folder)
        self.id = re.fullmatch("job ([0-9a-f]{32})\n", self.popen.stdout.readline()).group(1)

    def row(self, person=None):
        found = [row for row in (person or self.bob).ask("jobs", "--json", code=0).json if row["id"] == self.id]
        return found[0] if found else None

    def wait_percent(self, least, most=99, phase="uploading"):
        def reached():
            row = self.row()
            return row and row["phase"] == phase and least <= row["upload"]["percent"] <= most and row
        return until(reached, lambda: "%s, %d to %d %%: %s" % (phase, least, most, self.row()))

    def kill(self):
        os.kill(self.popen.pid, signal.SIGKILL)
        self.popen.communicate()

    def home(self, data):
        self.ann.ask("fetch", self.id, "--follow", code=0)
        digest = hashlib.sha256(data).hexdigest().encode() + b"  -\n"
        equal(tree(self.farm.path("out")), {"f.1": digest, "f.2": digest}, "frames home")

    def resume(self, *words, code=0):
        elsewhere = self.farm.path("elsewhere")
        os.makedirs(elsewhere, exist_ok=True)
        return self.ann.ask("submit", "--resume", *words, code=code, cwd=elsewhere)


@scenario
def an_upload_is_seen_by_its_studio_and_goes_on_under_its_id_after_a_kill():
    with Farm() as farm:
        upload = Upload(farm, 100 * MB)
        row = upload.wait_percent(25)
        equal((row["state"], row["person"], row["name"], row["upload"]["file_bytes"], row["finished"]),
              ("uploading", "ann", "crater", 100 * MB, False), "what a colleague sees")
        short = upload.id[:8]
        check(re.search(r"%s +uploading +\d+ %%" % short, upload.bob.ask("jobs", code=0).out), "in the list")
        check(re.search(r"state +uploading: \d+ %, .* of 100 MB in 1 file\n", upload.bob.ask("show", short, code=0).out), "and by its id")
        equal(upload.bob.show(short)["upload"], row["upload"], "as JSON")
        equal((upload.eve.ask("jobs", "--json", code=0).json, upload.eve.ask("show", upload.id, code=2).err),
              ([], upload.eve.ask("show", "0" * 32, code=2).err.replace("0" * 32, upload.id)), "what another studio sees")
        check("still being uploaded" in upload.bob.ask("fetch", short, code=1).err, "a job it is not yet")
        check("another process is sending it" in upload.resume(short, code=2).err, "it is being sent")

        farm.broker.kill()
        farm.start_broker()
        upload.wait_percent(25)  # said again
        upload.kill()
        row = upload.wait_percent(25, phase="stopped")
        check("upload stopped at %d %%: westlight submit --resume %s continues it" % (row["upload"]["percent"], short)
              in upload.bob.ask("jobs", code=0).out, "what to do, in the list")
        check("--resume " + short in upload.bob.ask("show", short, code=0).out, "and by its id")

        upload.bulk.open()
        answer = upload.resume()
        equal(answer.id, upload.id, "the id")
        sent = float(re.search(r"100 MB, of which ([\d.]+) MB were sent", answer.out).group(1)) * MB
        check(sent <= 100 * MB * (100.5 - row["upload"]["percent"]) / 100 + MB, "sends what is missing:", row, answer)
        check(sent > 100 * MB / 4, "the vault had not all:", answer)
        upload.home(upload.data)
        check("no upload was cut short" in upload.resume(code=2).err and os.listdir(upload.ann.home + "/.state/westlight/uploads") == [],
              "nothing is left to resume")


@scenario
def an_upload_that_a_colleague_cancels_stops_and_is_not_resumed():
    with Farm() as farm:
        upload = Upload(farm, 60 * MB)  # more than the kernel holds for those that are killed
        upload.wait_percent(25)
        check("its upload is cancelled" in upload.bob.ask("cancel", upload.id[:8], code=0).out, "it says so")
        answer = upload.ann.finish(upload.popen, upload.argv)
        check(answer.code == 4 and "it was cancelled by bob" in answer.err, answer)
        equal((upload.row(), upload.bob.ask("show", upload.id).code), (None, 2), "it is listed no more")
        check("no such upload" in upload.resume(upload.id, code=2).err, "nothing to resume")

        upload.start(2 * MB)  # another, of the same scene
        upload.wait_percent(25)
        upload.kill()
        upload.bob.ask("cancel", upload.id, code=0)
        upload.bulk.open()
        check("it was cancelled by bob" in upload.resume(code=4).err, "nor does one go on that was dead meanwhile")
        check("no upload was cut short" in upload.resume(code=2).err, "nothing to resume")

        upload.start(2 * MB)  # and one that only its own machine still knows of
        upload.wait_percent(25)
        upload.kill()
        farm.broker.kill()
        farm.start_broker()
        equal(upload.row(), None, "the broker forgot it")
        check("was begun here: it is given up" in upload.ann.ask("cancel", upload.id[:6], code=0).err, "it says so")
        check("no upload was cut short" in upload.resume(code=2).err, "nothing to resume")
        equal(farm.rows("SELECT count(*) FROM jobs")[0][0], 0, "jobs")


@scenario
def ctrl_c_says_how_to_go_on_and_a_scene_that_changed_is_sent_as_it_is_now():
    with Farm() as farm:
        upload = Upload(farm)
        upload.wait_percent(25)
        os.kill(upload.popen.pid, signal.SIGINT)
        answer = upload.ann.finish(upload.popen, upload.argv)
        percent = re.search(r"upload of crater stopped at (\d+) %: westlight submit --resume (\w+) continues it", answer.err)
        check(answer.code == 4 and percent and percent.group(2) == upload.id[:8], answer)
        upload.wait_percent(25, phase="stopped")  # at once: it said so
        data = upload.data[:-5] + b"later"
        write(farm.path("shot", "input"), data)
        first = upload.id
        upload.start(MB)
        until(upload.row, "another one goes on")
        upload.kill()
        check(all(re.search(" %s .* crater, from " % job[:8], upload.resume(code=2).err) for job in (first, upload.id)), "both are told")
        upload.bulk.open()
        answer = upload.resume(first[:8])
        check(answer.id == first and "have changed since the upload of crater began" in answer.err, answer)
        answer = upload.resume("last")
        check(answer.id == upload.id and ", of which 0 B were sent" in answer.out and "changed" not in answer.err, answer)
        upload.home(data)


def blocks(farm):
    return sum(len(names) for _, _, names in os.walk(os.path.join(farm.state, "vault")))


@scenario
def an_upload_that_lasts_longer_than_the_grace_keeps_what_was_sent():
    with Farm() as farm:
        upload = Upload(farm, 45 * MB, pace=5 * MB, options=("--grace", "3s"))  # a batch alone lasts longer
        answer = upload.ann.finish(upload.popen, upload.argv)
        check(answer.code == 0 and answer.seconds > 7, answer)
        check(upload.bulk.taken < 48 * MB, "sent once:", upload.bulk.taken)
        upload.home(upload.data)


@scenario
def an_upload_that_stood_still_for_longer_than_the_grace_sends_what_is_gone_again():
    with Farm() as farm:
        upload = Upload(farm, 140 * MB, options=("--grace", "2s"))  # twice the half of it is more than a pass is for
        until(lambda: upload.bulk.taken > 70 * MB and blocks(farm) > 10, "half of it is there")
        until(lambda: blocks(farm) == 0, lambda: "all of it is swept: %d\n%s" % (blocks(farm), farm.logs()))
        upload.bulk.open()
        answer = upload.ann.finish(upload.popen, upload.argv)
        equal(answer.code, 0, answer)
        check(upload.bulk.taken > 205 * MB, "more than a pass is for was sent:", upload.bulk.taken)
        upload.home(upload.data)


@scenario
def an_upload_of_render_that_was_accepted_unheard_brings_its_frames_home():
    with Farm() as farm:
        control = Wire(farm.start_broker().control)
        ann = farm.person("ann").configure(control=control.endpoint)
        farm.worker("box1", "--no-probe", "--slots", "2", "--cores", "2")
        write(farm.path("shot", "input"), "x" * 1000)
        bulk = Wire(farm.bulk)
        ann.configure(control=control.endpoint, bulk=bulk.endpoint)
        bulk.up.clear()
        argv = ("render", "shot", "--preset", "command", "-f", "1-2", "-o", "out", "-p", 'run=cp input "$OUT/f.$FRAME"')
        popen = ann.start(*argv, cwd=farm.folder)
        until(lambda: bulk.taken, "the client would send its blocks")
        control.down.clear()
        bulk.up.set()
        until(lambda: farm.rows("SELECT count(*) FROM jobs")[0][0], "the broker has accepted the job")
        os.kill(popen.pid, signal.SIGKILL)
        popen.communicate()
        ann.configure()
        os.rename(farm.path("shot"), farm.path("moved"))  # it is not needed any more
        answer = ann.ask("submit", "--resume", code=0)
        check("accepted before" in answer.out and "2 of 2 tasks home" in answer.out, answer)
        equal(len(tree(farm.path("out"))), 2, "frames home")
        equal(farm.rows("SELECT count(*) FROM jobs")[0][0], 1, "jobs")


if __name__ == "__main__":
    main()
