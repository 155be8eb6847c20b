/* render_submit.h - a job goes to the farm, or goes on to it after an upload that was cut short.
 *
 * Errors:  an exit code after a message.
 */
#pragma once

#include <client/render_home.h>

/* What is to be kept of the command, so that another may go on with its upload. */
void render_submit_words(struct render *render, int argc, char **argv);
/* --resume: from here on everything is as it was for the command that began the upload: its words,
 * its folder, its farm, which is opened. render->accepted where nothing is left to send. */
int render_again(struct render *render, bool *wait);
int render_farm(struct render *render); /* opens it, once */
int render_submit(struct render *render, struct westlight_job *job);
/* What submit says at the end. */
void render_submitted(struct render *render);
