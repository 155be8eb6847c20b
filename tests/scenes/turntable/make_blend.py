"""Makes the turntable scene: three solids on a turning plate, rendered by Cycles on the CPU.

    blender -b --factory-startup --python make_blend.py -- OUT.blend

Everything is made here, the plate's texture too (packed into the file), so that the scene needs
nothing beside itself. Few samples, a fixed seed and no denoiser: a frame has the same pixels
wherever the same Blender renders it.
"""
import math
import os
import sys

import bpy

FRAMES = 6
TEXTURE_PIXELS = 128


def material(name, color, roughness, metallic=0.0):
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    surface = made.node_tree.nodes["Principled BSDF"]
    surface.inputs["Base Color"].default_value = (*color, 1.0)
    surface.inputs["Roughness"].default_value = roughness
    surface.inputs["Metallic"].default_value = metallic
    return made


def plate_image():
    """Rings and spokes, computed."""
    image = bpy.data.images.new("plate", TEXTURE_PIXELS, TEXTURE_PIXELS)
    pixels = []
    for row in range(TEXTURE_PIXELS):
        for column in range(TEXTURE_PIXELS):
            x = (column + 0.5) / TEXTURE_PIXELS * 2 - 1
            y = (row + 0.5) / TEXTURE_PIXELS * 2 - 1
            ring = int(math.hypot(x, y) * 6)
            spoke = int((math.atan2(y, x) / math.pi + 1) * 8)
            light = (ring + spoke) % 2
            pixels += (0.62, 0.50, 0.34, 1.0) if light else (0.07, 0.16, 0.22, 1.0)
    image.pixels = pixels
    image.pack()
    return image


def plate_material():
    made = material("plate", (1, 1, 1), 0.45)
    tree = made.node_tree
    place = tree.nodes.new("ShaderNodeTexCoord")
    texture = tree.nodes.new("ShaderNodeTexImage")
    texture.image = plate_image()
    tree.links.new(place.outputs["Generated"], texture.inputs["Vector"])
    tree.links.new(texture.outputs["Color"], tree.nodes["Principled BSDF"].inputs["Base Color"])
    return made


def add(operator, made, parent=None, smooth=False, **where):
    operator(**where)
    thing = bpy.context.object
    thing.data.materials.append(made)
    if smooth:
        bpy.ops.object.shade_smooth()
    if parent:
        thing.parent = parent
        thing.matrix_parent_inverse = parent.matrix_world.inverted()
    return thing


def build():
    mesh = bpy.ops.mesh
    add(mesh.primitive_plane_add, material("floor", (0.035, 0.04, 0.06), 0.3), size=60)
    plate = add(mesh.primitive_cylinder_add, plate_material(), vertices=96, radius=2.6, depth=0.2,
                location=(0, 0, 0.1))
    add(mesh.primitive_torus_add, material("gold", (0.95, 0.60, 0.18), 0.18, 1.0), plate, True,
        major_radius=0.75, minor_radius=0.26, major_segments=64, minor_segments=24,
        location=(-1.1, -0.6, 0.95), rotation=(1.25, 0.2, 0.5))
    add(mesh.primitive_uv_sphere_add, material("glaze", (0.05, 0.32, 0.50), 0.12), plate, True,
        segments=48, ring_count=24, radius=0.72, location=(1.05, -0.75, 0.92))
    add(mesh.primitive_cone_add, material("clay", (0.72, 0.20, 0.10), 0.55), plate,
        vertices=6, radius1=0.8, radius2=0.25, depth=1.9, location=(0.1, 1.15, 1.15))

    plate.rotation_euler = (0, 0, 0)
    plate.keyframe_insert("rotation_euler", frame=1)
    plate.rotation_euler = (0, 0, 2 * math.pi / 3)
    plate.keyframe_insert("rotation_euler", frame=FRAMES + 1)
    for curve in plate.animation_data.action.fcurves:
        for key in curve.keyframe_points:
            key.interpolation = "LINEAR"


def light_and_camera(scene):
    bpy.ops.object.light_add(type="AREA", location=(-4.5, -3, 5.5), rotation=(0.65, -0.55, 0))
    key = bpy.context.object.data
    key.energy, key.size, key.color = 620, 3, (1.0, 0.80, 0.58)
    bpy.ops.object.light_add(type="AREA", location=(5, 3, 3.5), rotation=(-0.6, 0.9, 0))
    rim = bpy.context.object.data
    rim.energy, rim.size, rim.color = 260, 2, (0.45, 0.62, 1.0)

    world = bpy.data.worlds.new("dusk")
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.05, 0.06, 0.10, 1)
    scene.world = world

    bpy.ops.object.empty_add(location=(0, 0, 0.62))
    aim = bpy.context.object
    bpy.ops.object.camera_add(location=(0, -8.2, 4.0))
    camera = bpy.context.object
    camera.data.lens = 46
    track = camera.constraints.new("TRACK_TO")
    track.target, track.track_axis, track.up_axis = aim, "TRACK_NEGATIVE_Z", "UP_Y"
    scene.camera = camera


def settings(scene):
    scene.frame_start, scene.frame_end = 1, FRAMES
    scene.render.engine = "CYCLES"
    scene.render.resolution_x, scene.render.resolution_y = 320, 180
    scene.render.resolution_percentage = 100
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGB"
    cycles = scene.cycles
    cycles.device = "CPU"
    cycles.samples = 24
    cycles.use_adaptive_sampling = False
    cycles.use_denoising = False
    cycles.seed = 7420
    cycles.max_bounces = 4


def main():
    if "--" not in sys.argv or len(sys.argv) - sys.argv.index("--") != 2:
        sys.exit("make_blend.py: name the file to write: ... --python make_blend.py -- OUT.blend")
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    build()
    light_and_camera(scene)
    settings(scene)
    bpy.context.preferences.filepaths.save_version = 0
    bpy.ops.wm.save_as_mainfile(filepath=os.path.abspath(sys.argv[-1]), compress=True)


main()
