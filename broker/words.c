/* words.c - see words.h. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <broker/quota.h>
#include <broker/words.h>
#include <proto/base/bytes.h>

static void no_amount(const struct why *why, char *text, size_t size)
{
    const char *hint = "ask for less, or start a worker that has as much (westlight workers)";
    const char *unit = strstr(why->name, "memory") ? " MiB" : "";

    if (strcmp(why->name, "amount.worker.gpu") == 0 && !(why->best > 0))
        hint = "start a worker on a machine with a GPU, or ask for none (westlight workers)";
    if (why->best > 0)
        snprintf(text, size, "no connected worker offers %s of %.15g%s (the most is %.15g%s): %s",
                 why->name, why->wanted, unit, why->best, unit, hint);
    else
        snprintf(text, size, "no connected worker offers any %s (%.15g%s wanted): %s", why->name,
                 why->wanted, unit, hint);
}

static void no_pool(const char *pool, char *text, size_t size)
{
    if (*pool)
        snprintf(text, size,
                 "no connected worker is in the pool %s: submit to another (--pool), or have an "
                 "operator put a worker there (westlight workers pool WORKER %s)",
                 pool, pool);
    else
        snprintf(text, size,
                 "every connected worker is in a pool, and the job asks for none: submit it to one "
                 "(--pool), or have an operator take a worker out of its pool (westlight workers "
                 "pool WORKER '')");
}

static void unwilling(const struct why *why, char *text, size_t size)
{
    if (why->aside == 0)
        snprintf(
            text, size,
            "every worker that could run it is drained: it waits for westlight workers undrain, or "
            "another worker");
    else if (why->drained == 0)
        snprintf(
            text, size,
            "every worker that could run it is set aside, because too many tasks failed in a row: "
            "tried again by itself, or at once after westlight workers clear");
    else
        snprintf(text, size,
                 "every worker that could run it is drained or set aside: it waits for westlight "
                 "workers "
                 "undrain or clear, or another worker");
}

static void no_attribute(const struct why *why, char *text, size_t size)
{
    const char *value = why->value ? why->value : "";
    char wanted[LIMIT_NAME_BYTES + 8] = "";

    if (strcmp(why->name, ATTRIBUTE_POOL) == 0) {
        no_pool(value, text, size);
        return;
    }
    if (strcmp(why->name, ATTRIBUTE_DENOISER) == 0) {
        snprintf(text, size,
                 "no connected worker has a Blender%s%s with the denoiser, which the scene uses: "
                 "submit it with another version or with -p denoise=no, or start a worker that has "
                 "it (westlight workers)",
                 *value ? " " : "", value);
        return;
    }
    if (*value)
        snprintf(wanted, sizeof wanted, " %s", value);
    if (strncmp(why->name, ATTRIBUTE_SOFTWARE, strlen(ATTRIBUTE_SOFTWARE)) == 0)
        snprintf(text, size,
                 "no connected worker has %s%s: install %s%s on a worker, or start one that has it "
                 "(westlight workers)",
                 why->name, wanted, why->name + strlen(ATTRIBUTE_SOFTWARE), wanted);
    else
        snprintf(text, size,
                 "no connected worker has %s%s: start a worker that has it (westlight workers)",
                 why->name, wanted);
}

void words_why(const struct why *why, const char *about, char *text, size_t size)
{
    text[0] = 0;
    switch (why->kind) {
    case WHY_NOTHING:
        return;
    case WHY_PAUSED:
        snprintf(text, size, "the job is paused: westlight resume");
        return;
    case WHY_DEPENDS:
        snprintf(text, size, "waits for step %s, whose outputs it reads", about);
        return;
    case WHY_NO_WORKER:
        snprintf(text, size,
                 "no worker is connected: start one (westlight-worker) or look at "
                 "westlight workers");
        return;
    case WHY_NO_AMOUNT:
        no_amount(why, text, size);
        return;
    case WHY_NO_ATTRIBUTE:
        no_attribute(why, text, size);
        return;
    case WHY_NO_ONE_FITS:
        snprintf(text, size,
                 "each thing it asks for is on some worker, but no connected worker has "
                 "all of them: compare westlight workers with what the step asks for");
        return;
    case WHY_BUSY:
        snprintf(text, size, "every worker that could run it is busy: it waits its turn");
        return;
    case WHY_UNWILLING:
        unwilling(why, text, size);
        return;
    case WHY_LIMIT:
        snprintf(text, size,
                 "at its limit of %" PRIu32 " worker%s: westlight set JOB --max-workers changes it",
                 why->workers, plural(why->workers));
        return;
    case WHY_QUOTA:
        snprintf(text, size, "%s: nothing more is begun until there is room: " QUOTA_NEXT, about);
        return;
    case WHY_HELD:
        snprintf(text, size,
                 "held for workers that are expected back after a lost link: it goes to "
                 "others if they stay away");
        return;
    case WHY_LICENCE:
        snprintf(text, size,
                 "waits for a licence: it is tried again by itself, as long as it takes "
                 "(westlight log shows what the renderer said)");
        return;
    case WHY_RETRYING:
        snprintf(text, size,
                 "failed on the workers there are: it waits to be tried again "
                 "(westlight log shows why it failed)");
        return;
    }
}

static enum worker_state worker_state_of(const struct worker_view *view)
{
    bool has = view->running + view->queued > 0;

    if (!view->connected)
        return !view->drained ? WORKER_AWAY : has ? WORKER_DRAINING_AWAY : WORKER_DRAINED_AWAY;
    if (!view->listed)
        return WORKER_JOINING;
    if (view->drained)
        return has ? WORKER_DRAINING : WORKER_DRAINED;
    if (view->aside)
        return WORKER_SET_ASIDE;
    if (view->no_room)
        return WORKER_DISK_FULL;
    return view->running ? WORKER_RUNNING : WORKER_IDLE;
}

const char *words_worker(const struct worker_view *view)
{
    return worker_state_name(worker_state_of(view));
}

const char *words_reason(const struct job_view *view)
{
    switch (view->reason) {
    case REASON_NONE:
        return view->used_up ? "its studio's quota is used up" : "";
    case REASON_USER:
        return "on request";
    case REASON_FAILED_FIRST:
        return "its first attempts all failed";
    case REASON_FAILED_MANY:
        return "too many of its tasks failed";
    }
    return "";
}

void words_done(enum verb_kind verb, uint64_t tasks, char *text, size_t size)
{
    text[0] = 0;
    switch (verb) {
    case VERB_CANCEL:
        snprintf(text, size, "cancelled %" PRIu64 " task%s", tasks, plural(tasks));
        return;
    case VERB_PAUSE:
        snprintf(text, size, "paused; what runs is finished first");
        return;
    case VERB_RESUME:
        snprintf(text, size, "resumed");
        return;
    case VERB_RETRY:
        snprintf(text, size, "%" PRIu64 " task%s will be run again", tasks, plural(tasks));
        return;
    }
}
