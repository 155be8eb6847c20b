"""What artists really send: scenes whose files lie in other folders, under absolute paths, behind
links; folders with more in them than should travel; frames before zero and single frames."""
import json
import os
import shutil

from farm import NVML, SOURCE, Farm, check, equal, main, read, run, scenario, tree, until, write
from frames_come_home import by_number
from png import pixels

POV = """#version 3.7;
#include "../parts/colours.inc"
#include "from_library.inc"
global_settings { assumed_gamma 1 }
camera { location <0, 1, -5> look_at 0 }
light_source { <4, 6, -5> 1 }
plane { y, -1 pigment { checker rgb 0.2 Warm scale 0.7 } }
sphere { <clock * 2 - 1, 0, 0>, Radius pigment { image_map { png "../maps/spots.png" } } }
"""


def farm_without_workers(farm):
    farm.start_broker()
    return farm.person("ann")


def shared_set(farm):
    """The studio's project; the scene in it."""
    project = farm.path("project")
    run(["blender", "--background", "--factory-startup", "-noaudio", "--python-exit-code", "1", "--python",
         os.path.join(SOURCE, "tests/scenes/shared_set/make_blend.py"), "--", project], farm.folder)
    return os.path.join(project, "shots/010/shot.blend")


def listed(answer):
    """What --dry-run --json says would travel, by absolute path."""
    return sorted(os.path.join(file["root"], file["path"]) for file in answer.json["files"])


@scenario
def a_blend_with_absolute_textures_tiles_a_linked_library_and_a_driver_renders_as_at_home():
    with Farm() as farm:
        ann, scene = farm_without_workers(farm), shared_set(farm)
        direct = farm.path("direct")
        run(["blender", "--background", "-noaudio", "--enable-autoexec", scene, "--python-exit-code", "1", "--python-expr",
             "import bpy; s = bpy.context.scene\n"
             "for n in (-1, 0, 1):\n"
             "    s.frame_set(n); s.render.filepath = '%s/frame.%%d' %% n; bpy.ops.render.render(write_still=True)" % direct],
            farm.folder)
        out = farm.path("out")
        job = ann.submit(scene, "-f", "-1-1", "-o", out)
        os.rename(farm.path("project"), farm.path("moved"))  # nothing of it can be found by its old path
        farm.worker("box1", "--slots", "1")
        ann.ask("fetch", job, "-o", out, "--follow", code=0)
        home = tree(out)
        for number, name in ((-1, "shot.-0001.png"), (0, "shot.0000.png"), (1, "shot.0001.png")):
            check(pixels(home[name]) == pixels(read(direct + "/frame.%d.png" % number)), "the pixels of frame", number, "differ")
        check(pixels(home["shot.0000.png"]) != pixels(home["shot.0001.png"]), "the driver turns the cube")
        equal(sorted(name for name in home if name.startswith("passes/")),
              ["passes/alpha_-0001.png", "passes/alpha_0000.png", "passes/alpha_0001.png"], "what its File Output node wrote")


@scenario
def a_missing_texture_refuses_the_submission_and_is_named():
    with Farm() as farm:
        ann, scene = farm_without_workers(farm), shared_set(farm)
        lost = farm.path("project/textures/skin.1002.png"), farm.path("project/textures/wood.png"), farm.path("project/library/prop.blend")
        for path in lost[1:]:
            os.unlink(path)
        answer = ann.ask("submit", scene, "-f", "1", "-o", farm.path("out"), code=2)
        for words in (lost[1] + ': image "wood"', lost[2] + ": linked library", "2 files it needs are missing", "--allow-missing"):
            check(words in answer.err, "it says", words, answer)
        equal(ann.ask("jobs", "--json", code=0).json, [], "jobs")
        ann.ask("submit", scene, "-f", "1", "-o", farm.path("out"), "--allow-missing", code=0)


@scenario
def dry_run_lists_exactly_what_would_travel():
    with Farm() as farm:
        ann, scene = farm_without_workers(farm), shared_set(farm)
        shot = os.path.dirname(scene)
        for name in (".env", ".hidden/key", "shot-frames/shot.0001.png", "out/shot.0001.png", "shot.blend1", "shot.blend27",
                     "notes/old/a.psd", "notes/b.psd", "cache/a.bin", "cache/skip/b.bin"):
            write(os.path.join(shot, name), "x")
        shutil.copy(ann.key, os.path.join(shot, "my.key"))
        shutil.copy(ann.secret, os.path.join(shot, "notes/secret"))
        write(farm.path("elsewhere/ocio/config"), "x")
        write(farm.path("elsewhere/ocio/luts/a.spi"), "x")
        os.symlink(farm.path("elsewhere/ocio/luts"), os.path.join(shot, "luts"))
        os.symlink("/nowhere/at/all", os.path.join(shot, "nothing"))
        argv = ("submit", scene, "-o", os.path.join(shot, "out"), "--exclude", "*.psd", "--exclude", "cache/skip", "--asset",
                farm.path("elsewhere/ocio/config"), "--dry-run")
        answer = ann.ask(*argv, "--json", code=0)
        project = farm.path("project")
        equal(listed(answer), sorted([farm.path("elsewhere/ocio/config"), shot + "/cache/a.bin", shot + "/luts/a.spi", scene] +
                                     [project + "/" + name for name in (
                                         "library/prop.blend", "library/prop.png", "textures/skin.1001.png",
                                         "textures/skin.1002.png", "textures/wood.png")]), "what would travel")
        left_out = " ".join(answer.json["left_out"])
        check("my.key: it is a key" in left_out and "notes/secret: it is a key" in left_out and "nothing: a link" in left_out, answer)
        check(answer.json["blocks_to_send"] == answer.json["blocks"] > 0 and answer.json["missing"] == [], answer)
        text = ann.ask(*argv, code=0).out
        check("9 files" in text and "0 missing" in text and "wood.png" in text, text)
        ann.ask(*argv[:-1], code=0)
        answer = ann.ask(*argv, "--json", code=0)
        check(answer.json["blocks_to_send"] <= 1, "only the recipe is new:", answer)
        equal(len(ann.ask("jobs", "--json", code=0).json), 1, "jobs made by a dry run")


@scenario
def a_scene_in_the_home_folder_is_refused_with_the_way_out():
    with Farm() as farm:
        ann = farm_without_workers(farm)
        scene = write(os.path.join(ann.home, "scene.pov"), "sphere { 0, 1 }")
        answer = ann.ask("submit", scene, "-o", farm.path("out"), code=2)
        check("your whole home" in answer.err and "folder of its own" in answer.err, answer)


@scenario
def a_scene_that_writes_a_movie_is_refused_with_the_way_out_and_taken_once_pictures_are_named():
    with Farm() as farm:
        ann, scene = farm_without_workers(farm), farm.path("shot/film.blend")
        os.makedirs(farm.path("shot"))
        run(["blender", "--background", "--factory-startup", "-noaudio", "--python-exit-code", "1", "--python-expr",
             "import bpy; s = bpy.context.scene; s.render.image_settings.file_format = 'FFMPEG'; s.render.engine = 'CYCLES'; "
             "s.cycles.samples = 1; s.cycles.use_denoising = False; bpy.ops.wm.save_as_mainfile(filepath='%s')" % scene], farm.folder)
        answer = ann.ask("submit", scene, "-f", "1", code=2)
        check("it writes a movie (FFMPEG)" in answer.err and "film.####.png" in answer.err, answer)
        farm.worker("box1", "--slots", "1")
        out = farm.path("out")
        ann.ask("render", scene, "-f", "1", "-o", out + "/film.####.png", "--size", "32x24", code=0)
        equal(list(tree(out)), ["film.0001.png"], "what came home")


@scenario
def device_gpu_waits_for_a_worker_with_a_card_and_never_falls_back():
    with Farm() as farm:
        ann, scene = farm_without_workers(farm), shared_set(farm)
        farm.worker("box1", "--slots", "1")
        job = ann.submit(scene, "-f", "1", "-o", farm.path("out"), "--device", "gpu")
        until(lambda: "no connected worker offers any amount.worker.gpu" in ann.ask("show", job).out, "it waits and says why")
        farm.worker("box2", "--slots", "1", environment={"WESTLIGHT_NVML": NVML, "WESTLIGHT_STANDIN_CARDS": "1"})  # a card that Debian's Blender cannot use
        until(lambda: "can use none of the cards" in ann.ask("show", job).out, lambda: ann.ask("show", job).out)
        equal(farm.results(job), {}, "results")
        answer = ann.ask("submit", scene, "-f", "1", "--device", "tpu", code=2)
        check("--device tpu" in answer.err and "auto, cpu or gpu" in answer.err, answer)


@scenario
def povray_finds_includes_maps_and_libraries_in_other_folders():
    with Farm() as farm:
        ann = farm_without_workers(farm)
        scene = write(farm.path("show/shot/scene.pov"), POV)
        write(farm.path("show/parts/colours.inc"), '#declare Warm = rgb <1, 0.6, 0.2>;\n#include "../parts/more.inc"\n')
        write(farm.path("show/parts/more.inc"), "// more\n")
        write(farm.path("show/library/from_library.inc"), "#declare Radius = 0.9;\n")
        write(farm.path("show/library/unused.inc"), "x")
        os.makedirs(farm.path("show/maps"))
        run(["povray", "+I" + os.path.join(SOURCE, "tests/scenes/lighthouse/lighthouse.pov"), "+O" + farm.path("show/maps/spots.png"),
             "+W32", "+H32", "-D"], os.path.join(SOURCE, "tests/scenes/lighthouse"))
        direct = farm.path("direct")
        os.makedirs(direct)
        run(["povray", "+Iscene.pov", "+O" + direct + "/frame-", "+FN", "+W64", "+H48", "-D", "+KFI1", "+KFF4",
             "+L" + farm.path("show/library")], os.path.dirname(scene))
        options = ("-o", farm.path("out"), "--size", "64x48", "-p", "library=" + farm.path("show/library"))
        equal([os.path.relpath(path, farm.path("show")) for path in listed(ann.ask("submit", scene, "-f", "1-4", *options, "--dry-run", "--json", code=0))],
              ["library/from_library.inc", "maps/spots.png", "parts/colours.inc", "parts/more.inc", "shot/scene.pov"], "what would travel")
        all_of_it = ann.submit(scene, "-f", "1-4", *options)
        one = ann.submit(scene, "-f", "3", "--clock-range", "1-4", *options[:1], farm.path("one"), *options[2:])
        os.rename(farm.path("show"), farm.path("moved"))
        farm.worker("box1", "--slots", "1")
        ann.ask("fetch", all_of_it, "-o", farm.path("out"), "--follow", code=0)
        home, there = by_number(farm.path("out")), by_number(direct)
        equal(sorted(home), [1, 2, 3, 4], "frames")
        for frame in home:
            check(pixels(home[frame]) == pixels(there[frame]), "the pixels of frame", frame, "differ")
        ann.ask("fetch", one, "-o", farm.path("one"), "--follow", code=0)
        equal({frame: pixels(data) for frame, data in by_number(farm.path("one")).items()}, {3: pixels(there[3])}, "frame 3 alone")
        check("frame 3 alone" in ann.ask("submit", farm.path("moved/shot/scene.pov"), "-f", "3", *options[:4], "--dry-run", "-p",
                                         "library=" + farm.path("moved/library"), code=0).err, "without a clock range that is said")


@scenario
def povray_files_that_are_missing_or_named_absolutely_are_named():
    with Farm() as farm:
        ann = farm_without_workers(farm)
        there = write(farm.path("maps/there.png"), "x")
        scene = write(farm.path("shot/scene.pov"), '// #include "commented.inc"\n/* #include "also.inc" /* nested */ */\n'
                      '#include "parts/lost.inc"\nsphere { 0, 1 pigment { image_map { png "%s" } } }\n'
                      'box { 0, 1 pigment { image_map { jpeg "lost.jpg" } } }\n#debug "not a file.png"\n' % there)
        answer = ann.ask("submit", scene, "-o", farm.path("out"), code=2)
        for words in ("missing: parts/lost.inc: #include in scene.pov", "missing: %s: png in scene.pov: an absolute path" % there,
                      "missing: lost.jpg: jpeg in scene.pov"):
            check(words in answer.err, "it says", words, answer)
        check("commented" not in answer.err and "also.inc" not in answer.err and "not a file" not in answer.err, answer)


@scenario
def a_task_gets_the_files_of_its_own_frame_only_where_that_is_asked_for():
    with Farm() as farm:
        ann = farm_without_workers(farm)
        farm.worker("box1", "--no-probe", "--slots", "1")
        for frame in range(1, 6):
            write(farm.path("shot", "cache/smoke_%04d.vdb" % frame), "smoke of %d" % frame)
        write(farm.path("shot", "scene"), "x")
        ann.ask("render", farm.path("shot"), "--preset", "command", "-f", "1-5", "--chunk", "2", "-o", farm.path("out"),
                "--narrow", "cache/smoke_####.vdb", "-p", 'run=find . -type f | sort > "$OUT/$FRAME"', code=0)
        equal({name: data.decode().split() for name, data in tree(farm.path("out")).items()},
              {"1-2": ["./cache/smoke_0001.vdb", "./cache/smoke_0002.vdb", "./scene"],
               "3-4": ["./cache/smoke_0003.vdb", "./cache/smoke_0004.vdb", "./scene"],
               "5": ["./cache/smoke_0005.vdb", "./scene"]}, "what each task saw")


def blocks(folder):
    return sum(len(names) for _, _, names in os.walk(folder))


@scenario
def a_task_fetches_of_a_long_list_of_files_the_part_that_names_its_own_and_one_file_more_sends_few_blocks():
    with Farm() as farm:
        ann = farm_without_workers(farm)
        for frame in range(5_000):  # not padded: 9 comes before 10
            write(farm.path("shot", "cache/v2/smoke.%d.vdb" % frame), os.urandom(2048))
        write(farm.path("shot", "scene"), "x")
        argv = ("submit", farm.path("shot"), "--preset", "command", "-f", "9-10", "-o", farm.path("out"), "--narrow",
                "smoke.#.vdb", "--narrow", "cache/v#/smoke.#.vdb", "--narrow", "cache/v2/smoke.#.vdb", "-p", 'run=find . -type f > "$OUT/$FRAME"', "--json")
        first = ann.ask(*argv, code=0).json
        farm.worker("box1", "--no-probe", "--slots", "1")
        ann.ask("fetch", first["id"], "-o", farm.path("out"), "--follow", code=0)
        equal({name: sorted(data.decode().split()) for name, data in tree(farm.path("out")).items()},
              {str(frame): ["./cache/v2/smoke.%d.vdb" % frame, "./scene"] for frame in (9, 10)}, "files that each task saw")
        check(first["blocks"] > 30, first)  # of the list, one or two for these frames and one for the rest; as many of files
        check(blocks(farm.path("box1", "cache")) <= 6, blocks(farm.path("box1", "cache")), "blocks fetched of", first)

        write(farm.path("shot", "cache/v2/smoke.4711.tmp.vdb"), os.urandom(2048))
        again = ann.ask(*argv, code=0).json
        check(0 < again["blocks_sent"] <= 4 and first["blocks_sent"] == first["blocks"], again)


if __name__ == "__main__":
    main()
