"""What an artist asked for lies on their disk, pixel for pixel as the renderer alone makes it."""
import os
import subprocess

from farm import Farm, SOURCE, check, equal, main, run, scenario, tree, write
from png import pixels

SIZE = (160, 90)
POV = """#version 3.7;
global_settings { assumed_gamma 1.0 }
#include "colour.inc"
camera { location <0, 2, -6> look_at <0, 0.5, 0> right x * 16 / 9 }
light_source { <4, 6, -4>, rgb 1 }
plane { y, 0 pigment { checker rgb 0.2 rgb 0.8 } }
sphere { <2 * cos(clock * 6.2832), 0.7, 2 * sin(clock * 6.2832)>, 0.7 pigment { Warm } finish { reflection 0.3 } }
"""
BLEND = """import bpy, math, sys
bpy.ops.wm.read_factory_settings(use_empty=True)
scene = bpy.context.scene
bpy.ops.mesh.primitive_monkey_add()
monkey = bpy.context.object
for frame, angle in ((1, 0), (6, math.pi)):
    monkey.rotation_euler.z = angle
    monkey.keyframe_insert('rotation_euler', frame=frame)
bpy.ops.object.light_add(type='SUN', rotation=(0.6, 0.3, 0))
bpy.ops.object.camera_add(location=(0, -5, 1), rotation=(1.4, 0, 0))
scene.camera = bpy.context.object
scene.render.engine, scene.cycles.samples = 'CYCLES', 4
scene.render.resolution_x, scene.render.resolution_y = 96, 64
scene.render.image_settings.file_format = 'PNG'
bpy.ops.wm.save_as_mainfile(filepath=sys.argv[-1])
"""


def two_workers(farm):
    farm.start_broker()
    for name in ("box1", "box2"):
        farm.worker(name, "--slots", "1", "--cores", "1")
    return farm.person("ann")


def same_pictures(home, direct, count):
    """Both map a frame's number to a file."""
    equal(sorted(home), sorted(direct), "frames")
    equal(len(home), count, "how many frames")
    different = {pixels(data) for data in direct.values()}
    check(len(different) > 1, "the animation does not move: every picture is the same")
    for frame in home:
        check(pixels(home[frame]) == pixels(direct[frame]), "the pixels of frame %d differ" % frame)


def by_number(folder):
    return {int("".join(c for c in name.rsplit(".", 1)[0] if c.isdigit())): data
            for name, data in tree(folder).items() if name.endswith(".png")}


def pov_scene(farm):
    folder = os.path.join(SOURCE, "tests/scenes/lighthouse")
    if os.path.exists(os.path.join(folder, "lighthouse.pov")):
        return os.path.join(folder, "lighthouse.pov")
    write(farm.path("shot", "colour.inc"), "#declare Warm = rgb <1, 0.6, 0.2>;\n")
    return write(farm.path("shot", "lighthouse.pov"), POV)


def blend_scene(farm):
    """The project's own scene, made small; without it one of this file's."""
    script = os.path.join(SOURCE, "tests/scenes/turntable/make_blend.py")
    scene = farm.path("blend", "turntable.blend")
    os.makedirs(os.path.dirname(scene))
    if not os.path.exists(script):
        script = write(farm.path("make_blend.py"), BLEND)
    run(["blender", "--background", "--factory-startup", "-noaudio", "--python-exit-code", "1", "--python", script, "--", scene],
        farm.folder)
    check(os.path.exists(scene), "the script made no", scene)
    return scene


@scenario
def povray_frames_come_home_as_povray_alone_makes_them_whole_and_in_chunks_of_5():
    with Farm() as farm:
        ann, scene = two_workers(farm), pov_scene(farm)
        direct = farm.path("direct")
        os.makedirs(direct)
        run(["povray", "+I" + os.path.basename(scene), "+O" + direct + "/frame-", "+FN", "+W%d" % SIZE[0], "+H%d" % SIZE[1],
             "-D", "+KFI1", "+KFF24"], os.path.dirname(scene))
        direct = by_number(direct)
        for name, options in (("whole", ()), ("chunked", ("--chunk", "5"))):
            out = farm.path(name)
            answer = ann.ask("render", scene, "-f", "1-24", "-o", out, "--size", "%dx%d" % SIZE, *options, code=0)
            same_pictures(by_number(out), direct, 24)
            tasks = 24 if name == "whole" else 5
            check("%d of %d tasks home: 24 files, verified" % (tasks, tasks) in answer.out, answer)
            equal(farm.results(answer.id), {(0, task): 1 for task in range(tasks)}, "current results")
            workers = farm.rows("SELECT DISTINCT worker FROM attempts WHERE job = ?", bytes.fromhex(answer.id))
            equal(len(workers), 2, "workers that took part")


@scenario
def blender_cycles_frames_come_home_as_blender_alone_makes_them_whole_and_in_chunks_of_5():
    with Farm() as farm:
        ann, scene = two_workers(farm), blend_scene(farm)
        direct = farm.path("direct")
        run(["blender", "--background", "-noaudio", scene, "--python-exit-code", "1", "--python-expr",
             "import bpy; r = bpy.context.scene.render; assert r.engine == 'CYCLES'; "
             "r.resolution_x, r.resolution_y, r.resolution_percentage = %d, %d, 100; "
             "bpy.context.scene.cycles.samples = 4" % SIZE,
             "--render-output", direct + "/frame-####", "--render-frame", "1..6"], farm.folder)
        direct = by_number(direct)
        for name, options in (("whole", ()), ("chunked", ("--chunk", "5"))):
            out = farm.path(name)
            answer = ann.ask("render", scene, "-f", "1-6", "-o", out, "--size", "%dx%d" % SIZE, "-p", "samples=4", *options, code=0)
            same_pictures(by_number(out), direct, 6)
            check("6 files, verified" in answer.out, answer)


@scenario
def a_name_means_what_it_says_and_any_file_name_renders():
    with Farm() as farm:
        ann, shot = two_workers(farm), farm.path("shot")
        names = ["a b", "-d+I;[\u00fc]", 'it\'s "q"']
        for name in names:
            write(os.path.join(shot, name + ".pov"), "camera { location -z * 3 } sphere { 0, 1 pigment { rgb clock } finish { ambient 1 } }")
            ann.ask("render", "%s/%s.pov" % (shot, name), "-o", farm.path("out"), "--size", "16x12", code=0)
        equal(sorted(tree(farm.path("out"))), sorted(name + ".png" for name in names), "stills")
        for pattern in ("b.%04d.png", "##.c.##.exr", "d.#.JPG"):
            ann.ask("render", shot + "/a b.pov", "-f", "9-10", "-o", farm.path("named", pattern), "--size", "16x12", code=0)
        ann.ask("render", shot + "/a b.pov", "-o", farm.path("named", "still.tga"), "--size", "16x12", code=0)
        heads = {name: data[:4] for name, data in tree(farm.path("named")).items()}
        tga = heads.pop("still.tga")
        equal(heads, {**dict.fromkeys(("b.0009.png", "b.0010.png"), b"\x89PNG"), **dict.fromkeys(("##.c.09.exr", "##.c.10.exr"), b"v/1\x01"),
                      **dict.fromkeys(("d.9.JPG", "d.10.JPG"), b"\xff\xd8\xff\xe0")}, "names and formats")
        check(tga[2] in (2, 10), "a true-colour TGA begins otherwise:", tga)


@scenario
def blender_writes_what_the_ending_says():
    with Farm() as farm:
        ann, scene = two_workers(farm), blend_scene(farm)
        for words, argv in (("-p samples=-2: it is no number", ("-f", "1", "-p", "samples=-2")), ("1048574", ("-f", "1-1048575")),
                            ("each frame needs a name of its own", ("-o", "b.png"))):
            check(words in ann.ask("render", scene, *argv, code=2).err, argv)
        ann.ask("render", scene, "-f", "-1,1", "-o", farm.path("out", "b.##.exr"), "--size", "16x12", "-p", "samples=1", "--chunk", "2", code=0)
        equal({name: data[:4] for name, data in tree(farm.path("out")).items()}, dict.fromkeys(("b.-01.exr", "b.01.exr"), b"v/1\x01"), "frames")


@scenario
def a_second_step_reads_what_the_first_one_left():
    with Farm() as farm:
        ann, out = two_workers(farm), farm.path("out")
        write(farm.path("shot", "words"), "one two three four five six\n")
        answer = ann.ask("render", farm.path("shot"), "--preset", "command", "-f", "1-6", "-o", out,
                         "-p", 'run=cut -d" " -f$FRAME words > "$OUT/word.$FRAME"',
                         "-p", 'then=cat "$OUT"/word.? | tr "\\n" "-" > "$OUT/all"', code=0)
        home = tree(out)
        equal(home.pop("all"), b"one-two-three-four-five-six-", "what the second step made")
        equal(home, {"word.%d" % (i + 1): word.encode() + b"\n" for i, word in
                     enumerate(("one", "two", "three", "four", "five", "six"))}, "what the first step made")
        equal(farm.results(answer.id), {**{(0, task): 1 for task in range(6)}, (1, 0): 1}, "current results")


@scenario
def a_file_that_a_person_changed_is_left_alone_and_a_lost_one_is_fetched_again():
    with Farm() as farm:
        ann, out = two_workers(farm), farm.path("out")
        write(farm.path("shot", "input"), "x")
        job = ann.ask("render", farm.path("shot"), "--preset", "command", "-f", "1-3", "-o", out,
                      "-p", 'run=echo $FRAME > "$OUT/f.$FRAME"', code=0).id
        write(os.path.join(out, "f.1"), "painted over")
        os.unlink(os.path.join(out, "f.2"))
        answer = ann.ask("fetch", job, "-o", out)
        check(answer.code == 4 and "f.1" in answer.err, "what is in the way is named:", answer)
        equal(tree(out), {"f.1": b"painted over", "f.2": b"2\n", "f.3": b"3\n"}, "what lies there")
        ann.ask("fetch", job, "-o", out, "--force", code=0)
        equal(tree(out), {"f.1": b"1\n", "f.2": b"2\n", "f.3": b"3\n"}, "what lies there")


if __name__ == "__main__":
    main()
