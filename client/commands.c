/* commands.c - every command of westlight, its options, and what help says of them. The command
 * line is read by this table; help, the manual page and completion are printed from it.
 */
#include <client/cmd.h>

#define JOB_TEXT "JOB is an id, 4 or more of its first digits, or 'last': your studio's newest.\n"

#define ROW_FARM                                                                                   \
    {                                                                                              \
        ID_FARM, "farm", "NAME", "a farm of the config file (see: westlight help files)"           \
    }
#define ROW_JSON                                                                                   \
    {                                                                                              \
        ID_JSON, "json", NULL, "print JSON, for programs"                                          \
    }
#define ROW_FORCE                                                                                  \
    {                                                                                              \
        ID_FORCE, "force", NULL, "write over files that were changed since they were fetched"      \
    }
#define ROWS_LABEL                                                                                 \
    {ID_NAME, "name", "TEXT", "what the job is called"},                                           \
        {ID_NOTE, "note", "TEXT", "a line for whoever looks at it"},                               \
        {ID_PRIORITY, "priority", "N", "among your studio's jobs, the highest goes first (0)"},    \
    {                                                                                              \
        ID_MAX_WORKERS, "max-workers", "N", "at most N of its tasks run at once (0: no limit)"     \
    }

static const struct args_option render_options[] = {
    {'f', "frames", "FRAMES", "such as 1-240, 1-240:2 or 5,10-20 (the scene's own range)"},
    {'o', "output", "WHERE",
     "a folder, a pattern such as out/beauty.####.exr, or a still's file (SCENE-frames)"},
    {ID_LOCAL, "local", NULL,
     "a private farm on this machine, for this command; the same command again goes on"},
    {ID_WORKERS, "workers", "N", "workers of the private farm (1)"},
    {ID_SLOTS, "slots", "N", "tasks at once on each of them (one, or one for each GPU)"},
    {ID_SIZE, "size", "WxH", "pixels of a picture (as the scene says)"},
    {ID_CHUNK, "chunk", "N", "frames a task, for scenes that take long to load (1)"},
    {ID_TILES, "tiles", "CxR",
     "each frame in C columns and R rows of tiles, which are rendered apart and joined"},
    {ID_TILES_ANYWAY, "tiles-anyway", NULL, "though the frame may not be as it is rendered whole"},
    {'p', "param", "NAME=VALUE", "a parameter of the preset; may be repeated"},
    {ID_PRESET, "preset", "NAME", "povray, blender or command (by the scene's ending)"},
    {ID_SOFTWARE, "software", "NAME=VERSION",
     "the version that renders (of Blender the one that saved the scene, else the newest)"},
    {ID_DEVICE, "device", "auto|cpu|gpu",
     "Blender: what Cycles renders on (auto: cards where the task has some, else CPUs)"},
    {ID_CLOCK_RANGE, "clock-range", "FRAMES",
     "POV-Ray: the frames over which the clock runs (those of -f)"},
    {ID_ENV, "env", "NAME=VALUE", "a variable of the renderer's environment; may be repeated"},
    {ID_ASSET, "asset", "PATH",
     "a file or folder that travels too, where the scene does not say so; may be repeated"},
    {ID_EXCLUDE, "exclude", "PATTERN", "files or folders that stay: *.psd, old/*; may be repeated"},
    {ID_NARROW, "narrow", "PATTERN",
     "files that go to their own frame only: cache/smoke_####.vdb; may be repeated"},
    {ID_ALLOW_MISSING, "allow-missing", NULL, "render although files are missing"},
    {ID_DRY_RUN, "dry-run", NULL, "list what would travel, and send nothing"},
    {ID_RESUME, "resume", NULL,
     "go on with an upload that was cut short, with the words of the first time: in SCENE's place "
     "its id, 'last', or nothing for the only one, and no other options"},
    ROW_FORCE,
    ROWS_LABEL,
    {ID_TAG, "tag", "TAG", "a word to find it by; may be repeated"},
    {ID_POOL, "pool", "NAME", "on the workers of that pool (on those that are in none)"},
    ROW_FARM,
    ROW_JSON,
    {0},
};

static const struct args_option common_options[] = {ROW_FARM, ROW_JSON, {0}};

static const struct args_option jobs_options[] = {
    {ID_ALL, "all", NULL, "finished ones too, but not those that are archived"},
    {ID_ARCHIVED, "archived", NULL, "those that are archived, and no others"},
    ROW_FARM,
    ROW_JSON,
    {0},
};

static const struct args_option fetch_options[] = {
    {'o', "output", "DIR", "where to (where it was submitted for, else the folder westlight-JOB)"},
    {ID_FOLLOW, "follow", NULL, "stay until the job has ended, and bring each frame as it is done"},
    ROW_FORCE,
    {ID_DELIVER, "deliver", NULL,
     "tell the farm that the results are home, though somebody else submitted the job: it need not "
     "keep it for long"},
    ROW_FARM,
    ROW_JSON,
    {0},
};

static const struct args_option log_options[] = {
    {'f', "frames", "FRAME", "of this frame (the newest that failed, else the first)"},
    {ID_ATTEMPT, "attempt", "N", "of this attempt, from 1 (the newest)"},
    {ID_TILE, "tile", "N", "of this tile of the frame, from 1, where it has several"},
    {ID_STEP, "step", "N", "of this step, from 0, where a job has several"},
    {ID_FOLLOW, "follow", NULL, "go on while the task runs"},
    ROW_FARM,
    {ID_JSON, "json", NULL, "list the task's attempts as JSON, for programs"},
    {0},
};

static const struct args_option frames_options[] = {
    {'f', "frames", "FRAMES", "these frames only"},
    ROW_FARM,
    ROW_JSON,
    {0},
};

static const struct args_option set_options[] = {
    {'f', "frames", "FRAMES", "all of its frames from now on: more of them, or fewer"},
    ROWS_LABEL,
    {ID_TAG, "tag", "TAG", "its tags from now on, one each time; '' takes all away"},
    ROW_FARM,
    ROW_JSON,
    {0},
};

static const struct args_option resubmit_options[] = {
    {'f', "frames", "FRAMES", "its frames (those of JOB)"},
    ROWS_LABEL,
    {ID_TAG, "tag", "TAG", "its tags, one each time; '': none"},
    ROW_FARM,
    ROW_JSON,
    {0},
};

static const struct args_option archive_options[] = {
    {ID_UNDO, "undo", NULL, "put it into the list again"},
    ROW_FARM,
    ROW_JSON,
    {0},
};

static const struct args_option workers_options[] = {
    {ID_NOTE, "note", "TEXT", "with drain: why, for others to see"},
    ROW_FARM,
    ROW_JSON,
    {0},
};

static const struct args_option join_options[] = {
    {ID_NAME, "name", "NAME", "what others see of you (your login)"},
    {ID_FARM, "farm", "NAME", "what the farm is called here (its host's name)"},
    {ID_KEY, "key", "FILE",
     "where your key lies, made if it is not there (beside the config file)"},
    {0},
};

static const struct args_option key_options[] = {
    {ID_KEY, "key", "FILE", "where the key goes (~/.config/westlight/key)"},
    {ID_SECRET, "secret", "FILE",
     "where the studio's secret lies, made if it is not there (beside the default key; with --key, "
     "none)"},
    {0},
};

#define TRAVELS_TEXT                                                                               \
    "The scene's folder travels with it, and what the scene uses in other folders. Hidden files, " \
    "backups, keys and folders of rendered frames stay at home. --dry-run shows the list.\n"       \
    "\n"                                                                                           \
    "See also: westlight help frames, help outputs, help presets."

static const struct args_command commands[] = {
    {"render", cmd_render, "SCENE", "render a scene and bring its frames home", render_options,
     "It stays until the job has ended, and writes each frame as soon as it is done. Ctrl-C leaves "
     "the job on the farm.\n"
     "\n" TRAVELS_TEXT,
     "  westlight render shot.blend -f 1-240 -o out/beauty.####.exr\n"
     "  westlight render lighthouse.pov -f 1-24 --size 480x270 --local\n"},
    {"submit", cmd_submit, "SCENE", "hand a scene to the farm and return", render_options,
     "It prints the job's id and ends when the scene is with the farm. watch follows the job, and "
     "fetch brings its frames home.\n"
     "\n" TRAVELS_TEXT,
     "  westlight submit shot.blend -f 1-240 --chunk 5 --priority 10\n"
     "  westlight submit shot.blend --dry-run\n"
     "  westlight submit --resume\n"},
    {"jobs", cmd_jobs, "", "list your studio's jobs", jobs_options,
     "Without an option, those that are not finished.", "  westlight jobs --all\n"},
    {"show", cmd_show, "JOB", "one job: its state, and why it waits", common_options,
     JOB_TEXT "\nWhat the states mean: westlight help states.", "  westlight show last\n"},
    {"watch", cmd_watch, "JOB", "follow a job until it is finished", common_options,
     JOB_TEXT "\nCtrl-C ends the watching, not the job.", "  westlight watch last\n"},
    {"fetch", cmd_fetch, "JOB", "bring finished frames home", fetch_options,
     JOB_TEXT
     "\nWhat is there already is skipped. A file that you changed is left as it is, and "
     "named, unless you say --force. The lowest of the frames that "
     "wait comes first. With --follow and --json each file is a line as it arrives, and the "
     "last line is the sum.",
     "  westlight fetch last --follow\n"
     "  westlight fetch 3f2a9c -o frames\n"},
    {"log", cmd_log, "JOB", "what a task printed", log_options, JOB_TEXT,
     "  westlight log last -f 17\n"
     "  westlight log last -f 17 --follow\n"},
    {"cancel", cmd_cancel, "JOB", "stop a job, or frames of it", frames_options,
     JOB_TEXT "\nWhat is done stays. retry takes up again what was cancelled.",
     "  westlight cancel last\n"
     "  westlight cancel last -f 100-240\n"},
    {"pause", cmd_pause, "JOB", "start no more of its frames", common_options,
     JOB_TEXT "\nFrames that run are finished.", "  westlight pause last\n"},
    {"resume", cmd_resume, "JOB", "go on with a paused job", common_options, JOB_TEXT,
     "  westlight resume last\n"},
    {"retry", cmd_retry, "JOB", "run failed frames again, or those named", frames_options,
     JOB_TEXT "\nWithout -f: all that failed. With it, frames that are done are rendered anew as "
              "well. A job that has paused itself goes on.",
     "  westlight retry last\n"
     "  westlight retry last -f 17,20-30\n"},
    {"set", cmd_set, "JOB", "change a job that is there, also while it runs", set_options,
     JOB_TEXT "\nWhat runs or is done, and stays, is not disturbed. With --frames, a chunk that "
              "holds a frame you name stays whole.",
     "  westlight set last --priority 50\n"
     "  westlight set last --frames 1-300 --note 'longer by two seconds'\n"},
    {"resubmit", cmd_resubmit, "JOB", "another job from the same inputs, without sending them",
     resubmit_options,
     JOB_TEXT "\nWhat is not named is as it was in JOB. The scene's folder is not needed any more.",
     "  westlight resubmit last --name 'take two'\n"},
    {"archive", cmd_archive, "JOB", "take a finished job out of the list", archive_options,
     JOB_TEXT "\nIt can still be shown and fetched; westlight jobs --archived lists it.",
     "  westlight archive 3f2a9c\n"
     "  westlight archive 3f2a9c --undo\n"},
    {"software", cmd_software, "", "list what the farm renders with", common_options,
     "Of each software, the versions that some worker has. --software NAME=VERSION of render and "
     "submit chooses one.",
     "  westlight software\n"},
    {"workers", cmd_workers, "[VERB WORKER... [TEXT]]",
     "list the farm's workers, or look after them (operators)", workers_options,
     "drain WORKER...\tno new work; what runs is finished: draining, then drained\n"
     "undrain WORKER...\twork as before\n"
     "clear WORKER...\tforget its failures: it is no longer set aside\n"
     "note WORKER TEXT\twhat others should know of it; '' takes it away\n"
     "pool WORKER NAME\tit takes only jobs that ask for this pool (submit --pool); '' takes it "
     "out\n"
     "\n"
     "WORKER is a name, the first 4 or more characters of a key, or an id of --json. Put -- ahead "
     "of one that begins with a dash.",
     "  westlight workers\n"
     "  westlight workers drain node1 --note 'disk swap'\n"
     "  westlight workers pool node2 night\n"},
    {"join", cmd_join, "[HOST] TOKEN", "become one of a farm's people, by its operator's token",
     join_options,
     "It makes a key for you, shows the token to the farm, and writes what the farm is into the "
     "config file; then all commands work. Where the token asks for it, it waits until the "
     "operator has compared the fingerprint that it shows. Ended before it is done, it is given "
     "again, with the same token.\n"
     "\n"
     "HOST is the farm's name or address, with a port where it is not 7422; it is needed where the "
     "token does not say it. A TOKEN of - is read from standard input.",
     "  westlight join farm.example TOKEN --name Ada\n"},
    {"key", cmd_key, "new", "make a key for yourself, or for a worker", key_options,
     "It prints the public half, which goes to the farm's operator. The file stays with you.",
     "  westlight key new\n"
     "  westlight key new --key worker.key\n"},
    {"completion", cmd_completion, "bash|zsh|fish", "print what a shell needs to complete commands",
     NULL, "Where a shell looks for it (for zsh, a folder of your fpath):",
     "  westlight completion bash > \\\n"
     "      ~/.local/share/bash-completion/completions/westlight\n"
     "  westlight completion zsh > ~/.zfunc/_westlight\n"
     "  westlight completion fish > ~/.config/fish/completions/westlight.fish\n"},
};

const struct args_program cmd_program = {
    .name = "westlight",
    .section = "1",
    .summary = "render on a farm that is far away",
    .text =
        "westlight hands a scene to a render farm, follows it, and brings the finished frames "
        "home, "
        "verified. Everything is encrypted on the way, and a scene is sealed before it leaves this "
        "machine. With --local it needs no farm.\n"
        "\n"
        "westlight help COMMAND or TOPIC says more; westlight help --man | man -l - shows all of "
        "it. Where you have no farm yet, begin with:\n"
        "\n"
        "  westlight render SCENE --local\n",
    .commands = commands,
    .n_commands = sizeof(commands) / sizeof(commands[0]),
    .topics = topics_table,
    .n_topics = TOPICS,
    .see_also = "westlight-broker(8), westlight-worker(8)",
    .complain = complain,
};
