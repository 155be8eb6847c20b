"""Scenes that nobody here wrote: POV-Ray's own examples, through the farm and directly, pixel by
pixel. `python3 examples.py --all` renders every one and prints a table of those that differ."""
import glob
import os
import subprocess
import sys

from farm import Farm, check, equal, main, scenario, tree
from png import pixels

EXAMPLES = "/usr/share/doc/povray/examples"
SIZE = (64, 48)
STILLS = """advanced/teapot/teapot.pov advanced/blocks/stackertransp.pov advanced/object_pattern.pov advanced/sunsethf.pov
advanced/desk/desk.pov advanced/wineglass.pov camera/focalblur.pov camera/mesh_camera/meshcam_persp_demo.pov
incdemo/metals/golds.pov incdemo/glasses/glass.pov interior/fog_f.pov interior/media/hollow1.pov
language/arrays/array1.pov language/macros/macro2.pov language/fileio/fileio.pov lights/circular.pov lights/laser.pov
objects/bezier.pov objects/blob.pov objects/mesh2.pov radiosity/cornell.pov templates/Basic_Scenes/DarkBlueSky_Axes.pov""".split()
ANIMATIONS = ["animations/float1/float1.ini", "animations/vect1/vect1.ini", "animations/splinefollow/splinefollow.ini"]


def direct(scene, out, *options, seconds=60):
    """Renders as a person would: in the scene's folder, on one thread as the worker's leases have it, for on
    several POV-Ray's own pictures differ from run to run. False: POV-Ray itself cannot."""
    os.makedirs(out)
    try:
        done = subprocess.run(["povray", scene if scene.endswith(".ini") else "+I" + os.path.basename(scene), "+O" + out + "/frame",
                               "+FN", "+W%d" % SIZE[0], "+H%d" % SIZE[1], "-D", "-P", "+WT1", *options], cwd=os.path.dirname(scene), check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def there(names):
    return [os.path.join(EXAMPLES, name) for name in names if os.path.exists(os.path.join(EXAMPLES, name))]


def compare(farm, ann, scenes, frames=None, seconds=60):
    """{scene: what differs}, and how many were compared; all are rendered at once."""
    part = ("+SF%d" % frames[0], "+EF%d" % frames[1]) if frames else ()
    asked = ("-f", "%d-%d" % frames) if frames else ()
    jobs, different, compared = {}, {}, 0
    for number, scene in enumerate(scenes):
        if direct(scene, farm.path("direct", str(number)), *part, seconds=seconds):
            answer = ann.ask("submit", scene, "-o", farm.path("home", str(number)), "--size", "%dx%d" % SIZE, *asked)
            if answer.code == 0:
                jobs[scene] = (number, answer.id)
            else:
                different[scene] = "refused: " + " ".join(answer.err.split())
    for scene, (number, job) in jobs.items():
        answer = ann.ask("fetch", job, "-o", farm.path("home", str(number)), "--follow", seconds=600)
        home, alone = tree(farm.path("home", str(number))), tree(farm.path("direct", str(number)))
        if answer.code != 0:
            different[scene] = " ".join(answer.err.split()[-40:])
        elif [pixels(home[name]) for name in sorted(home)] != [pixels(alone[name]) for name in sorted(alone)]:
            different[scene] = "%d and %d pictures; pixels differ" % (len(home), len(alone))
        compared += 1
        print(os.path.relpath(scene, EXAMPLES), different.get(scene, "identical"), flush=True)
    return different, compared


def farm_for_examples(farm):
    farm.start_broker()
    for name in ("box1", "box2"):
        farm.worker(name, "--slots", "1", "--cores", "1")
    return farm.person("ann")


@scenario
def povrays_own_examples_come_home_as_povray_alone_makes_them():
    with Farm() as farm:
        different, compared = compare(farm, farm_for_examples(farm), there(STILLS))
        equal(different, {}, "scenes that differ")
        check(compared >= 20, "scenes compared:", compared)


@scenario
def povrays_own_animations_come_home_as_povray_alone_makes_them():
    with Farm() as farm:
        different, compared = compare(farm, farm_for_examples(farm), there(ANIMATIONS), frames=(2, 5))
        equal((different, compared), ({}, len(ANIMATIONS)), "animations that differ, and how many were compared")


def everything():
    with Farm() as farm:
        scenes = sorted(glob.glob(EXAMPLES + "/**/*.pov", recursive=True)) + sorted(glob.glob(EXAMPLES + "/animations/**/*.ini", recursive=True))
        different, compared = compare(farm, farm_for_examples(farm), scenes, seconds=30)
    print("%d of %d scenes rendered by POV-Ray alone within 30 s; %d identical" % (compared, len(scenes), compared - len(different)))
    for scene, why in sorted(different.items()):
        print("%s: %s" % (os.path.relpath(scene, EXAMPLES), why))


if __name__ == "__main__":
    if not os.path.isdir(EXAMPLES):
        print("povray-examples is not installed")
        sys.exit(77)
    if "--all" in sys.argv:
        everything()
    else:
        main()
