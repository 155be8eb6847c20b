"""Which renderer runs a job, what becomes of a missing licence, and which pictures count."""
import gzip
import os
import re
import struct
import subprocess
import zlib

from farm import Farm, check, equal, lines, main, scenario, tree, until, write
from png import pixels

BLEND = """import bpy, sys
bpy.ops.wm.read_factory_settings(use_empty=True)
scene = bpy.context.scene
bpy.ops.mesh.primitive_cube_add()
bpy.ops.object.light_add(type='SUN', rotation=(0.6, 0.3, 0))
bpy.ops.object.camera_add(location=(0, -6, 0), rotation=(1.57, 0, 0))
scene.camera = bpy.context.object
scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = 'CYCLES', 1, False
scene.render.image_settings.file_format = 'PNG'
bpy.ops.wm.save_as_mainfile(filepath=sys.argv[-1], compress=True)
"""
# The installed Blender under another version's name; what it renders carries its mark.
BLENDER = """#!/bin/sh
[ "$1" = --version ] && { echo "Blender %(version)s"; exit 0; }
%(real)s "$@" || exit
while [ "$1" != -- ]; do shift; done
echo "%(version)s $MARK" > "$2/mark.$3"
"""
# Two scenes that denoise: cycles.blend when it is rendered, node.blend in its compositor; the frames
# of both without that, and of node.blend as this Blender makes it.
DENOISED = BLEND.replace(", compress=True", "").rsplit("bpy.ops", 1)[0] + """
import _cycles
print("has the denoiser:", _cycles.with_openimagedenoise)
folder = sys.argv[-1]
scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = 40, 30, 100
def frame(name):
    scene.render.filepath = folder + '/direct/' + name + '.png'
    bpy.ops.render.render(write_still=True)
frame('cycles')
scene.cycles.use_denoising = True
bpy.ops.wm.save_as_mainfile(filepath=folder + '/cycles.blend')
scene.cycles.use_denoising, scene.use_nodes = False, True
nodes, links = scene.node_tree.nodes, scene.node_tree.links
nodes.clear()
layers, end = nodes.new('CompositorNodeRLayers'), nodes.new('CompositorNodeComposite')
bright, group = nodes.new('CompositorNodeBrightContrast'), nodes.new('CompositorNodeGroup')
bright.inputs['Bright'].default_value = 5
tree = group.node_tree = bpy.data.node_groups.new('clean', 'CompositorNodeTree')
tree.inputs.new('NodeSocketColor', 'Image')
tree.outputs.new('NodeSocketColor', 'Image')
first, denoise, last = (tree.nodes.new(kind) for kind in ('NodeGroupInput', 'CompositorNodeDenoise', 'NodeGroupOutput'))
tree.links.new(first.outputs[0], denoise.inputs['Image'])
tree.links.new(denoise.outputs[0], last.inputs[0])
chain = (layers, group, bright, end)
for a, b in zip(chain, chain[1:]):
    links.new(a.outputs['Image'], b.inputs['Image'])
bpy.ops.wm.save_as_mainfile(filepath=folder + '/node.blend')
frame('node')
loose = nodes.new('CompositorNodeDenoise')  # leads nowhere
links.new(layers.outputs['Image'], loose.inputs['Image'])
group.mute = True
scene.cycles.use_denoising, scene.view_layers[0].cycles.use_denoising = True, False
bpy.ops.wm.save_as_mainfile(filepath=folder + '/off.blend')
other = bpy.data.scenes.new('other')
other.camera, other.render.engine, other.cycles.use_denoising = scene.camera, 'CYCLES', True
layers.scene = other
bpy.ops.wm.save_as_mainfile(filepath=folder + '/layers.blend')
scene.use_nodes = False
scene.sequence_editor_create().sequences.new_scene('strip', other, 1, 1)
bpy.ops.wm.save_as_mainfile(filepath=folder + '/strip.blend')
"""
# The installed Blender, made to say that it has the denoiser.
DENOISER = """#!/bin/sh
exec %s --python-expr 'import _cycles; _cycles.with_openimagedenoise = True' "$@"
"""
# A renderer that copies the picture lying ready for its node and frame, `.none`: none, else a good
# one. Others wait until the bad one has had its go. Called by the preset: ... -- OUT FRAMES ...
COPIER = """#!/bin/sh
[ "$1" = --version ] && { echo "Blender 3.4.1"; exit 0; }
while [ "$1" != -- ]; do shift; done
plates=%(plates)s
case $3 in *-*) frames="$(seq "${3%%%%-*}" "${3#*-}")" ;; *) frames=$3 ;; esac
for frame in $frames; do
    planted=$plates/$NODE.$frame
    while [ "$NODE" != bad1 ] && ls $plates/bad1.* >/dev/null 2>&1 && [ ! -e $plates/go ]; do sleep 0.02; done
    if [ -e $planted.png ]; then cp $planted.png "$2/shot.$frame.png"; : > $plates/go
    elif [ -e $planted.none ]; then : > $plates/go
    else cp $plates/good.png "$2/shot.$frame.png"; fi
done
"""


def picture(width, height, level):
    """A PNG of one grey."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    rows = zlib.compress((b"\0" + bytes([level]) * width) * height)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) +
            chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def declare(farm, node, **programs):
    """A worker with these softwares and nothing else: name_1_2_3=(path, variables)."""
    text = ""
    for word, (path, variables) in programs.items():
        name, *version = word.split("_")
        text += "[%s %s]\ncommand = %s\n" % (name, ".".join(version), path)
        text += "".join("env %s = %s\n" % item for item in variables.items()) + "\n"
    return farm.worker(node, "--no-probe", "--slots", "1", "--cores", "2", "--prefetch", "0",
                       "--software", write(farm.path(node + ".software"), text))


def installed_blender():
    return subprocess.run(["sh", "-c", "command -v blender"], capture_output=True, text=True, check=True).stdout.strip()


def script(farm, name, text):
    return write(farm.path("opt", name), text, 0o755)


@scenario
def a_bad_software_file_is_refused_at_the_start_with_its_line():
    with Farm() as farm:
        farm.start_broker()
        write(farm.path("box1", "software"), "# ours\n[blender 4.0]\ncommand = blender\n")
        worker = farm.worker("box1", "--no-probe")
        until(lambda: not worker.alive(), "the worker ends")
        equal(worker.popen.returncode, 1, "exit code")
        check("box1/software:3: command \"blender\": not an absolute path: begin it with /" in worker.log(), worker.log())


@scenario
def two_blenders_side_by_side_and_each_job_runs_one_of_them_only():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        real = installed_blender()
        versions = ("3.4.9", "4.0.2", "3.10.0")
        paths = {version: script(farm, "blender-" + version, BLENDER % {"version": version, "real": real}) for version in versions}
        for node in ("box1", "box2"):
            declare(farm, node, **{"blender_" + version.replace(".", "_"): (paths[version], {"MARK": "m" + version})
                                   for version in versions})
        scene = farm.path("shot", "cube.blend")
        os.makedirs(os.path.dirname(scene))
        farm.run("blender", "--background", "--factory-startup", "-noaudio", "--python-exit-code", "1", "--python",
                 write(farm.path("make.py"), BLEND), "--", scene)
        until(lambda: ann.ask("software", code=0).out.split() == ["blender", "3.4.9", "3.10.0", "4.0.2"],
              lambda: "the farm offers three versions: %s" % ann.ask("software"))
        for wanted, options, said in (("3.4.9", (), "blender 3.4.9: the version that saved the scene\n"),
                                      ("4.0.2", ("--software", "blender=4.0.2"), "blender 4.0.2: as asked\n")):
            out = farm.path("out" + wanted)
            answer = ann.ask("render", scene, "-f", "1-2", "-o", out, "--size", "40x30", *options, code=0)
            check(said in answer.out, "it is said:", answer)
            home = tree(out)
            equal({name: data for name, data in home.items() if name.startswith("mark")},
                  {"mark.%d" % frame: ("%s m%s\n" % (wanted, wanted)).encode() for frame in (1, 2)}, "who rendered")
            equal({pixels(data)[:2] for name, data in home.items() if name.endswith(".png")}, {(40, 30)}, "sizes")
            workers = farm.rows("SELECT DISTINCT worker FROM attempts WHERE job = ?", bytes.fromhex(answer.id))
            equal(len(workers), 2, "workers that took part")
            shown = ann.ask("show", answer.id).out
            check("software blender %s\n" % wanted in shown, "show names it:", shown)


@scenario
def a_scene_that_denoises_waits_for_a_blender_that_can_and_renders_without_where_asked():
    with Farm() as farm:
        farm.start_broker()
        ann, ops, shot = farm.person("ann"), farm.person("ops", role="operator", studio=None), farm.path("shot")
        made = farm.run("blender", "--background", "--factory-startup", "-noaudio", "--python-exit-code", "1", "--python",
                        write(farm.path("make.py"), DENOISED), "--", shot)
        if "has the denoiser: True" in made.stdout:
            return print("skipped: the installed Blender has the denoiser, and none can stand in for one without")
        direct = {name[:-4]: pixels(data) for name, data in tree(os.path.join(shot, "direct")).items()}
        check(direct["cycles"] != direct["node"], "the compositor changes the picture")
        with open(os.path.join(shot, "cycles.blend"), "rb") as plain:  # as Blender packed until 2.93
            packed = gzip.compress(plain.read(), 1)
        write(os.path.join(shot, "cycles.blend"), packed)
        declare(farm, "box1", blender_3_4_1=(installed_blender(), {}))
        until(lambda: "blender" in ann.ask("software").out, "the worker is there")

        jobs, said = {}, "the scene denoises: only workers whose blender 3.4.1 has the denoiser render it; -p denoise=no renders without"
        for name in ("cycles", "node"):
            scene = os.path.join(shot, name + ".blend")
            answer = ann.ask("submit", scene, "-f", "1", "-o", farm.path("out", name), code=0)
            check("blender 3.4.1: the version that saved the scene\n" + said in answer.out, answer)
            jobs[name] = answer.id
            equal(ann.show(answer.id)["phase"], "waiting", name)
            shown = ann.ask("show", answer.id).out
            check("no connected worker has a Blender 3.4.1 with the denoiser, which the scene uses" in shown, shown)
            answer = ann.ask("render", scene, "-f", "1", "-o", farm.path("without", name), "-p", "denoise=no", code=0)
            check("denoiser" not in answer.out, answer)
            equal({path: pixels(data) for path, data in tree(farm.path("without", name)).items()},
                  {name + ".0001.png": direct[name]}, name + " without")
        for name, asks in (("off", False), ("layers", True), ("strip", True)):
            answer = ann.ask("submit", os.path.join(shot, name + ".blend"), "-f", "1", "-o", farm.path(name), code=0)
            equal(said in answer.out, asks, name)
            ann.ask("cancel", answer.id, code=0)
        check("choose auto, yes or no" in ann.ask("submit", scene, "-p", "denoise=off", code=2).err, "a typo is named")

        # Who has no Blender at home is told what cannot be seen, and may say it.
        path, ann.env["PATH"] = ann.env["PATH"], "/nonexistent"
        answer = ann.ask("render", scene, "-f", "1", "-o", farm.path("blind"), code=1)
        check("nor can it be seen whether it denoises: say -p denoise=yes" in answer.err, answer)
        check("box1: blender exited with 1: the scene denoises, and this Blender was built without the denoiser" in answer.err, answer)
        answer = ann.ask("submit", scene, "-f", "1", "-o", farm.path("blind"), "-p", "denoise=yes", code=0)
        equal(ann.show(answer.id)["phase"], "waiting", "what was said")
        ann.env["PATH"] = path

        for job in (answer.id, jobs["cycles"]):
            ann.ask("cancel", job, code=0)
        declare(farm, "box2", blender_3_4_1=(script(farm, "denoiser", DENOISER % installed_blender()), {}))
        ann.wait_counts(jobs["node"], done=1)
        offers = {worker["name"]: (worker["done"], [a for a in worker["attributes"] if "denoiser" in a])
                  for worker in ops.ask("workers", "--json", code=0).json}
        equal(offers["box2"], (1, ["attr.blender.denoiser=3.4.1"]), "who says to have it, and took it")
        equal(offers["box1"][1], [], "who does not")
        check("blender.denoiser=3.4.1" in ops.ask("workers").out, "the table names it")
        ann.ask("fetch", jobs["node"], code=0)
        equal({path: pixels(data) for path, data in tree(farm.path("out", "node")).items()}, {"node.0001.png": direct["node"]}, "fetched")


@scenario
def scripts_find_the_pinned_version_first_in_path_and_an_unknown_one_waits_and_says_why():
    with Farm() as farm:
        farm.start_broker()
        ann = farm.person("ann")
        tool = {n: (script(farm, "tool-%d" % n, '#!/bin/sh\necho tool %d $MARK "$@"\n' % n), {"MARK": "m%d" % n}) for n in (1, 2)}
        declare(farm, "box1", tool_1=tool[1], tool_2=tool[2])
        write(farm.path("shot", "input"), "x")
        until(lambda: "tool" in ann.ask("software").out, "the worker is there")
        argv = ["render", farm.path("shot"), "--preset", "command", "-f", "1-2", "-p", 'run=tool $FRAME > "$OUT/f.$FRAME"']
        for options, wanted in ((("--software", "tool=1"), 1), (("--software", "tool"), 2)):
            out = farm.path("out%d" % wanted)
            ann.ask(*argv, "-o", out, *options, code=0)
            equal(tree(out), {"f.%d" % i: b"tool %d m%d %d\n" % (wanted, wanted, i) for i in (1, 2)}, "who ran")
        answer = ann.ask("submit", *argv[1:], "-o", farm.path("out3"), "--software", "tool=3", code=0)
        check("tool 3: as asked, but no connected worker offers it (they offer 1, 2): the job waits" in answer.err, answer)
        equal(ann.counts(answer.id)["ready"], 2, "tasks that wait")
        check("no connected worker has attr.software.tool 3" in ann.ask("show", answer.id).out, ann.ask("show", answer.id))
        ann.ask("cancel", answer.id, code=0)
        ann.ask(*argv, "-o", out, "-p", "version=1", code=2)  # of what?
        # A worker that offers what it does not have: the task fails, and nothing stands in.
        farm.worker("box2", "--no-probe", "--offer", "attr.software.tool=4")
        until(lambda: " 4" in ann.ask("software").out, "the other worker is there")
        answer = ann.ask(*argv, "-o", farm.path("out4"), "--software", "tool=4", code=1)
        check("missing input on box2: tool 4 is not on this worker, and no other version may stand in" in answer.err, answer)
        equal(tree(farm.path("out4")), {}, "files home")


@scenario
def a_missing_licence_backs_off_and_the_job_completes_without_a_failed_task():
    with Farm() as farm:
        farm.start_broker("--licence-seconds", "1")
        ann = farm.person("ann")
        declare(farm, "box1", ray_1=(script(farm, "ray", '#!/bin/sh\necho x >> %(tries)s\n'
                '[ $(wc -l < %(tries)s) -gt 2 ] && { echo done > "$OUT/f.$FRAME"; exit 0; }\n'
                'echo "error: Could not obtain a license (10). [HTTP connection timeout]"; exit 3\n' % {"tries": farm.path("tries")}), {}))
        write(farm.path("shot", "input"), "x")
        job = ann.submit(farm.path("shot"), "--preset", "command", "-f", "7", "-o", farm.path("out"), "-p", "run=ray", "--software", "ray")
        until(lambda: len(lines(farm.path("tries"))) == 1, "it is tried")
        check("waits for a licence" in until(lambda: ann.show(job)["steps"][0]["why"], "a reason"), ann.show(job))
        ann.ask("fetch", job, "--follow", "-o", farm.path("home"), code=0)
        equal(tree(farm.path("home")), {"f.7": b"done\n"}, "files home")
        equal([row[5] for row in farm.attempts(job)], [3, 3, 0], "classes of the attempts: twice no licence, then ok")
        waits = farm.rows("SELECT wall_s FROM attempts ORDER BY sequence")
        check(waits[2][0] - waits[1][0] >= 1, "the second wait is longer than a second:", waits)
        equal(ann.counts(job)["failed"], 0, "failed tasks")


@scenario
def broken_and_missing_pictures_are_caught_shown_and_rendered_again_elsewhere():
    with Farm() as farm:
        farm.start_broker()
        ann, plates = farm.person("ann"), farm.path("plates")
        copier, good = script(farm, "copier", COPIER % {"plates": plates}), picture(40, 30, 200)
        write(os.path.join(plates, "good.png"), good)
        scene = write(farm.path("shot", "cube.blend"), "BLENDER-v304RENDH")
        ann.env["PATH"] = "/nonexistent"  # no Blender at the studio: it could not open this one
        for node in ("bad1", "good1"):
            declare(farm, node, blender_3_4_1=(copier, {"NODE": node}))
        until(lambda: all("joined" in process.log() for process in farm.processes[1:]), "two workers are there")
        for what, options, ending, plate, said in (
                ("cut short", (), "png", good[:-20], ".png is broken: it ends too soon, after %d bytes" % (len(good) - 20)),
                ("wrong size", (), "png", picture(20, 15, 9), ".png is 20x15, not 40x30 as asked"),
                ("short chunk", ("--chunk", "2"), "none", b"", "1 picture for 2 frames: the renderer left some out"),
                ("black", ("-p", "check=fail"), "png", picture(40, 30, 0), ".png is all black")):
            planted = [write(os.path.join(plates, "bad1.%d.%s" % (frame, ending)), plate) for frame in (2, 4)]
            job = ann.submit(scene, "-f", "1-4", "-o", farm.path("out"), "--size", "40x30", *options)
            ann.ask("fetch", job, "--follow", "--force", "-o", farm.path("home"), code=0)
            equal(tree(farm.path("home")), {"shot.%d.png" % frame: good for frame in range(1, 5)}, what + ": pictures home")
            equal({row[5] for row in farm.attempts(job)}, {0, 10}, what + ": classes of the attempts: ok, bad output")
            shown = ann.ask("show", job, code=0).out
            check(re.search("last fault .*: bad output on bad1: .*" + re.escape(said), shown), what, shown)
            for path in (*planted, os.path.join(plates, "go")):
                os.unlink(path)


@scenario
def a_black_frame_comes_home_with_a_warning_that_show_and_the_log_tell():
    with Farm() as farm:
        farm.start_broker()
        ann, plates = farm.person("ann"), farm.path("plates")
        write(os.path.join(plates, "good.png"), picture(40, 30, 200))
        write(os.path.join(plates, "box1.2.png"), picture(40, 30, 0))
        declare(farm, "box1", blender_3_4_1=(script(farm, "copier", COPIER % {"plates": plates}), {"NODE": "box1"}))
        scene = write(farm.path("shot", "cube.blend"), "BLENDER-v304RENDH")
        ann.env["PATH"] = "/nonexistent"  # no Blender at the studio: it could not open this one
        answer = ann.ask("render", scene, "-f", "1-3", "-o", farm.path("out"), code=0)
        equal(sorted(tree(farm.path("out"))), ["shot.1.png", "shot.2.png", "shot.3.png"], "pictures home")
        check("warning: frame 2 on box1: shot.2.png is all black" in answer.text, answer)
        check("warning    frame 2 on box1: shot.2.png is all black\n" in ann.ask("show", answer.id).out, "show tells")
        equal(ann.show(answer.id)["warnings"], [{"task": "frame 2", "worker": "box1", "message": "shot.2.png is all black"}], "warnings")
        check("westlight: warning: shot.2.png is all black\n" in ann.ask("log", answer.id, "-f", "2", code=0).out, "the log tells")
        os.unlink(os.path.join(plates, "box1.2.png"))
        ann.ask("retry", answer.id, "-f", "2", code=0)
        ann.wait_counts(answer.id, done=3)
        equal(ann.show(answer.id)["warnings"], [], "warnings of what counts now")
        job = ann.ask("render", scene, "-f", "2", "-o", farm.path("out2"), "-p", "check=off", code=0).id
        equal(ann.show(job)["warnings"], [], "warnings where nothing is looked at")


if __name__ == "__main__":
    main()
