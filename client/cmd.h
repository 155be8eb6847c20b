/* cmd.h - the commands: one function each, called with argv[0] the command's name; the answer is
 * the exit code. commands.c holds the table, topics.c what help says beside it.
 */
#pragma once

#include <client/options.h>
#include <proto/base/args.h>

enum { TOPICS = 8 };
extern const struct args_topic topics_table[TOPICS];
extern const struct args_program cmd_program;

int cmd_render(int argc, char **argv);
int cmd_submit(int argc, char **argv);
int cmd_jobs(int argc, char **argv);
int cmd_show(int argc, char **argv);
int cmd_watch(int argc, char **argv);
int cmd_fetch(int argc, char **argv);
int cmd_log(int argc, char **argv);
int cmd_cancel(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_retry(int argc, char **argv);
int cmd_software(int argc, char **argv);
int cmd_set(int argc, char **argv);
int cmd_resubmit(int argc, char **argv);
int cmd_archive(int argc, char **argv);
int cmd_workers(int argc, char **argv);
int cmd_key(int argc, char **argv);
int cmd_join(int argc, char **argv);
int cmd_completion(int argc, char **argv);

/* What most commands take, of which each has some (commands.c), and words. */
struct cmd_args {
    const char *farm, *out, *frames_text;
    struct westlight_range *frames;
    size_t n_frames;
    bool json, follow, force, all, archived, undo, deliver;
    long attempt, step, tile;
    const char *words[4];
    int n_words;
};
/* Takes the command's options and from min to max words; complains otherwise. */
int cmd_parse(struct cmd_args *args, int argc, char **argv, int min, int max);
/* The same for a command whose options are its own: *ret_word is the first word's place. */
int cmd_read(int argc, char **argv, args_take *take, void *user, int *ret_word);
void cmd_args_deinit(struct cmd_args *args);

/* ~/.config/westlight, made where it is missing. */
int cmd_config_folder(char *path, size_t size);
/* Finds the farm of that name, else the default; "local" is the private one that runs now. */
int cmd_farm(const char *farm, struct westlight_farm *ret_farm);
#define CMD_OPEN_MS 5000 /* a handshake over a long link takes a tenth of a second */
/* Opens the farm; complains and gives the exit code where it cannot. */
int cmd_open(const char *farm, struct westlight **ret_westlight);
/* Whoever waits is told when the farm does not answer; cmd_open does so. */
void cmd_tell_link(struct westlight *westlight);
/* Opens, and resolves the job named by words[0]. */
int cmd_open_job(const struct cmd_args *args, struct westlight **ret_westlight,
                 char ret_id[WESTLIGHT_ID_TEXT]);
/* Ctrl-C ends the call in progress on these connections; cmd_interrupted says that it happened. */
void cmd_interruptible(struct westlight *westlight);
bool cmd_interrupted(void);

/* The job's newest failed attempt, in a sentence; false where none failed, or none can be asked. */
struct cmd_failure {
    uint32_t step;
    uint64_t task;
    char text[1024];
};
bool cmd_failure(struct westlight *westlight, const char *id, struct cmd_failure *ret_failure);
