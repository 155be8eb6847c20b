/* topics.c - what help says beside the commands; args.h tells how the texts are written. */
#include <client/cmd.h>

#include <client/preset.h>
#include <proto/state.h>

static const char frames[] =
    "240\tone frame\n"
    "1-240\tall from 1 to 240; 1..240 is the same\n"
    "1-240:2\tevery second one: 1, 3, 5 and so on; 1-240x2 is the same\n"
    "5,10-20\tseveral of these, in any order; a frame that is named twice counts once\n"
    "-3--1\tnegative ones: -3, -2 and -1\n"
    "\n"
    "Without -f the scene's own range is rendered, where the scene has one: a Blender scene (if "
    "Blender is installed here, to read it), or an .ini file of POV-Ray. Else it is one still.\n"
    "\n"
    "--chunk N gives each task N frames in a row, so that a scene that takes long to load is "
    "loaded once for all of them. A chunk is rendered, fails and is tried again as one.\n"
    "\n"
    "--tiles 4x3 cuts each frame into 4 columns and 3 rows, which are rendered apart and joined; "
    "only the frame comes home. retry and cancel mean a frame with all of its tiles.\n"
    "\n"
    "retry, cancel and set name frames in the same way. A chunk that holds one of them is meant as "
    "a whole.";

static const char tiles[] =
    "submit and render --tiles CxR cut each frame into C columns and R rows, which are rendered "
    "apart, on as many workers as there are, and joined by a worker as soon as those of a frame "
    "are there. Only the frame comes home, the same to the last bit as it is when it is rendered "
    "whole. A frame has at most 256 tiles.\n"
    "\n"
    "Frames are PNG or OpenEXR, with all layers, of POV-Ray or of Blender's Cycles. A Blender scene "
    "that packs OpenEXR with a loss names another codec first.\n"
    "\n"
    "What looks beyond a tile is refused, with the reason: EEVEE, the compositor and the "
    "sequencer, denoising, adaptive sampling, stereo (Blender); radiosity, subsurface, crand, "
    "jitter, dithering (POV-Ray). --tiles-anyway renders it all the same; the borders of tiles "
    "may show.\n"
    "\n"
    "retry -f 7\tthat frame's tiles again, and the frame\n"
    "log -f 7 --tile 3\twhat one of them printed";

static const char outputs[] =
    "-o says where frames go. Nothing is rendered before that place was looked at.\n"
    "\n"
    "-o out\ta folder: out/SCENE.0001.png, and so on\n"
    "-o out/beauty.####\ta pattern: # is a digit of the frame's number; %04d is the same\n"
    "-o out/beauty.####.exr\tits ending chooses the format (westlight help presets)\n"
    "-o out/beauty.png\ta file, for one frame\n"
    "no -o\tthe folder SCENE-frames, where you are\n"
    "\n"
    "A frame has no name there until all of it has arrived. One that is there already is skipped; "
    "one that a newer result replaces is written over. What you changed yourself is left as it is, "
    "and named at the end; --force writes over it.\n"
    "\n"
    "fetch without -o brings a job to where it was submitted for.";

#define MEANING(name, number, string, meaning) string "\t" meaning "\n"

static const char states[] =
    "A job is\n"
    "\n" JOB_PHASES(MEANING) "\n"
                             "A task (a frame, or a chunk of frames) is\n"
                             "\n" TASK_STATES(
                                 MEANING) "\n"
                                          "An attempt to render a task ends in one of these. Where "
                                          "three workers have failed, or three "
                                          "attempts on a smaller farm, the task has failed; what a "
                                          "worker or a link is to blame for is "
                                          "tried again elsewhere.\n"
                                          "\n" CLASSES(MEANING) "\n"
                                                                "A worker is\n"
                                                                "\n" WORKER_STATES(MEANING);

static const char exits[] = "0\tall frames are home and verified; or what was asked for is done\n"
                            "1\tsome frames failed: westlight log says why\n"
                            "2\tthe command cannot be meant so: the message says what to change\n"
                            "3\tthe farm cannot be reached, or refused\n"
                            "4\tnot everything is home: the same command again goes on";

static const char files[] =
    "~/.config/westlight/config\tthe farms you may use\n"
    "~/.config/westlight/key\tyour key; secret: who has it is you\n"
    "~/.config/westlight/secret\twhat your studio's scenes are sealed with; all of a studio have "
    "the same\n"
    "~/.local/state/westlight/jobs\teach job's own key, and where its frames go\n"
    "~/.local/state/westlight/uploads\thow submit --resume goes on with what was cut short\n"
    "~/.local/state/westlight/receipts\twhat was fetched, so that a changed file is never lost\n"
    "~/.local/state/westlight/arriving\twhat a fetch that is killed need not get again\n"
    "~/.local/state/westlight/local\tprivate farms of --local; may be removed while none runs\n"
    "\n"
    "The config file has a section for each farm:\n"
    "\n"
    "  default = west\n"
    "\n"
    "  [farm west]\n"
    "  control = tcp://farm.example:7420\n"
    "  server_key = SERVER-KEY\n"
    "  key = ~/.config/westlight/key\n"
    "  secret = ~/.config/westlight/secret\n"
    "\n"
    "default\tthe farm that is meant without --farm; not needed where there is only one\n"
    "control\twhere its broker listens; the operator knows it\n"
    "server_key\tthe broker's public key, 40 characters, without quotes; the operator knows it\n"
    "key\tyour key file\n"
    "secret\tyour studio's secret, which submitting a scene needs\n"
    "bulk\twhere files go, if not where the broker says\n"
    "\n"
    "--farm local is the private farm of a render --local that runs; several are local-1, local-2.";

static const char environment[] =
    "NO_COLOR\tany text: no colours\n"
    "WESTLIGHT_FARM\tthe farm that is meant without --farm\n"
    "WESTLIGHT_CONFIG\tthe config file\n"
    "WESTLIGHT_LOCAL\tthe folder of --local's private farms\n"
    "WESTLIGHT_BLENDER\tthe Blender that is asked here what a scene uses (the first in PATH)\n"
    "XDG_CONFIG_HOME\tinstead of ~/.config\n"
    "XDG_STATE_HOME\tinstead of ~/.local/state\n"
    "TERM\tdumb: no colours, no line that is drawn over itself";

const struct args_topic topics_table[TOPICS] = {
    {"frames", "FRAMES", "how frames are named; chunks", frames, NULL},
    {"tiles", "TILES", "one frame on many workers, and what cannot be cut", tiles, NULL},
    {"outputs", "OUTPUTS", "where frames go, and under which names", outputs, NULL},
    {"presets", "PRESETS", "which scenes it renders, and the parameters of each", NULL,
     preset_text},
    {"states", "STATES", "what is said of jobs, tasks, attempts and workers", states, NULL},
    {"files", "FILES", "the config file, keys, receipts", files, NULL},
    {"environment", "ENVIRONMENT", "variables", environment, NULL},
    {"exit", "EXIT STATUS", "exit codes", exits, NULL},
};
