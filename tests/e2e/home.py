"""What fetch, render and their words promise where something is in the way: a disk, a person's file, a
link that breaks, a name that is no text."""
import json
import os
import signal

from farm import Farm, check, equal, lines, main, scenario, tree, until, write
from kills import GATED, Shot


def small_farm(farm, slots=2):
    farm.start_broker()
    farm.worker("box1", "--no-probe", "--slots", str(slots), "--cores", str(slots))
    return farm.person("ann"), Shot(farm)


@scenario
def two_tasks_that_wrote_one_path_with_different_content_are_named_to_who_builds_on_both():
    with Farm() as farm:
        ann, shot = small_farm(farm)
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
def a_name_that_is_no_text_is_listed_as_json_all_the_same():
    with Farm() as farm:
        ann, shot = small_farm(farm)
        name = "Sz\udcfc\udce2\udc82.blend"  # bytes FC, and E2 82, which is cut off
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "1", "-o", farm.path("out"), "--name", name,
                         "-p", 'run=echo x > "$OUT/f"')
        ann.wait_counts(job, done=1)
        for row in (ann.show(job), ann.ask("jobs", "--all", "--json", code=0).json[0],
                    json.loads(ann.ask("watch", job, "--json", code=0).out.splitlines()[-1])):
            equal((row["name"], row["counts"]["done"]), ("Sz\ufffd\ufffd\ufffd.blend", 1), "the row")
        home = farm.path("h\udcfc")
        equal(ann.ask("fetch", job, "-o", home, "--json", code=0).json["folder"], farm.path("h\ufffd"), "the folder")


if __name__ == "__main__":
    main()
