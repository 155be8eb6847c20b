"""What bad input gets: a message that names the thing, the reason and the next step, and the right
exit code; and another studio's job beside it does not notice."""
import contextlib
import os
import socket

from farm import Farm, check, equal, lines, main, run, scenario, tree, until, write

POV_BROKEN = "#version 3.7;\nsphere { <0, 0, 0> 1 ]\n"
EXIT = {"home": 0, "failed": 1, "usage": 2, "unreachable": 3, "partial": 4}


@contextlib.contextmanager
def farm_with_a_neighbour():
    """A farm on which another studio's job of 4 frames runs from beginning to end."""
    with Farm() as farm:
        farm.start_broker()
        farm.worker("box1", "--no-probe", "--slots", "4", "--cores", "8")
        farm.worker("box2", "--no-probe", "--slots", "4", "--cores", "8")
        bob, ann = farm.person("bob", studio="other"), farm.person("ann")
        write(farm.path("bobs", "input"), "x")
        job = bob.submit(farm.path("bobs"), "--preset", "command", "-f", "1-4", "-o", farm.path("bobs-out"), "-p",
                         'run=echo $FRAME >> %s/starts; while [ ! -e %s/gate ] && [ $FRAME -gt 2 ]; do sleep 0.05; done; '
                         'echo $FRAME > "$OUT/f.$FRAME"' % (farm.folder, farm.folder))
        bob.wait_counts(job, running=2, done=2)
        yield farm, ann
        equal(bob.counts(job)["running"], 2, "the neighbour's frames that run on")
        write(farm.path("gate"), "")
        bob.ask("fetch", job, "--follow", "-o", farm.path("bobs-home"), code=0)
        equal(tree(farm.path("bobs-home")), {"f.%d" % i: b"%d\n" % i for i in range(1, 5)}, "the neighbour's frames")
        equal(sorted(lines(farm.path("starts"))), ["1", "2", "3", "4"], "starts of the neighbour's frames")
        check(farm.broker.alive(), "the broker lives")


def judge(rows):
    """Every row is looked at, so that one run shows all that is wrong."""
    wrong = []
    for name, answer, outcome, words in rows:
        text = answer.text.lower()
        missing = [word for word in words if word.lower() not in text]
        if answer.code != EXIT[outcome] or missing:
            wrong.append("%s: %d and %s wanted; missing: %s\n%s" % (name, EXIT[outcome], outcome, missing, answer))
        if "sanitizer" in text or "runtime error" in text:
            wrong.append("%s: %s" % (name, answer))
    check(not wrong, "\n".join(wrong))


USAGE = [  # name, arguments ({shot}: a folder with scene.pov, {out}), words of the message
    ("a missing scene", "render {shot}/none.pov", ["none.pov", "no such file", "check the path"]),
    ("a folder as a scene", "render {shot}", ["{shot}", "--preset"]),
    ("an ending nobody knows", "render {shot}/scene.xyz", ["scene.xyz", "--preset"]),
    ("a range that is none", "render {shot}/scene.pov -f 1-x", ["--frames 1-x", "\n  1-x\n    ^\n", "frames look like"]),
    ("a step of nothing", "render {shot}/scene.pov -f 1-10:0", ["--frames 1-10:0", "\n  1-10:0\n       ^\n"]),
    ("a range that ends too soon", "render {shot}/scene.pov -f 1-5,7-", ["\n  1-5,7-\n        ^\n"]),
    ("a range that runs backwards", "render {shot}/scene.pov -f 9-1", ["--frames 9-1", "^"]),
    ("no range at all", "render {shot}/scene.pov -f ", ["-f", "^"]),
    ("a negative frame for POV-Ray", "render {shot}/scene.pov -f -3--1", ["-3--1", "POV-Ray"]),
    ("an unknown preset", "render {shot}/scene.pov --preset maya", ["--preset maya", "no such preset", "povray, blender or command"]),
    ("a pool of a private farm", "render {shot}/scene.pov --local --pool night", ["--pool night", "private farm has no pools"]),
    ("an unknown parameter", "render {shot}/scene.pov -p colour=red", ["-p colour", "no such parameter", "quality"]),
    ("a parameter without a value", "render {shot}/scene.pov -p quality", ["-p quality", "NAME=VALUE"]),
    ("an amount that is none", "render {shot}/scene.pov -p memory=lots", ["memory=lots", "8G"]),
    ("a timeout of nothing", "render {shot}/scene.pov -p timeout=0", ["timeout=0", "seconds"]),
    ("a quality POV-Ray clips", "render {shot}/scene.pov -p quality=99", ["quality=99", "0 to 11"]),
    ("a threshold that is none", "render {shot}/scene.pov -p antialias=much", ["antialias=much", "0.3"]),
    ("more frames than anybody renders", "render {shot}/scene.pov -f 1-5000000000", ["too many frames", "^"]),
    ("more frames than POV-Ray counts", "render {shot}/scene.pov -f 5000000000", ["5000000000", "2147483645"]),
    ("one file for every frame", "render {shot}/scene.pov -f 1-2 -o out/b.png", ["b.png", "each frame", "b.####.png"]),
    ("numbers in a folder's name", "render {shot}/scene.pov -f 1-2 -o out/####/b.png", ["out/####/b.png", "folder's name", "beauty.####"]),
    ("a number for a still", "render {shot}/scene.pov -o out/b.####.png", ["b.####.png", "still", "-f"]),
    ("an ending POV-Ray does not write", "render {shot}/scene.pov -f 1 -o out/b.##.tif", [".tif", "povray", "help presets"]),
    ("two formats", "render {shot}/scene.pov -f 1 -o out/b.##.exr -p format=png", [".exr", "format=png"]),
    ("a pattern for a command", "render {shot} --preset command -p run=true -f 1 -o out/b.##.exr", ["command", "name a folder"]),
    ("an output folder that is a file", "render {shot}/scene.pov -o {shot}/scene.xyz", ["-o", "scene.xyz", "not a directory"]),
    ("an output folder that cannot be", "render {shot}/scene.pov -o /proc/nope", ["-o /proc/nope", "name a folder that can be written"]),
    ("a size beyond all", "render {shot}/scene.pov --size 99999999x99999999", ["--size", "65536x65536"]),
    ("a format nobody writes", "render {shot}/scene.pov -p format=gif", ["format=gif", "png"]),
    ("a size that is none", "render {shot}/scene.pov --size 100", ["--size 100", "1920x1080"]),
    ("a chunk of nothing", "render {shot}/scene.pov -f 1-4 --chunk 0", ["--chunk 0"]),
    ("a command that says nothing", "render {shot} --preset command", ["-p run="]),
    ("an unknown option", "render {shot}/scene.pov --colour", ["--colour"]),
    ("no scene", "render", ["scene"]),
    ("an unknown command", "rendre {shot}/scene.pov", ["rendre", "westlight help"]),
    ("an output folder that is the scene's", "render {shot}/scene.pov -o {shot}", ["-o", "scene's own folder"]),
    ("an unknown job", "show 0123456789abcdef0123456789abcdef", ["0123456789abcdef"]),
    ("a job that is no id", "show shot-seven", ["shot-seven"]),
    ("a farm nobody named", "jobs --farm mars", ["mars"]),
    ("a frame the verb does not take", "pause last -f 1", ["-f"]),
]


@scenario
def what_makes_no_sense_is_said_before_anything_is_sent():
    with farm_with_a_neighbour() as (farm, ann):
        shot, rows = farm.path("shot"), []
        for name in ("scene.pov", "scene.xyz"):
            write(os.path.join(shot, name), "sphere { 0, 1 }")
        for name, argv, words in USAGE:
            argv = [word.format(shot=shot) for word in argv.split(" ")]
            rows.append((name, ann.ask(*argv), "usage", [word.format(shot=shot) for word in words]))
        judge(rows)
        equal(ann.ask("jobs", "--all", "--json", code=0).json, [], "jobs that came of it")


@scenario
def whoever_is_not_reached_or_says_no_is_named_with_code_3():
    with farm_with_a_neighbour() as (farm, ann):
        shot, rows = write(farm.path("shot", "scene.pov"), "sphere { 0, 1 }"), []
        with socket.create_server(("127.0.0.1", 0)) as taken:
            nobody = "tcp://127.0.0.1:%d" % taken.getsockname()[1]
        ann.configure(control=nobody)
        answer = ann.ask("render", shot, "-o", farm.path("out"))
        rows.append(("an unreachable broker", answer, "unreachable", [nobody, "broker"]))
        check(answer.seconds < 15, "it took %.1f s" % answer.seconds)
        stranger = farm.person("stranger", known=False)
        answer = stranger.ask("render", shot, "-o", farm.path("out"))
        rows.append(("a refused key", answer, "unreachable", [stranger.public, "operator"]))
        check(answer.seconds < 5, "it took %.1f s" % answer.seconds)
        judge(rows)


@scenario
def a_job_that_no_worker_can_run_waits_and_says_why():
    with farm_with_a_neighbour() as (farm, ann):
        shot, rows = farm.path("shot"), []
        write(os.path.join(shot, "scene.pov"), "sphere { 0, 1 }")
        run(["blender", "--background", "--factory-startup", "-noaudio", "--python-expr",
             "import bpy; bpy.ops.wm.save_as_mainfile(filepath='%s/scene.blend')" % shot], farm.folder)
        command = (shot, "--preset", "command", "-p", "run=true")
        for name, argv, words in (("POV-Ray is missing", (shot + "/scene.pov",), ["no connected worker", "povray"]),
                                  ("Blender is missing", (shot + "/scene.blend",), ["no connected worker", "blender"]),
                                  ("too much memory", (*command, "-p", "memory=900T"), ["no connected worker", "memory", "943718400 MiB"]),
                                  ("no GPU", (*command, "-p", "gpus=1"), ["no connected worker", "gpu"]),
                                  ("too many vCPUs", (*command, "-p", "vcpus=4000"), ["no connected worker", "vcpu", "4000"])):
            job = ann.submit(*argv, "-f", "1-3", "-o", farm.path("out"))
            rows.append((name, ann.ask("show", job), "home", ["waiting", "waits", *words]))
            equal(ann.show(job)["phase"], "waiting", name)
            check(ann.show(job)["steps"][0]["why"], name, "has a reason in JSON")
            ann.ask("cancel", job, code=0)
        judge(rows)
        pov = ann.submit(shot + "/scene.pov", "-o", farm.path("out"), "--size", "16x16")
        farm.worker("box3", "--slots", "1")  # one that has it
        ann.wait_counts(pov, done=1)


FAILING = [  # name, the command, options, words
    ("the renderer exits with 3", "echo something broke >&2; exit 3", (), ["renderer failed", "3", "westlight log"]),
    ("the renderer is killed", "kill -9 $$", (), ["renderer failed", "signal", "westlight log"]),
    ("it writes nothing", "true", (), ["no output", "wrote", "westlight log"]),
    ("it hangs past its timeout", "sleep 1000", ("-p", "timeout=1"), ["timeout", "1 s", "westlight log"]),
    ("it says itself that it failed", "echo openjd_fail: the texture is gone; exit 1", (), ["the texture is gone", "westlight log"]),
    ("there is no such program", "no-such-renderer --frame 1", (), ["127", "westlight log"]),
]


@scenario
def a_renderer_that_fails_ends_the_job_with_code_1_and_its_reason():
    with farm_with_a_neighbour() as (farm, ann):
        shot, rows = farm.path("shot"), []
        write(os.path.join(shot, "input"), "x")
        for name, command, options, words in FAILING:
            out = farm.path("out", name)
            answer = ann.ask("render", shot, "--preset", "command", "-p", "run=" + command, "-f", "1", "-o", out, *options, seconds=60)
            rows.append((name, answer, "failed", words))
            equal(tree(out), {}, "what came home of: " + name)
            rows.append((name + ": show", ann.ask("show", answer.id), "home", words[:1]))
        judge(rows)


@scenario
def what_povray_says_of_a_broken_scene_reaches_the_artist():
    with farm_with_a_neighbour() as (farm, ann):
        farm.worker("box3", "--slots", "1")
        scene = write(farm.path("shot", "broken.pov"), POV_BROKEN)
        answer = ann.ask("render", scene, "-f", "1-2", "-o", farm.path("out"), "--size", "16x16")
        judge([("a broken scene", answer, "failed", ["renderer failed", "westlight log"]),
               ("its log", ann.ask("log", answer.id, "-f", "1"), "home", ["broken.pov", "Parse Error"])])


@scenario
def a_broken_scene_of_240_frames_pauses_itself_after_a_few_attempts():
    with farm_with_a_neighbour() as (farm, ann):
        farm.worker("box3", "--slots", "1", "--cores", "1")
        scene = write(farm.path("shot", "broken.pov"), POV_BROKEN)
        answer = ann.ask("render", scene, "-f", "1-240", "-o", farm.path("out"), "--size", "16x16", code=1)
        check("paused itself" in answer.err and "Parse Error" in answer.err and "westlight resume" in answer.err, answer)
        # Three, and what was on its way by then: one worker of one slot runs one after another.
        check(3 <= len(farm.attempts(answer.id)) <= 4, "attempts:", farm.attempts(answer.id))
        equal(ann.show(answer.id)["phase"], "paused", "the phase")


@scenario
def one_frame_that_fails_leaves_the_others_home_and_is_named():
    with farm_with_a_neighbour() as (farm, ann):
        write(farm.path("shot", "input"), "x")
        answer = ann.ask("render", farm.path("shot"), "--preset", "command", "-f", "1-5", "-o", farm.path("out"),
                         "-p", '''run=if [ $FRAME = 3 ]; then sleep 0.5; exit 9; fi; echo $FRAME > "$OUT/f.$FRAME"''')
        judge([("frame 3", answer, "failed", ["1 of 5 tasks failed", "frame 3", "9", "westlight retry"])])
        equal(tree(farm.path("out")), {"f.%d" % i: b"%d\n" % i for i in (1, 2, 4, 5)}, "frames home")
        until(lambda: ann.show(answer.id)["steps"][0]["frames_failed"] == "3", "show names the frame")


if __name__ == "__main__":
    main()
