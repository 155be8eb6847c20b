"""A frame in tiles is the frame: sample for sample what the renderer makes of it in one piece, whoever
rendered which tile, and whatever failed on the way.

--full renders sizes of production (minutes).
"""
import os
import struct
import sys
import zlib

from farm import SOURCE, Farm, check, equal, main, read, run, scenario, tree, until, write
from png import pixels

POV = """#version 3.7;
global_settings { assumed_gamma 1.0 }
camera { location <0, 2, -6> look_at <0, 0.5, 0> right x * image_width / image_height }
light_source { <5, 8, -6> rgb 1 }
plane { y, 0 pigment { checker rgb 1 rgb 0.1 scale 0.3 } finish { reflection 0.2 } }
sphere { <2 * cos(clock * 6.2832), 1, 2 * sin(clock * 6.2832)>, 1 pigment { rgb <1, 0.3, 0.1> } finish { phong 0.8 reflection 0.3 } }
"""
# Passes of every kind in one file, 16 and 32 bits; what may not be cut in tiles beside it, by name.
BLEND = """import bpy, sys
bpy.ops.wm.open_mainfile(filepath=sys.argv[-1])
scene, folder = bpy.context.scene, sys.argv[-1].rsplit('/', 1)[0]
layer = scene.view_layers[0]
for name in ('z', 'normal', 'mist', 'vector', 'cryptomatte_object', 'diffuse_direct', 'object_index'):
    setattr(layer, 'use_pass_' + name, True)
scene.cycles.samples = 3
scene.render.image_settings.file_format = 'OPEN_EXR_MULTILAYER'
scene.render.image_settings.color_depth = '32'
other = scene.view_layers.new('far')
other.use_pass_z = True
bpy.ops.wm.save_as_mainfile(filepath=folder + '/layers.blend')
scene.view_layers.remove(other)
scene.render.image_settings.file_format = 'PNG'
scene.cycles.use_adaptive_sampling = scene.cycles.use_denoising = True
scene.use_nodes = True
blur = scene.node_tree.nodes.new('CompositorNodeBlur')
layers, end = (next(n for n in scene.node_tree.nodes if n.type == kind) for kind in ('R_LAYERS', 'COMPOSITE'))
scene.node_tree.links.new(layers.outputs[0], blur.inputs[0])
scene.node_tree.links.new(blur.outputs[0], end.inputs[0])
bpy.ops.wm.save_as_mainfile(filepath=folder + '/looks_around.blend')
scene.use_nodes, scene.render.engine = False, 'BLENDER_EEVEE'
bpy.ops.wm.save_as_mainfile(filepath=folder + '/eevee.blend')
"""
# The installed POV-Ray, which says what it renders, and cannot render one tile while a file is there.
FRAGILE = """#!/bin/sh
case "$*" in *--version*) exec %(real)s "$@" ;; esac
echo "$*" >> %(starts)s
case "$*" in *"+SC33 "*"+SR1 "*"+SF2 "*) [ ! -e %(broken)s ] || { echo "the disk with the textures is gone"; exit 1; } ;; esac
exec %(real)s "$@"
"""
TIMES = {"Date", "Time", "RenderTime", "creation"}  # and Cycles' own, which end in _time


def header(data):
    """Attributes of an OpenEXR file of one part, and where its table begins."""
    at, found = 8, {}
    while data[at]:
        name = data[at:data.index(0, at)]
        at += len(name) + 1
        kind = data[at:data.index(0, at)]
        at += len(kind) + 1
        size, = struct.unpack("<I", data[at:at + 4])
        found[name.decode()] = (kind.decode(), data[at + 4:at + 4 + size])
        at += 4 + size
    return found, at + 1


def channel_list(packed):
    at, found = 0, []
    while packed[at]:
        name = packed[at:packed.index(0, at)]
        at += len(name) + 1
        found.append((name.decode(), 2 if packed[at] == 1 else 4))
        at += 16
    return found


def unzipped(packed, size):
    """OpenEXR's ZIP: the differences of bytes, those of even places first."""
    if len(packed) == size:
        return packed
    data = bytearray(zlib.decompress(packed))
    for i in range(1, len(data)):
        data[i] = (data[i - 1] + data[i] - 128) & 255
    out = bytearray(len(data))
    out[0::2], out[1::2] = data[:(len(data) + 1) // 2], data[(len(data) + 1) // 2:]
    return bytes(out)


def exr(data):
    """(attributes but for times, {channel: rows}) of scan lines packed by ZIP or not at all."""
    found, at = header(data)
    x0, y0, x1, y1 = struct.unpack("<4i", found["dataWindow"][1])
    compression = found["compression"][1][0]
    check(compression in (0, 2, 3), "the test reads no compression", compression)
    step, channels, rows = 16 if compression == 3 else 1, channel_list(found["channels"][1]), {}
    chunks = (y1 - y0) // step + 1
    for offset in struct.unpack("<%dQ" % chunks, data[at:at + 8 * chunks]):
        y, size = struct.unpack("<ii", data[offset:offset + 8])
        n, width = min(step, y1 - y + 1), x1 - x0 + 1
        packed, k = unzipped(data[offset + 8:offset + 8 + size], n * width * sum(b for _, b in channels)), 0
        for line in range(y, y + n):
            for name, size in channels:
                rows.setdefault(name, {})[line] = packed[k:k + width * size]
                k += width * size
    # OpenEXRCore says of every part what kind it is; that of one with scan lines goes without saying.
    check(found.pop("type", ("string", b"scanlineimage"))[1] == b"scanlineimage", "a type")
    return {name: value for name, value in found.items() if name not in TIMES and not name.endswith("_time")}, rows


def two_workers(farm, *options):
    farm.start_broker()
    for name in ("box1", "box2"):
        farm.worker(name, "--slots", "1", "--cores", "1", *options)
    return farm.person("ann")


def povray(scene, to, size, frames, *options):
    """As POV-Ray alone renders it."""
    os.makedirs(to, exist_ok=True)
    run(["povray", "+I" + os.path.basename(scene), "+O" + to + "/f.png", "+W%d" % size[0], "+H%d" % size[1], "-D",
         "+KFI1", "+KFF%d" % max(frames, 2), "+EF%d" % frames, *options], os.path.dirname(scene))


def same_as_povray(farm, ann, size, tiles, *argv, frames=2, options=()):
    scene, out, direct = write(farm.path("shot", "ball.pov"), POV), farm.path("out" + tiles), farm.path("direct" + tiles)
    povray(scene, direct, size, frames, *options)
    answer = ann.ask("render", scene, "-f", "1-%d" % frames, "--size", "%dx%d" % size, "-o", out + "/f.##.png", "--tiles", tiles,
                     *argv, code=0, seconds=1200)
    home, alone = tree(out), tree(direct)
    equal(sorted(home), ["f.%02d.png" % i for i in range(1, frames + 1)], "files that came home")
    for i in range(1, frames + 1):
        whole = pixels(alone["f%d.png" % i])
        check(len(set(whole[-1])) > 10, "the picture is all one colour")
        check(pixels(home["f.%02d.png" % i]) == whole, "the pixels of frame %d differ" % i)
    return answer


@scenario
def povray_tiles_join_to_the_frame_that_povray_renders_whole():
    with Farm() as farm:
        ann = two_workers(farm)
        answer = same_as_povray(farm, ann, (190, 91), "3x2", "-p", "antialias=0.1", options=("+A0.1",))
        check("accepted: 2 frames in 14 tasks" in answer.out and "2 of 2 tasks home: 2 files" in answer.out, answer)
        shown = ann.show(answer.id)
        equal([(step["name"], step["counts"]["done"], step["frames_done"]) for step in shown["steps"]],
              [("tiles", 12, "1-2"), ("assemble", 2, "1-2")], "steps")
        equal((shown["phase"], shown["delivered"]), ("done", 14), "all of it is delivered")
        # Again, elsewhere: only frames come, and what is home is not written anew.
        ann.ask("fetch", answer.id, "-o", farm.path("again"), code=0)
        equal(tree(farm.path("again")), tree(farm.path("out3x2")), "what fetch brings")
        ann.ask("resubmit", answer.id, "-f", "2", "--name", "second", code=0)
        again = ann.ask("fetch", "last", "-o", farm.path("second"), "--follow", code=0)
        equal(tree(farm.path("second")).keys(), {"f.02.png"}, again)


@scenario
def odd_sizes_16_bits_and_alpha_join_as_well():
    with Farm() as farm:
        ann = two_workers(farm)
        scene = farm.path("shot", "still.ini")
        write(farm.path("shot", "ball.pov"), POV)
        write(scene, "Input_File_Name=ball.pov\nWidth=131\nHeight = 127\nOutput_Alpha=on\n+A0.2\n")
        ann.ask("render", scene, "-o", farm.path("out", "still.png"), "--tiles", "2x3", "-p", "format=png16", code=0)
        run(["povray", "still.ini", "+O" + farm.path("direct.png"), "+FN16", "-D"], farm.path("shot"))
        got, wanted = pixels(read(farm.path("out", "still.png"))), pixels(read(farm.path("direct.png")))
        equal(got[:4], (131, 127, 16, 6), "size, bits and kind")
        check(got == wanted, "pixels differ")


@scenario
def a_tile_that_fails_is_named_and_a_frame_is_retried_as_a_whole():
    with Farm() as farm:
        bin_folder, starts, broken = farm.path("bin"), farm.path("starts"), write(farm.path("broken"), "")
        real = farm.run("sh", "-c", "command -v povray").stdout.strip()
        write(bin_folder + "/povray", FRAGILE % {"real": real, "starts": starts, "broken": broken}, 0o755)
        farm.start_broker()
        for name in ("box1", "box2"):
            farm.worker(name, "--slots", "1", "--cores", "1", path=bin_folder + ":" + os.environ["PATH"])
        ann, scene, out = farm.person("ann"), write(farm.path("shot", "ball.pov"), POV), farm.path("out")
        job = ann.submit(scene, "-f", "1-3", "--clock-range", "1-4", "--size", "96x64", "--tiles", "2x2", "-o", out)
        ann.wait_counts(job, failed=1, done=3 * 4 - 1 + 2)
        shown = ann.show(job)
        equal([(step["frames_done"], step["frames_failed"]) for step in shown["steps"]], [("1,3", "2"), ("1,3", "")], "frames done and failed")
        text = ann.ask("show", job, code=0).out
        check("last fault frame 2, tile 2 of 4: " in text, text)
        for argv in (("-f", "2"), ("-f", "2", "--tile", "2")):
            check("the disk with the textures is gone" in ann.ask("log", job, *argv, code=0).out, argv)
        check("disk" not in ann.ask("log", job, "-f", "2", "--tile", "1", code=0).out, "the first tile ended well")
        check("has 4 tiles" in ann.ask("log", job, "-f", "2", "--tile", "5", code=2).err, "there is no fifth")
        ann.ask("fetch", job, "-o", out)
        equal(sorted(tree(out)), ["ball.0001.png", "ball.0003.png"], "what is home")
        os.unlink(broken)
        ann.ask("retry", job, code=0)  # what failed, and what waits for it
        ann.wait_counts(job, done=15)
        ann.ask("fetch", job, "-o", out, code=0)
        equal(sorted(tree(out)), ["ball.%04d.png" % i for i in (1, 2, 3)], "what is home")
        count = len(read(starts).decode().splitlines())
        check("5 tasks" in ann.ask("retry", job, "-f", "3", code=0).out, "four tiles and the frame")
        until(lambda: len(read(starts).decode().splitlines()) == count + 4 and ann.counts(job)["done"] == 15, "frame 3 is rendered again")
        equal({key: n for key, n in farm.results(job).items() if n != 1}, {}, "results of one floor")
        # More frames than it had.
        ann.ask("set", job, "-f", "1-4", code=0)
        ann.ask("fetch", job, "-o", out, "--follow", code=0)
        equal(sorted(tree(out)), ["ball.%04d.png" % i for i in (1, 2, 3, 4)], "what is home")


def blend_scenes(farm):
    folder = farm.path("blend")
    os.makedirs(folder)
    for script, text in ((os.path.join(SOURCE, "tests/scenes/turntable/make_blend.py"), None), (farm.path("more.py"), BLEND)):
        if text:
            write(script, text)
        run(["blender", "--background", "--factory-startup", "-noaudio", "--python-exit-code", "1", "--python", script, "--",
             folder + "/turntable.blend"], farm.folder)
    return folder


def same_as_blender(farm, ann, scene, size, tiles):
    """Every channel of every layer, and all that is said of the picture but times. One thread each: with
    several Blender sums up smooth normals in any order, and is not the same as itself in the last bit."""
    out, direct = farm.path("layers" + tiles), farm.path("whole" + tiles)
    ann.ask("render", scene, "-f", "3", "--size", "%dx%d" % size, "-o", out, "--tiles", tiles, code=0, seconds=3000)
    run(["blender", "--background", "-noaudio", scene, "--threads", "1", "--python-exit-code", "1", "--python-expr",
         "import bpy; r = bpy.context.scene.render; r.resolution_x, r.resolution_y = %d, %d" % size,
         "--render-output", direct + "/turntable.####", "--render-frame", "3"], farm.folder)
    home, whole = exr(read(out + "/layers.0003.exr")), exr(read(direct + "/turntable.0003.exr"))
    equal(sorted(tree(out)), ["layers.0003.exr"], "files that came home")
    home[0].pop("File"), whole[0].pop("File")  # where the scene lies
    equal(home[0], whole[0], "attributes")
    equal(sorted(home[1]), sorted(whole[1]), "channels")
    check(len(whole[1]) > 30, "these are few channels:", sorted(whole[1]))
    check(sum(len(set(rows.values())) > 1 for rows in whole[1].values()) > 20, "most channels are all one value")
    for name, rows in whole[1].items():
        equal([y for y in rows if rows[y] != home[1][name][y]], [], "rows of %s that differ" % name)


@scenario
def blender_tiles_of_many_layers_join_channel_for_channel():
    with Farm() as farm:
        ann, folder = two_workers(farm), blend_scenes(farm)
        same_as_blender(farm, ann, folder + "/layers.blend", (97, 61), "2x2")
        for name, reasons in (("looks_around", ("denoises", "adaptive sampling", "compositor")), ("eevee", ("BLENDER_EEVEE",))):
            answer = ann.ask("submit", "%s/%s.blend" % (folder, name), "-f", "1", "--tiles", "2x2", code=2)
            for reason in reasons:
                check(reason in answer.err, reason, answer)
        # Where nobody could look before, the worker does.
        blind = dict(ann.env, WESTLIGHT_BLENDER=farm.path("nowhere"))
        ann.env, env = blind, ann.env
        answer = ann.ask("submit", folder + "/eevee.blend", "-f", "1", "--size", "32x32", "--tiles", "2x2", code=2)
        check(".png or .exr" in answer.err, answer)
        job = ann.submit(folder + "/eevee.blend", "-f", "1", "--size", "32x32", "--tiles", "1x1", "-o", farm.path("e.##.png"))
        ann.env = env
        ann.wait_counts(job, failed=1)
        check("would not be the frame: it is rendered by BLENDER_EEVEE" in ann.ask("show", job, code=0).out, "why")


@scenario
def what_would_not_be_the_frame_is_refused_with_the_reason():
    with Farm() as farm:
        ann, shot = two_workers(farm, "--no-probe"), farm.path("shot")
        scene = write(shot + "/ball.pov", POV)
        for name, what in (("radiosity", "global_settings { radiosity { count 9 } }"), ("crand", "sphere { 9, 1 finish { crand 0.1 } }"),
                           ("jitter", "light_source { 9 rgb 1 area_light x, y, 2, 2 jitter }")):
            where = write(shot + "/%s.pov" % name, '#include "%s.inc"\n' % name)
            write(shot + "/%s.inc" % name, POV + what)
            answer = ann.ask("submit", where, "--size", "96x64", "--tiles", "2x2", code=2)
            check("it uses " + name in answer.err and "--tiles-anyway" in answer.err, answer)
            answer = ann.ask("submit", where, "--size", "96x64", "--tiles", "2x2", "--tiles-anyway", code=0)
            check("it uses " + name in answer.err, answer)
        for words, argv in (("add --size", ()), ("leave --chunk 2 out", ("--size", "96x64", "--chunk", "2", "-f", "1-4")),
                            ("3x2 tiles at most", ("--size", "96x64", "--tiles", "4x2")), (".png or .exr", ("--size", "96x64", "-o", "a.jpg")),
                            ("write COLUMNSxROWS", ("--tiles", "4")), ("at most 256", ("--tiles", "17x16"))):
            check(words in ann.ask("submit", scene, "--tiles", "2x2", *argv, code=2).err, words)
        equal(len(ann.ask("jobs", "--all", "--json", code=0).json), 3, "jobs accepted")
        answer = ann.ask("submit", shot, "--preset", "command", "-p", "run=true", "--tiles", "2x2", code=2)
        check("renders no tiles" in answer.err, answer)


def production_sizes_join():
    with Farm() as farm:
        ann, folder = two_workers(farm), blend_scenes(farm)
        for tiles in ("7x5", "4x4"):
            same_as_povray(farm, ann, (1919, 1081), tiles, "-p", "antialias=0.1", frames=1, options=("+A0.1",))
            same_as_blender(farm, ann, folder + "/layers.blend", (1919, 1081), tiles)


if "--full" in sys.argv:
    sys.argv.remove("--full")
    scenario(production_sizes_join)

main()
