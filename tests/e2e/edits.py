"""What is changed of a job that is there: set, resubmit, archive. Each while the job runs, and across the
broker's death. A frame that runs is not disturbed: it is started once."""
import os
import shutil

from farm import Farm, check, equal, lines, main, read, scenario, tree, until, write
from kills import GATED, Shot
from png import pixels
from verbs import shot_farm


def restart(farm):
    """Until the worker is back: alone, it goes on with what it was given before."""
    farm.broker.kill()
    farm.start_broker()
    until(lambda: 'worker name="box1"' in farm.broker.log(), "the worker is back")


def cancelled(farm):
    """What the worker has stopped."""
    return "".join(line for line in farm.processes[1].log().splitlines() if 'class="cancelled"' in line)


def edited(person, job):
    """What a person sees of what set changes."""
    shown = person.show(job)
    return {name: shown[name] for name in ("name", "note", "tags", "priority", "max_workers", "archived")}


@scenario
def name_note_tags_priority_and_limit_are_changed_by_one_request_and_outlive_the_broker():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-4", "-o", farm.path("out"), "--tag", "first",
                         "--tag", "draft", "--max-workers", "1", "-p", GATED % {"w": shot.witness})
        shot.wait_starts(lambda starts: len(starts) == 1, "one frame runs, on two slots")
        before = edited(ann, job)
        equal((before["tags"], before["max_workers"]), (["first", "draft"], 1), "as submitted")
        shown = ann.ask("show", job, code=0).out
        check("at its limit of 1 worker" in shown and "draft" in shown, "show says so:", shown)
        said = ann.ask("set", job, "--name", "take two", "--note", "for the client", "--tag", "final", "--priority", "7",
                       "--max-workers", "2", code=0).out
        check("changed" in said, said)
        wanted = {"name": "take two", "note": "for the client", "tags": ["final"], "priority": 7, "max_workers": 2, "archived": False}
        equal(edited(ann, job), wanted, "what was set")
        shot.wait_starts(lambda starts: len(starts) == 2, "the second slot is used")
        until(lambda: len(farm.rows("SELECT 1 FROM notes")) == 2, "both running leases are noted")
        restart(farm)
        equal(edited(ann, job), wanted, "after the restart")
        equal(farm.rows("SELECT name, priority FROM jobs"), [("take two", 7)], "the database says the same")
        equal(ann.ask("set", job, "--tag", "", "--json", code=0).json, {"id": job, "did": "set", "tasks": 0}, "what --json says")
        equal(edited(ann, job), dict(wanted, tags=[]), "the rest stays")
        check("does not say what" in ann.ask("set", job, code=2).err, "nothing to set")
        check("--max-workers" in ann.ask("set", job, "--max-workers", "-1", code=2).err, "a bad limit")
        shot.open()
        shot.home(ann, job, 4)
        equal(shot.starts(), {frame: 1 for frame in range(1, 5)}, "starts")


@scenario
def a_running_job_gets_more_frames_and_then_fewer_and_what_runs_is_started_once():
    with Farm() as farm:
        ann, shot = shot_farm(farm, slots=4)
        job = shot.submit(ann, "1-4")
        shot.wait_starts(lambda starts: len(starts) == 4, "four frames run")
        shot.open(1)
        ann.wait_counts(job, done=1)
        check("4 tasks were added" in ann.ask("set", job, "-f", "1-8", code=0).out, "it says how many")
        shot.wait_starts(lambda starts: len(starts) == 5, "a frame that was added runs")
        equal(ann.show(job)["steps"][0]["frames"], "1-8", "the frames shown")
        until(lambda: len(farm.rows("SELECT 1 FROM notes")) >= 4, "what runs is noted")
        restart(farm)  # frames that were added are there after it, and what runs is adopted
        equal(ann.counts(job)["tasks"], 8, "tasks after the restart")
        # Frame 2 is left out and runs: it is stopped. Frames 9 and 10 are new, 8 goes unstarted.
        check("4 tasks were added or left out" in ann.ask("set", job, "-f", "1,3-7,9-10", code=0).out, "it says how many")
        until(lambda: 'task=1' in cancelled(farm), lambda: "frame 2 is stopped:\n%s" % farm.logs())
        shown = ann.show(job)
        equal((shown["counts"]["tasks"], shown["steps"][0]["frames"]), (8, "1,3-7,9-10"), "what is shown")
        restart(farm)
        equal(ann.counts(job)["tasks"], 8, "tasks after another restart")
        shot.open()
        ann.ask("fetch", job, "-o", farm.path("home"), "--follow", code=0)
        frames = (1, 3, 4, 5, 6, 7, 9, 10)
        equal(tree(farm.path("home")), {"f.%d" % i: b"%d\n" % i for i in frames}, "frames home")
        equal(shot.starts(), dict.fromkeys((1, 2, *frames[1:]), 1), "starts")
        equal(ann.show(job)["phase"], "done", "what was left out keeps nothing open")
        equal([a["class"] for a in ann.ask("log", job, "-f", "10", "--json", code=0).json], ["ok"], "attempts of a frame that was added")
        # Taken in again, frame 2 runs; frame 1 that is done and left out stays done.
        ann.ask("set", job, "-f", "2-10", code=0)
        ann.ask("fetch", job, "-o", farm.path("home"), "--follow", code=0)
        equal(sorted(tree(farm.path("home"))), sorted("f.%d" % i for i in range(1, 11)), "frames home")
        equal(shot.starts(), {**dict.fromkeys(range(1, 11), 1), 2: 2}, "starts")


@scenario
def chunks_keep_their_frames_and_what_is_added_gets_chunks_of_its_own():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-5", "--chunk", "3", "-o", farm.path("out"),
                         "-p", 'run=echo "$FRAME" >> %s/ran; echo x > "$OUT/f.$FRAME"' % shot.witness)
        ann.wait_counts(job, done=2)
        ann.ask("set", job, "-f", "1-9", code=0)
        ann.wait_counts(job, done=4)
        equal(sorted(lines(shot.witness + "/ran")), ["1-3", "4-5", "6-8", "9"], "chunks that ran")
        equal(ann.show(job)["steps"][0]["frames"], "1-9", "frames")
        ann.ask("set", job, "-f", "1-8", code=0)
        equal(ann.counts(job)["tasks"], 4, "a chunk that is done stays")


@scenario
def what_reads_all_frames_waits_for_those_that_are_added_and_not_for_those_left_out():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-3", "-o", farm.path("out"), "-p", GATED % {"w": shot.witness},
                         "-p", 'then=names=$(ls "$OUT"); echo $names > "$OUT/all"; echo then >> %s/thens' % shot.witness)
        shot.wait_starts(lambda starts: len(starts) == 2, "two frames run")
        ann.ask("set", job, "-f", "1-2,4", code=0)
        for frame in (1, 2):
            shot.open(frame)
        shot.wait_starts(lambda starts: 4 in starts, "the frame that was added runs")
        equal(lines(shot.witness + "/thens"), [], "it waits")
        ann.ask("set", job, "-f", "1-2", code=0)  # frame 4 is stopped: nothing is left to wait for
        ann.wait_counts(job, done=3)
        ann.ask("fetch", job, "-o", farm.path("home"), "--follow", code=0)
        equal(sorted(tree(farm.path("home"))), ["all", "f.1", "f.2"], "frames home")
        equal(lines(farm.path("home", "all")), ["f.1", "f.2"], "what it read")
        shot.open()
        ann.ask("set", job, "-f", "1-3", code=0)  # made anew of all three
        ann.wait_counts(job, done=4)
        ann.ask("fetch", job, "-o", farm.path("home"), "--follow", code=0)
        equal(lines(farm.path("home", "all")), ["f.1", "f.2", "f.3"], "what it read then")
        equal((lines(shot.witness + "/thens"), shot.starts()), (["then"] * 2, {1: 1, 2: 1, 3: 1, 4: 1}), "what ran")


@scenario
def a_povray_animation_gets_frames_of_its_clock_range_and_no_others():
    if not shutil.which("povray"):
        print("skipped: no povray here")
        return
    with Farm() as farm:
        farm.start_broker()
        farm.worker("box1", "--slots", "1", "--cores", "1")
        ann, scene = farm.person("ann"), farm.path("anim.pov")
        write(scene, "camera { location <0, 0, -3> look_at 0 } light_source { <2, 4, -3> rgb 1 }\n"
              "sphere { <clock, 0, 0>, 1 pigment { rgb <clock, 0.5, 1> } }\n")
        wide = ["--size", "32x24", "-o", farm.path("out"), "--clock-range", "1-4"]
        job = ann.submit(scene, "-f", "1-2", *wide)
        refused = ann.ask("set", job, "-f", "1-5", code=2).err
        check("frames 1 to 4" in refused and "--clock-range" in refused, refused)
        ann.ask("set", job, "-f", "1-4", code=0)
        ann.ask("fetch", job, "-o", farm.path("home"), "--follow", code=0)
        whole = ann.submit(scene, "-f", "1-4", *wide)
        ann.ask("fetch", whole, "-o", farm.path("whole"), "--follow", code=0)
        equal(len(tree(farm.path("home"))), 4, "frames home")
        for name in sorted(tree(farm.path("whole"))):
            check(pixels(read(farm.path("home", name))) == pixels(read(farm.path("whole", name))), "pixels of", name)


@scenario
def a_recipe_too_large_for_a_message_grows_and_is_resubmitted_as_well():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        noise = os.urandom(14000).hex()
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-2", "-o", farm.path("out"), "--env", "NOISE=%s" % noise,
                         "--env", "NOISE2=%s" % os.urandom(14000).hex(), "-p", 'run=echo ${#NOISE} $FRAME > "$OUT/f.$FRAME"')
        ann.wait_counts(job, done=2)
        ann.ask("set", job, "-f", "1-3", code=0)
        ann.wait_counts(job, done=3)
        restart(farm)
        again = ann.ask("resubmit", job, code=0).id
        ann.ask("fetch", again, "-o", farm.path("home"), "--follow", code=0)
        equal(tree(farm.path("home")), {"f.%d" % i: b"28000 %d\n" % i for i in (1, 2, 3)}, "frames home")


@scenario
def a_job_is_made_again_from_its_sealed_inputs_when_the_scene_is_gone():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        write(farm.path("shot", "texture"), "oak")
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-3", "-o", farm.path("out"), "--name", "shot", "--tag", "a",
                         "-p", 'run=cat texture > "$OUT/f.$FRAME"; echo $FRAME >> %s/ran' % shot.witness)
        ann.wait_counts(job, done=3)
        ann.ask("set", job, "-f", "1-2,5", code=0)
        ann.wait_counts(job, done=4)
        shutil.rmtree(farm.path("shot"))
        blocks = sum(len(names) for _, _, names in os.walk(os.path.join(farm.state, "vault")))
        answer = ann.ask("resubmit", "last", "--priority", "3", "--note", "again", code=0)
        equal(answer.out.splitlines()[0], "job %s" % answer.id, "the id comes first")
        restart(farm)
        check(answer.id != job, "it is another job")
        ann.ask("fetch", answer.id, "-o", farm.path("home"), "--follow", code=0)
        equal(tree(farm.path("home")), {"f.%d" % i: b"oak" for i in (1, 2, 5)}, "frames home: those last set")
        shown = ann.show(answer.id)
        equal((shown["name"], shown["note"], shown["tags"], shown["priority"]), ("shot", "again", ["a"], 3), "what is as it was")
        more = ann.ask("resubmit", job, "-f", "9-10", "--name", "other", "--json", code=0).json
        equal((more["from"], more["id"] != job), (job, True), "what --json says")
        ann.ask("fetch", more["id"], "-o", farm.path("more"), "--follow", code=0)
        equal(sorted(tree(farm.path("more"))), ["f.10", "f.9"], "frames of the third")
        grown = sum(len(names) for _, _, names in os.walk(os.path.join(farm.state, "vault"))) - blocks
        check(grown <= 3 * 5, "only results were added to the vault:", grown)
        equal(len(set(farm.rows("SELECT blob FROM jobs"))), 3, "submissions, each with a key of its own")
        bob = farm.person("bob", studio="other")
        check("no such job" in bob.ask("resubmit", job, code=2).err, "a foreign job is an unknown one")


@scenario
def an_archived_job_leaves_the_list_and_can_still_be_shown_fetched_and_brought_back():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        job = shot.submit(ann, "1-2")
        shot.wait_starts(lambda starts: len(starts) == 2, "both run")
        refused = ann.ask("archive", job, code=1).err
        check("not finished" in refused and "westlight watch" in refused, refused)
        shot.open()
        ann.wait_counts(job, done=2)
        check("archived" in ann.ask("archive", job, code=0).out, "it says so")
        ann.ask("archive", job, code=0)  # twice is as once
        restart(farm)
        equal([ann.ask("jobs", *which, "--json", code=0).json for which in ([], ["--all"])], [[], []], "the lists")
        equal([row["id"] for row in ann.ask("jobs", "--archived", "--json", code=0).json], [job], "the archive")
        equal((ann.show(job[:8])["id"], ann.show(job)["archived"]), (job, True), "it can be shown")
        shot.home(ann, job, 2)
        for verb in ("retry", "cancel", "pause"):
            check("--undo" in ann.ask(verb, job, code=1).err, "%s is refused, saying what to do" % verb)
        check("--undo" in ann.ask("set", job, "-f", "1-3", code=1).err, "frames are refused as well")
        ann.ask("set", job, "--note", "kept", code=0)
        ann.ask("archive", job, "--undo", code=0)
        equal([row["id"] for row in ann.ask("jobs", "--all", "--json", code=0).json], [job], "it is back")
        ann.ask("set", job, "-f", "1-3", code=0)
        ann.wait_counts(job, done=3)


@scenario
def fetch_replaces_what_it_wrote_itself_and_never_what_a_person_changed():
    with Farm() as farm:
        ann, shot = shot_farm(farm)
        out, take = farm.path("home"), farm.path("take")
        write(take, "one")
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1-3", "-o", farm.path("out"), "-p",
                         'run=cat %s > "$OUT/f.$FRAME"' % take)
        ann.ask("fetch", job, "-o", out, "--follow", code=0)
        write(out + "/f.2", "touched up by hand")
        write(take, "two")
        ann.ask("retry", job, "-f", "1-2", code=0)
        ann.wait_counts(job, done=3)
        answer = ann.ask("fetch", job, "-o", out, code=4)
        check("f.2" in answer.err and "--force" in answer.err, answer)
        equal(tree(out), {"f.1": b"two", "f.2": b"touched up by hand", "f.3": b"one"}, "files")
        ann.ask("fetch", job, "-o", out, "--force", code=0)
        equal(tree(out)["f.2"], b"two", "forced")


if __name__ == "__main__":
    main()
