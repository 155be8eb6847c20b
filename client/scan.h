/* scan.h - what a scene file uses, beyond the folder it lies in.
 *
 * Blender is asked by running it; POV-Ray's scenes are read as text, for the names in them.
 *
 * Errors:  0, or EXIT_USAGE after a message.
 */
#pragma once

#include <client/inputs.h>

struct scan_blender {
    bool seen;         /* false: there is no Blender here, and nothing is known */
    long first, last, step;
    char movie[64];    /* the movie format that it writes; "": pictures */
    char saved[32];    /* "3.4": the version that saved it */
    bool denoises;
    unsigned width, height;
    char format[32], codec[16]; /* of pictures: "PNG", "OPEN_EXR"; and how the latter is packed */
    struct inputs_list inexact; /* inexact(), but for the next */
    char inexact_denoise[128];  /* what it says of denoising; "" */
};
/* Python: denoises(scene), whether rendering it, or a scene it shows, runs OpenImageDenoise: Cycles
 * at the end of a frame (where a card has no OptiX), the compositor in its node. Before 3.0 Cycles
 * had a denoiser of its own besides. */
#define SCAN_DENOISES                                                                              \
    "def composited(tree, ends=('COMPOSITE', 'OUTPUT_FILE', 'GROUP_OUTPUT')):\n"                   \
    "    seen, todo = set(), [n for n in tree.nodes if n.type in ends and not n.mute]\n"           \
    "    while todo:\n"                                                                            \
    "        node = todo.pop()\n"                                                                  \
    "        if node.name in seen:\n"                                                              \
    "            continue\n"                                                                       \
    "        seen.add(node.name)\n"                                                                \
    "        yield node\n"                                                                         \
    "        if getattr(node, 'node_tree', None) and not node.mute:\n"                             \
    "            yield from composited(node.node_tree, ('GROUP_OUTPUT',))\n"                       \
    "        todo += [link.from_node for socket in node.inputs for link in socket.links]\n"        \
    "def compositor(scene):\n"                                                                     \
    "    return getattr(scene, 'node_tree', None) or getattr(scene, 'compositing_node_group', "    \
    "None)\n"                                                                                      \
    "def denoises(scene, seen=()):\n"                                                              \
    "    tree = scene.use_nodes and scene.render.use_compositing and compositor(scene)\n"          \
    "    nodes = list(composited(tree)) if tree else []\n"                                         \
    "    cycles, editor = getattr(scene, 'cycles', None), scene.sequence_editor\n"                 \
    "    if (scene.render.engine == 'CYCLES' and getattr(cycles, 'use_denoising', False) and\n"    \
    "            getattr(cycles, 'denoiser', '') != 'NLM' and\n"                                   \
    "            any(layer.use and getattr(layer.cycles, 'use_denoising', True)\n"                 \
    "                for layer in scene.view_layers)):\n"                                          \
    "        return True\n"                                                                        \
    "    if any(node.type == 'DENOISE' and not node.mute and node.inputs[0].is_linked\n"           \
    "           for node in nodes):\n"                                                             \
    "        return True\n"                                                                        \
    "    strips = [] if not editor or not scene.render.use_sequencer else [\n"                     \
    "        strip for strip in getattr(editor, 'strips_all', None) or editor.sequences_all\n"     \
    "        if strip.type == 'SCENE' and not strip.mute]\n"                                       \
    "    shown = [node.scene for node in nodes if node.type == 'R_LAYERS']\n"                      \
    "    seen = (*seen, scene)\n"                                                                  \
    "    return any(other and other not in seen and denoises(other, seen)\n"                       \
    "               for other in shown + [strip.scene for strip in strips])\n"
/* Python: inexact(scene), a name and a sentence for each thing by which a tile would not be what it is
 * in the whole frame. Needs the one above. Cycles' samples of a pixel are numbered by where it lies in
 * the whole frame, so nothing else is needed there. */
#define SCAN_INEXACT                                                                               \
    "def inexact(scene):\n"                                                                        \
    "    render, cycles = scene.render, getattr(scene, 'cycles', None)\n"                          \
    "    tree = scene.use_nodes and render.use_compositing and compositor(scene)\n"                \
    "    editor = scene.sequence_editor\n"                                                         \
    "    if render.engine != 'CYCLES':\n"                                                          \
    "        yield 'engine', 'it is rendered by %s, which shades by all that it sees: Cycles '\\\n"  \
    "            'renders a tile as it renders the frame' % render.engine\n"                       \
    "    elif getattr(cycles, 'use_adaptive_sampling', False):\n"                                  \
    "        yield 'adaptive', 'its adaptive sampling (Noise Threshold) looks at pixels nearby'\n" \
    "    if render.engine == 'CYCLES' and cycles.feature_set == 'EXPERIMENTAL':\n"                 \
    "        yield 'experimental', 'it uses experimental features of Cycles, which may look at '\\\n" \
    "            'the whole picture'\n"                                                            \
    "    if denoises(scene):\n"                                                                    \
    "        yield 'denoise', 'it denoises, which looks at pixels nearby (-p denoise=no renders '\\\n" \
    "            'without)'\n"                                                                     \
    "    if tree and any(node.type not in ('R_LAYERS', 'COMPOSITE') and not node.mute\n"           \
    "                    for node in composited(tree)):\n"                                         \
    "        yield 'compositor', 'its compositor works on the whole picture'\n"                    \
    "    if render.use_sequencer and editor and (\n"                                               \
    "            getattr(editor, 'strips_all', None) or getattr(editor, 'sequences_all', None)):\n" \
    "        yield 'sequencer', 'its sequencer works on the whole picture'\n"                      \
    "    for name, what in (('use_freestyle', 'Freestyle draws lines over the whole picture'),\n"  \
    "                       ('use_stamp', 'a stamp is burned into the whole picture'),\n"          \
    "                       ('use_border', 'it renders a border of its own'),\n"                   \
    "                       ('use_multiview', 'it renders several views')):\n"                     \
    "        if getattr(render, name):\n"                                                          \
    "            yield name, what\n"
int scan_blender(const char *scene, struct inputs *inputs, struct scan_blender *ret_scan);
/* What it printed, which is cut up by reading it: SCAN_E_SAID where there is no answer in it. */
enum { SCAN_E_SAID = -1 };
int scan_blender_read(char *said, struct inputs *inputs, struct scan_blender *ret_scan);

/* `folder` is where POV-Ray runs; `libraries` are further folders in which names are looked for,
 * absolute, ended by NULL. *ret_inexact gets why tiles would differ from the frame: what words of
 * the scene say, whether they count or not. */
int scan_povray(const char *scene, const char *folder, const char *const *libraries,
                struct inputs *inputs, struct inputs_list *ret_inexact);
