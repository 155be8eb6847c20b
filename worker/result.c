/* result.c - see result.h.
 *
 * Everything goes to disk before anything is sent: then sending, sending again after a lost link
 * and sending after a restart are the same thing.
 */
#include <worker/result.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <proto/base/clock.h>
#include <proto/base/log.h>
#include <worker/inspect.h>
#include <worker/room.h>

#define TRIES_MAX      60 /* a second each, and what making it takes */
#define LOG_BLOCKS_MAX ((LIMIT_LOG_BYTES + LIMIT_BLOCK_BYTES - 1) / LIMIT_BLOCK_BYTES + 1)

/* A reference and the storage it borrows. */
struct named {
    Wl__BlockRef ref;
    struct block_key key;
    uint8_t wrapped[32];
    struct bytes sealed; /* inline only */
};

struct making {
    struct task *task;
    struct sealer *sealer;
    struct spool spool;
    struct bytes ids; /* of blocks for the vault */
    int spool_error;  /* 0: none; then an error of making the outputs is one of reading them */
    uint64_t bytes_out;
    uint64_t files, file_bytes;
    size_t n_manifest, n_log, n_refs;
    /* From here on what is not counted is not set: there is room for much more than most have. */
    struct named manifest[LIMIT_MANIFEST_BLOCKS], log[LOG_BLOCKS_MAX];
    uint8_t refs[LIMIT_REFS_BLOCKS][32];
};

static int emit(void *user, const struct block_key *key, const void *sealed, size_t size)
{
    struct making *making = user;
    int r = spool_put(&making->spool, &key->id, sealed, size, false);

    if (r == 0)
        r = bytes_append(&making->ids, &key->id, sizeof(key->id));
    if (r < 0) {
        making->spool_error = r;
        return r;
    }
    making->bytes_out += size;
    return 0;
}

/* Small ones ride in the message, `sealed` with them; others go to the vault. */
static int name_block(struct making *making, const uint8_t secret[32], const struct block_key *key,
                      struct bytes *sealed, struct named *named)
{
    int r;

    named->key = *key;
    named->sealed = (struct bytes){0};
    wl__block_ref__init(&named->ref);
    wire_block_ref_set(making->sealer, secret, &named->key, named->wrapped, &named->ref);
    if (sealed->size > LIMIT_INLINE_BYTES) {
        r = emit(making, key, sealed->data, sealed->size);
        bytes_deinit(sealed);
        *sealed = (struct bytes){0};
        return r;
    }
    making->bytes_out += sealed->size;
    named->sealed = *sealed;
    *sealed = (struct bytes){0};
    named->ref.inline_sealed.data = named->sealed.data;
    named->ref.inline_sealed.len = named->sealed.size;
    return 0;
}

/* Cuts what is no file into blocks; what is past `max` of them is left out. No data gives `least`.
 */
static int name_blocks(struct making *making, const uint8_t secret[32], const struct bytes *data,
                       size_t least, size_t max, struct named *named, size_t *n)
{
    for (size_t at = 0; (at < data->size || *n < least) && *n < max; at += LIMIT_BLOCK_BYTES) {
        size_t left = data->size - at;
        _cleanup_(bytes_deinit) struct bytes sealed = {0};
        struct block_key key;
        int r = seal_block(making->sealer, secret, data->data + at,
                           left < LIMIT_BLOCK_BYTES ? left : LIMIT_BLOCK_BYTES, &sealed, &key);

        if (r == 0)
            r = name_block(making, secret, &key, &sealed, &named[*n]);
        if (r != 0)
            return r;
        ++*n;
    }
    return 0;
}

static int make_log(struct making *making, const struct bytes *log)
{
    uint8_t secret[32];
    int r;

    job_key_log(making->task->key_out, secret);
    r = name_blocks(making, secret, log, 0, LOG_BLOCKS_MAX, making->log, &making->n_log);
    wipe(secret, sizeof(secret));
    return r;
}

static void say(struct outcome *outcome, enum attempt_class class, const char *what,
                const struct bytes *why)
{
    outcome->class = class;
    snprintf(outcome->message, sizeof(outcome->message), "%s%s%.*s", what,
             why && why->size > 0 ? ": " : "", why ? (int)why->size : 0,
             why && why->data ? (const char *)why->data : "");
}

/* How many frames the task renders: the values of its chunk. */
static uint64_t frames_of(const struct stage *stage, uint64_t task)
{
    uint64_t frames = 1;
    struct point point;

    if (space_point(&stage->space, task, &point) != 0)
        return 1;
    for (size_t i = 0; i < point.n_values; i++)
        if (point.values[i].chunked && point.values[i].value_count > frames)
            frames = point.values[i].value_count;
    return frames;
}

/* 1: the pictures are not as they must be, and the outcome says how. On 0 it may hold a warning. */
static int look_at_pictures(struct making *making, struct outcome *outcome,
                            const struct stage *stage, const struct manifest_file *files, size_t n,
                            struct bytes *log)
{
    const struct task *task = making->task;
    int r;

    if (!stage->step->expect)
        return 0;
    r = inspect_result(&(struct inspect_config){.expect = stage->step->expect,
                                                .frames = frames_of(stage, task->lease.task),
                                                .folders = (const char *const *)stage->outputs,
                                                .files = files,
                                                .n_files = n,
                                                .program = task->board->inspector,
                                                .log = log},
                       outcome->message);
    if (r == INSPECT_E_BAD) {
        outcome->class = CLASS_BAD_OUTPUT;
    } else if (r < 0) {
        outcome->class = CLASS_TRANSFER;
        snprintf(outcome->message, sizeof(outcome->message),
                 "its pictures cannot be looked at on this worker: %s", strerror(-r));
    }
    return r != 0;
}

/* 1: there is no output, and the outcome says why. */
static int make_outputs(struct making *making, struct outcome *outcome, struct collect *collect,
                        const struct stage *stage, struct bytes *log)
{
    const Wl__StepRecipe *step = stage->step;
    _cleanup_(freep) struct manifest_file *files = NULL;
    _cleanup_(collected_deinit) struct collected collected = {0};
    _cleanup_(bytes_deinit) struct bytes why = {0};
    size_t n = 0;
    int r = collect_list(collect, &files, &n, log, &why);

    if (r == 0 && n == 0 && step->n_outputs > 0 && !step->output_optional) {
        (void)bytes_printf(
            &why,
            "the task ended well but wrote no file below %s%s; let the renderer write there, or "
            "declare where it writes",
            step->outputs[0]->path, step->n_outputs > 1 ? " or its other output folders" : "");
        say(outcome, CLASS_NO_OUTPUT, "no output", &why);
        return 1;
    }
    if (r == 0) {
        r = look_at_pictures(making, outcome, stage, files, n, log);
        if (r != 0)
            return r;
    }
    if (r == 0)
        r = collect_seal(collect, making->sealer, making->task->key_out, files, n, emit, making,
                         &collected, &why);
    if (r == 0) {
        making->files = collected.files;
        making->file_bytes = collected.file_bytes;
        return name_blocks(making, making->task->key_out, &collected.manifest, 1,
                           LIMIT_MANIFEST_BLOCKS, making->manifest, &making->n_manifest);
    }
    if (r < 0 &&
        (making->spool_error || why.size == 0 || r == -ENOMEM || r == -EMFILE || r == -ENFILE))
        return r; /* there may be more in a moment */
    say(outcome, r == -EIO ? CLASS_TRANSFER : CLASS_RENDERER, "its output cannot be taken", &why);
    return 1;
}

static int make_refs(struct making *making)
{
    struct bytes blocks[LIMIT_REFS_BLOCKS] = {0};
    struct block_id names[LIMIT_REFS_BLOCKS];
    size_t n = 0;
    int r;

    if (making->ids.size == 0)
        return 0;
    r = refs_pack((const struct block_id *)(const void *)making->ids.data,
                  making->ids.size / sizeof(struct block_id), blocks, names, &n);
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = spool_put(&making->spool, &names[i], blocks[i].data, blocks[i].size, true);
        memcpy(making->refs[i], names[i].bytes, 32);
        making->bytes_out += blocks[i].size;
    }
    for (size_t i = 0; i < LIMIT_REFS_BLOCKS; i++)
        bytes_deinit(&blocks[i]);
    if (r == 0)
        making->n_refs = n;
    return r;
}

static int save(struct making *making, const struct outcome *outcome)
{
    Wl__Result result = WL__RESULT__INIT;
    Wl__Lease lease = WL__LEASE__INIT;
    Wl__Usage usage = WL__USAGE__INIT;
    ProtobufCBinaryData refs[LIMIT_REFS_BLOCKS];
    Wl__BlockRef *manifest[LIMIT_MANIFEST_BLOCKS], *log[LOG_BLOCKS_MAX];
    char message[LIMIT_MESSAGE_BYTES];

    wire_lease_set(&lease, &making->task->lease);
    usage.wall_ns = outcome->wall_ns;
    usage.cpu_ns = outcome->cpu_ns;
    usage.memory_bytes = outcome->memory_bytes;
    usage.bytes_in = outcome->bytes_in;
    usage.bytes_out = making->bytes_out;
    usage.card_ns = outcome->card_ns;
    for (size_t i = 0; i < making->n_refs; i++)
        refs[i] = (ProtobufCBinaryData){.len = 32, .data = making->refs[i]};
    for (size_t i = 0; i < making->n_manifest; i++)
        manifest[i] = &making->manifest[i].ref;
    for (size_t i = 0; i < making->n_log; i++)
        log[i] = &making->log[i].ref;
    snprintf(message, sizeof(message), "%s", outcome->message);
    result.lease = &lease;
    result.ticket =
        (ProtobufCBinaryData){.len = making->task->ticket_size, .data = making->task->ticket};
    result.class_ = outcome->class;
    result.exit_status = outcome->exit_status;
    result.message = message;
    result.n_manifest = making->n_manifest;
    result.manifest = manifest;
    result.n_refs = making->n_refs;
    result.refs = refs;
    result.n_log = making->n_log;
    result.log = log;
    result.usage = &usage;
    result.started_wall_s = outcome->started_wall_s;
    result.ended_wall_s = outcome->ended_wall_s;
    result.output_files = making->files;
    result.output_bytes = making->file_bytes;
    return spool_save(&making->spool, &result);
}

static void forget(struct making *making)
{
    for (size_t i = 0; i < making->n_manifest; i++)
        bytes_deinit(&making->manifest[i].sealed);
    for (size_t i = 0; i < making->n_log; i++)
        bytes_deinit(&making->log[i].sealed);
    making->n_manifest = making->n_log = making->n_refs = 0;
    making->ids.size = 0;
    making->files = making->file_bytes = making->bytes_out = 0;
    making->spool_error = 0;
}

/* Forgets what was made so far, on disk too, for a failure that says why. */
static void start_over(struct making *making)
{
    forget(making);
    if (making->spool.folder)
        spool_clear(&making->spool);
}

static int make(struct making *making, struct outcome *outcome, struct collect *collect,
                const struct stage *stage, struct bytes *log)
{
    int r = 0;

    if (outcome->class == CLASS_OK && collect) {
        r = make_outputs(making, outcome, collect, stage, log);
        if (r == 1) {
            start_over(making);
            r = 0;
        }
    }
    if (r == 0)
        r = make_log(making, log);
    if (r == 0)
        r = make_refs(making);
    return r;
}

/* The output cannot be kept; its log, for which there may be room now, still tells what happened.
 */
static void make_log_alone(struct making *making, const struct bytes *log)
{
    int r;

    start_over(making);
    r = make_log(making, log);
    if (r == 0)
        r = make_refs(making);
    if (r != 0)
        start_over(making);
}

static bool no_space(int r)
{
    return r == -ENOSPC || r == -EDQUOT;
}

/* What a renderer worked on for hours waits for space on the disk; for memory and open files not as
 * long, since it may be the output itself that takes more than there is. */
static int make_in_time(struct making *making, uint64_t number, struct outcome *outcome,
                        struct collect *collect, const struct stage *stage, struct bytes *log)
{
    const struct outcome first = *outcome;
    size_t log_size = log->size;
    int64_t since_ns = clock_monotonic_ns();
    int tries = 0, r;

    for (;;) {
        r = making->spool.folder ? 0
                                 : spool_new(making->task->board->state, number,
                                             making->task->board->spools, &making->spool);
        if (r == 0)
            r = make(making, outcome, collect, stage, log);
        if (!no_space(r) && (++tries > TRIES_MAX || !task_wait_for_more(making->task, r)))
            return r;
        start_over(making);
        if (no_space(r) && !room_wait(making->task, &since_ns))
            return r;
        *outcome = first;
        log->size = log_size;
    }
}

void result_make(struct task *task, struct sealer *sealer, struct outcome *outcome,
                 struct collect *collect, const struct stage *stage, struct bytes *log)
{
    struct task_board *board = task->board;
    struct making *making = malloc(sizeof(*making));
    uint64_t number;
    int r;

    if (!making)
        return; /* without a result the task is handed back */
    memset(making, 0, offsetof(struct making, manifest));
    making->task = task;
    making->sealer = sealer;
    pthread_mutex_lock(&board->lock);
    number = board->spool_next++;
    pthread_mutex_unlock(&board->lock);
    r = make_in_time(making, number, outcome, collect, stage, log);
    if (r != 0 && atomic_load(&board->closing)) { /* without a result it is run again */
        spool_remove(&making->spool);
        forget(making);
        bytes_deinit(&making->ids);
        free(making);
        return;
    }
    if (r != 0) {
        make_log_alone(making, log);
        outcome->class = CLASS_TRANSFER;
        snprintf(
            outcome->message, sizeof(outcome->message),
            "the output cannot be kept on the worker: %s; give the worker more room, memory or "
            "open files (it keeps results below %s)",
            strerror(r < 0 ? -r : EIO), board->state);
    }
    r = save(making, outcome);
    if (r < 0) /* it is sent all the same, from memory */
        log_warn("spool", "number=%llu why=\"%s\"", (unsigned long long)number, strerror(-r));
    forget(making);
    bytes_deinit(&making->ids);
    pthread_mutex_lock(&board->lock);
    task->spool = making->spool;
    pthread_mutex_unlock(&board->lock);
    free(making);
}

int result_fail(struct task *task, enum attempt_class class, const char *message)
{
    Wl__Result result = WL__RESULT__INIT;
    Wl__Result *old = task->spool.result;
    struct spool next = {
        .folder = task->spool.folder, .reuse = task->spool.reuse, .blocks = task->spool.blocks};
    char text[LIMIT_MESSAGE_BYTES];
    int r;

    snprintf(text, sizeof(text), "%s", message);
    result.lease = old->lease;
    result.ticket = old->ticket;
    result.class_ = class;
    result.exit_status = old->exit_status;
    result.message = text;
    result.usage = old->usage;
    result.started_wall_s = old->started_wall_s;
    result.ended_wall_s = old->ended_wall_s;
    if (next.folder)
        spool_clear(&next);
    r = spool_save(&next, &result);
    if (r < 0)
        log_warn("spool", "folder=%s why=\"%s\"", next.folder ? next.folder : "none", strerror(-r));
    if (!next.result)
        return r;
    pthread_mutex_lock(&task->board->lock); /* the agent may be looking at the old one */
    task->spool = next;
    pthread_mutex_unlock(&task->board->lock);
    wl__result__free_unpacked(old, NULL);
    return 0;
}
