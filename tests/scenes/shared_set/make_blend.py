"""A shot as studios keep them: the scene in one folder, its textures, tiles and a linked library in
others, some named by absolute paths, some by relative ones, and a driver with an expression.

    blender --background --factory-startup --python make_blend.py -- FOLDER

makes FOLDER/shots/010/shot.blend, FOLDER/library/prop.blend, FOLDER/textures/.
"""
import math
import os
import sys

import bpy

FOLDER = os.path.abspath(sys.argv[sys.argv.index("--") + 1])
SHOT, LIBRARY, TEXTURES = (os.path.join(FOLDER, *part.split("/")) for part in ("shots/010", "library", "textures"))


def picture(name, path, colour, size=16):
    """A checkered picture on disk, as an image of the scene."""
    image = bpy.data.images.new(name, size, size)
    image.pixels = [value for y in range(size) for x in range(size)
                    for value in (*(c * (0.3 if (x // 4 + y // 4) % 2 else 1.0) for c in colour), 1.0)]
    image.filepath_raw, image.file_format = path, "PNG"
    image.save()
    return image


def textured(name, image):
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    texture = nodes.new("ShaderNodeTexImage")
    texture.image = image
    links.new(texture.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
    return material


def empty():
    bpy.ops.wm.read_factory_settings(use_empty=True)
    for folder in (SHOT, LIBRARY, TEXTURES):
        os.makedirs(folder, exist_ok=True)


def library():
    """A prop with a texture of its own, named relative to the library."""
    empty()
    prop = os.path.join(LIBRARY, "prop.blend")
    bpy.ops.wm.save_as_mainfile(filepath=prop)
    bpy.ops.mesh.primitive_cone_add(location=(1.4, 0, 0))
    cone = bpy.context.object
    cone.name = "prop"
    image = picture("prop", os.path.join(LIBRARY, "prop.png"), (0.2, 0.9, 0.4))
    image.filepath = "//prop.png"
    cone.data.materials.append(textured("prop", image))
    bpy.ops.wm.save_as_mainfile(filepath=prop)


def tiles():
    for number, colour in ((1001, (0.9, 0.8, 0.1)), (1002, (0.1, 0.5, 0.9))):
        bpy.data.images.remove(picture("tile", os.path.join(TEXTURES, "skin.%d.png" % number), colour))
    image = bpy.data.images.load(os.path.join(TEXTURES, "skin.1001.png"))
    image.source = "TILED"
    image.filepath = "//../../textures/skin.<UDIM>.png"
    image.tiles.new(1002)
    return image


def shot():
    empty()
    path = os.path.join(SHOT, "shot.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.mesh.primitive_cube_add(size=1.6, location=(-1.4, 0, 0))
    cube = bpy.context.object
    cube.data.materials.append(textured("wood", picture("wood", os.path.join(TEXTURES, "wood.png"), (0.9, 0.3, 0.2))))
    cube.rotation_euler.z = 0
    driver = cube.driver_add("rotation_euler", 2).driver
    driver.expression = "sin(frame / 3) * %f" % math.pi
    bpy.ops.mesh.primitive_plane_add(size=6, location=(0, 0, -1))
    floor = bpy.context.object
    for loop in floor.data.uv_layers[0].data:
        loop.uv.x *= 2  # over both tiles
    floor.data.materials.append(textured("skin", tiles()))
    with bpy.data.libraries.load(os.path.join(LIBRARY, "prop.blend"), link=True, relative=False) as (there, here):
        here.objects = there.objects
    bpy.context.collection.objects.link(here.objects[0])
    bpy.ops.object.light_add(type="SUN", rotation=(0.6, 0.3, 0))
    bpy.context.object.data.energy = 3
    bpy.ops.object.camera_add(location=(0, -6, 2.5), rotation=(1.2, 0, 0))
    scene = bpy.context.scene
    scene.camera = bpy.context.object
    scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 4, False
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = 96, 64, 100
    scene.frame_start, scene.frame_end = -1, 2
    scene.render.image_settings.file_format = "PNG"
    scene.use_nodes = True
    layers = next(node for node in scene.node_tree.nodes if node.type == "R_LAYERS")
    depth = scene.node_tree.nodes.new("CompositorNodeOutputFile")
    depth.base_path = "//passes/"
    depth.file_slots[0].path = "alpha_"
    scene.node_tree.links.new(layers.outputs["Alpha"], depth.inputs[0])
    bpy.ops.wm.save_as_mainfile(filepath=path)


library()
shot()
