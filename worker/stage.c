/* stage.c - see stage.h.
 *
 * All blocks of a task are named before the first is fetched, so that one window carries them all;
 * then the files are laid out from the cache alone.
 */
#include <worker/stage.h>

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <proto/base/log.h>
#include <proto/manifest.h>
#include <proto/wire.h>
#include <worker/laid.h>
#include <worker/stage_clean.h>
#include <worker/stage_maps.h>
#include <worker/wants.h>

struct staging {
    const struct stage_config *config;
    struct stage *stage;
    Wl__Manifest *manifests[LIMIT_ROOTS];
    struct wants wants;
    uint64_t leaf_work, file_work; /* left for comparing names with patterns */
    struct laid laid;
};

/* A file to be written below `folder`. */
struct laying {
    const char *folder;
    const Wl__FileEntry *entry;
    const Wl__DependencyResult *by; /* NULL: an input's */
};

static int fail(struct staging *staging, enum attempt_class class, const char *format, ...)
    _printf_(3, 4);
static int fail(struct staging *staging, enum attempt_class class, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(staging->stage->why, sizeof(staging->stage->why), format, arguments);
    va_end(arguments);
    staging->stage->class = class;
    return 1;
}

/* What an error of the supply, or of opening a block, means for the task. */
static int fail_transfer(struct staging *staging, const char *what, int r)
{
    const char *why = supply_why(staging->config->supply);
    bool lost = r == TRANSFER_E_MISSING || r == TRANSFER_E_DAMAGED;

    if (r == -ECANCELED || r == -ENOMEM)
        return r;
    if (r >= SEAL_E_ID && r <= SEAL_E_SIZE)
        why = r == SEAL_E_TAG ? "a block of it does not open with the key it was named with"
                              : "a block of it is malformed";
    else if (!*why)
        why = r < 0 ? strerror(-r) : "a block of it is not to be had";
    return fail(staging, lost ? CLASS_MISSING_INPUT : CLASS_TRANSFER, "%s: %s", what, why);
}

static bool stopped(const struct staging *staging)
{
    return staging->config->stop && atomic_load(staging->config->stop);
}

/* ---- the recipe ---- */

/* A block that came inline, or else from the vault. */
static int open_one(struct staging *staging, const Wl__BlockRef *ref, const struct block_key *key,
                    struct bytes *out)
{
    if (ref->inline_sealed.len > 0)
        return open_block(staging->config->sealer, key, ref->inline_sealed.data,
                          ref->inline_sealed.len, out);
    const struct bytes *block;
    int r = supply_open(staging->config->supply, key, &block);

    out->size = 0;
    return r == 0 ? bytes_append(out, block->data, block->size) : r;
}

/* Blocks that came inline, or else from the vault, one after another into `out`. It fails the task
 * itself: only here is it known which call an error came from. */
static int open_refs(struct staging *staging, const char *what, const uint8_t secret[32],
                     Wl__BlockRef *const *refs, size_t n, struct bytes *out)
{
    _cleanup_(bytes_wipe_deinit) struct bytes keys = {0}, absent = {0}, body = {0};
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++) {
        struct block_key key;

        r = wire_block_ref(staging->config->sealer, secret, refs[i], &key);
        if (r == 0)
            r = bytes_append(&keys, &key, sizeof(key));
        if (r == 0 && refs[i]->inline_sealed.len == 0)
            r = bytes_append(&absent, &key, sizeof(key));
        wipe(&key, sizeof(key));
    }
    if (r > 0)
        return fail(staging, CLASS_TRANSFER, "%s: the broker names a block of it that cannot be",
                    what);
    if (r == 0)
        r = supply_stage(staging->config->supply,
                         (const struct block_key *)(const void *)absent.data,
                         absent.size / sizeof(struct block_key));
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = open_one(staging, refs[i], (const struct block_key *)(const void *)keys.data + i,
                     &body);
        if (r == 0)
            r = bytes_append(out, body.data, body.size);
    }
    return r == 0 ? 0 : fail_transfer(staging, what, r);
}

static int check_step(struct staging *staging)
{
    struct stage *stage = staging->stage;
    const Wl__Recipe *recipe = stage->recipe;

    if (staging->config->step >= recipe->n_steps)
        return fail(staging, CLASS_TRANSFER, "the recipe has no step %u", staging->config->step);
    stage->step = recipe->steps[staging->config->step];
    if (recipe->n_roots > LIMIT_ROOTS || stage->step->n_outputs > LIMIT_OUTPUTS)
        return fail(staging, CLASS_TRANSFER, "the recipe has too many roots or outputs");
    for (size_t i = 0; i < stage->step->n_dependencies; i++)
        if (stage->step->dependencies[i]->step >= recipe->n_steps)
            return fail(staging, CLASS_TRANSFER, "step %s: depends on a step the recipe lacks",
                        stage->step->name);
    if (wire_space(stage->step->space, stage->step->n_space, &stage->space) != 0)
        return fail(staging, CLASS_TRANSFER, "step %s: its parameter space is malformed",
                    stage->step->name);
    if (staging->config->task >= space_size(&stage->space))
        return fail(staging, CLASS_TRANSFER, "step %s: has no task %llu", stage->step->name,
                    (unsigned long long)staging->config->task);
    return 0;
}

static int load_recipe(struct staging *staging)
{
    _cleanup_(bytes_wipe_deinit) struct bytes packed = {0};
    const char *why = NULL;
    int r =
        open_refs(staging, "recipe", staging->config->key_in, &staging->config->recipe, 1, &packed);

    if (r != 0)
        return r;
    r = wire_recipe_unpack(packed.data, packed.size, &staging->stage->recipe, &why);
    if (r < 0)
        return r;
    if (r > 0)
        return fail(staging, CLASS_TRANSFER, "the recipe cannot be read: %s",
                    why ? why : "it is malformed");
    return check_step(staging);
}

/* ---- inputs ---- */

static int want(struct staging *staging)
{
    int r = wants_init(&staging->wants, staging->stage->step, &staging->stage->space,
                       staging->config->task);

    return r > 0 ? fail(staging, CLASS_TRANSFER, "a chunk of more than %d frames", WANTS_FRAMES_MAX)
                 : r;
}

struct asking {
    struct staging *staging;
    uint32_t root;
};

/* A leaf that takes too long to rule out is read. */
static bool asked(void *user, const char *path)
{
    const struct asking *asking = user;

    return stopped(asking->staging) ||
           wants_file(&asking->staging->wants, asking->root, path, &asking->staging->leaf_work);
}

/* The blocks of those leaves of a root's list in which there may be a file that is wanted. */
static int leaves_wanted(struct staging *staging, uint32_t index, struct block_key *ret_keys,
                         size_t *ret_n)
{
    const Wl__Root *root = staging->stage->recipe->roots[index];
    struct asking asking = {staging, index};
    const Wl__Leaf whole = {.blocks = (uint32_t)root->n_manifest};
    size_t n_leaves = root->n_leaves ? root->n_leaves : 1, at = 0, n = 0;
    int r = 0;

    for (size_t i = 0; r == 0 && i < n_leaves; i++) {
        const Wl__Leaf *leaf = root->n_leaves ? root->leaves[i] : &whole;
        bool wanted = manifest_leaf_may(leaf, asked, &asking);

        if (stopped(staging))
            return -ECANCELED;
        if (leaf->blocks == 0 || leaf->blocks > root->n_manifest - at)
            r = WIRE_E_FORM;
        for (uint32_t k = 0; r == 0 && k < leaf->blocks; k++, at++)
            if (wanted)
                r = wire_block_key(root->manifest[at], &ret_keys[n++]);
    }
    if (r != 0 || at != root->n_manifest)
        return fail(staging, CLASS_TRANSFER, "root %s: its list of files is malformed", root->path);
    *ret_n = n;
    return 0;
}

static int load_manifest(struct staging *staging, uint32_t index, Wl__Manifest **ret_manifest)
{
    const Wl__Root *root = staging->stage->recipe->roots[index];
    _cleanup_(freep) struct block_key *keys = calloc(root->n_manifest + 1, sizeof(*keys));
    _cleanup_(bytes_deinit) struct bytes why = {0};
    size_t n = 0;

    if (!keys)
        return -ENOMEM;
    int r = leaves_wanted(staging, index, keys, &n);
    if (r != 0)
        return r;
    r = supply_stage(staging->config->supply, keys, n);
    if (r != 0)
        return fail_transfer(staging, root->path, r);
    r = manifest_load(keys, n, supply_open, staging->config->supply, ret_manifest, &why);
    if (r != 0 && why.size > 0)
        return fail(staging, CLASS_TRANSFER, "root %s: %.*s", root->path, (int)why.size,
                    (const char *)why.data);
    return r == 0 ? 0 : fail_transfer(staging, root->path, r);
}

static int name_blocks(struct bytes *keys, const Wl__FileEntry *entry)
{
    for (size_t i = 0; i < entry->n_parts; i++) {
        struct block_key key;
        int r = wire_block_key(entry->parts[i]->block, &key);

        if (r == 0)
            r = bytes_append(keys, &key, sizeof(key));
        if (r != 0)
            return r;
    }
    return 0;
}

/* Another task may have left a file of that path: the same content is no harm and need not be
 * written again; different content would silently be whichever came last. */
static int claim(struct staging *staging, int fd, const struct laying *file, bool *ret_there)
{
    const struct laid_by by = {file->by->step, file->by->task}, *before;
    char first[LIMIT_NAME_BYTES], second[LIMIT_NAME_BYTES];
    int r = laid_note(&staging->laid, file->folder, file->entry->path, by, &before);

    *ret_there = false;
    if (r < 0 || !before)
        return r;
    r = manifest_same_file(fd, file->entry, supply_open, staging->config->supply, false, ret_there);
    if (r != 0 || *ret_there)
        return r != 0 ? fail_transfer(staging, file->entry->path, r) : 0;
    laid_name(staging->stage->recipe, *before, first, sizeof(first));
    laid_name(staging->stage->recipe, by, second, sizeof(second));
    return fail(staging, CLASS_MISSING_INPUT,
                "%.300s: %.80s and %.80s both wrote it, with different content: give each task's "
                "file a name of its own",
                file->entry->path, first, second);
}

/* The file whose block the transfer names in its complaint, by the first digits of its id. */
static void name_lost(const struct staging *staging, const struct laying *files, size_t n_files,
                      char *ret_name, size_t size)
{
    const char *why = strstr(supply_why(staging->config->supply), "block ");
    char hex[17];

    snprintf(ret_name, size, "inputs");
    for (size_t i = 0; why && i < n_files; i++)
        for (size_t k = 0; k < files[i].entry->n_parts; k++) {
            const ProtobufCBinaryData *id = &files[i].entry->parts[k]->block->id;

            hex_encode(id->data, sizeof(hex) / 2, hex);
            if (strncmp(why + strlen("block "), hex, sizeof(hex) - 1) != 0)
                continue;
            snprintf(ret_name, size, "input %.200s", files[i].entry->path);
            return;
        }
}

/* Without words of the manifest's an error is one of fetching a block. */
static int write_one(struct staging *staging, int fd, const Wl__FileEntry *entry)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};
    char name[256];
    int r = manifest_write_file(fd, entry, supply_open, staging->config->supply, false, &why);

    if (r == 0 || r == -ECANCELED || r == -ENOMEM)
        return r;
    snprintf(name, sizeof(name), "input %.200s", entry->path);
    return why.size > 0 ? fail(staging, CLASS_TRANSFER, "input %s: %.*s", entry->path,
                               (int)why.size, (const char *)why.data)
                        : fail_transfer(staging, name, r);
}

/* Fetches what the files need, then writes them. */
static int lay(struct staging *staging, const struct laying *files, size_t n_files)
{
    _cleanup_(bytes_wipe_deinit) struct bytes keys = {0};
    int r = 0;

    for (size_t i = 0; r == 0 && i < n_files; i++)
        r = name_blocks(&keys, files[i].entry);
    if (r == 0)
        r = supply_stage(staging->config->supply, (const struct block_key *)(const void *)keys.data,
                         keys.size / sizeof(struct block_key));
    if (r != 0) {
        char name[256];
        name_lost(staging, files, n_files, name, sizeof(name));
        return fail_transfer(staging, name, r);
    }
    for (size_t i = 0; r == 0 && i < n_files; i++) {
        _cleanup_(closep) int fd = open(files[i].folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (stopped(staging))
            return -ECANCELED;
        if (fd < 0)
            return -errno;
        bool there = false;
        if (files[i].by)
            r = claim(staging, fd, &files[i], &there);
        if (r != 0 || there)
            continue;
        r = write_one(staging, fd, files[i].entry);
    }
    return r;
}

/* The files of a root that are wanted. */
static int root_files(struct staging *staging, uint32_t index, struct bytes *files)
{
    const Wl__Manifest *manifest = staging->manifests[index];
    int r = 0;

    for (size_t i = 0; r == 0 && i < manifest->n_files; i++) {
        struct laying file = {.folder = staging->stage->maps[index].to,
                              .entry = manifest->files[i]};

        if (stopped(staging))
            return -ECANCELED;
        if (wants_file(&staging->wants, index, file.entry->path, &staging->file_work))
            r = bytes_append(files, &file, sizeof(file));
        if (staging->file_work == 0)
            return fail(staging, CLASS_TRANSFER,
                        "step %s: comparing its patterns with the files of %s takes too long: give "
                        "it fewer patterns, or some with fewer '*'",
                        staging->stage->step->name, staging->stage->recipe->roots[index]->path);
    }
    return r;
}

static int lay_inputs(struct staging *staging)
{
    const Wl__Recipe *recipe = staging->stage->recipe;
    _cleanup_(bytes_deinit) struct bytes files = {0};
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < recipe->n_roots; i++) {
        if (!wants_root(&staging->wants, i) || recipe->roots[i]->n_manifest == 0)
            continue;
        r = load_manifest(staging, i, &staging->manifests[i]);
        if (r == 0)
            r = root_files(staging, i, &files);
    }
    if (r == 0)
        r = lay(staging, (const struct laying *)(const void *)files.data,
                files.size / sizeof(struct laying));
    supply_unpin(staging->config->supply);
    return r;
}

/* ---- what other tasks left ---- */

static int lay_result(struct staging *staging, const Wl__DependencyResult *result)
{
    const Wl__Recipe *recipe = staging->stage->recipe;
    _cleanup_(bytes_deinit) struct bytes packed = {0}, files = {0}, why = {0};
    _cleanup_(freep) char(*folders)[LIMIT_PATH_BYTES] = calloc(LIMIT_OUTPUTS, sizeof(*folders));
    const Wl__StepRecipe *step;
    Wl__Manifest *manifest = NULL;
    int r;

    if (!folders)
        return -ENOMEM;
    if (result->n_manifest == 0 || result->step >= recipe->n_steps ||
        recipe->steps[result->step]->n_outputs > LIMIT_OUTPUTS || result->key_out.len != 32)
        return fail(staging, CLASS_TRANSFER, "a result this task depends on is malformed");
    step = recipe->steps[result->step];
    for (size_t i = 0; i < step->n_outputs; i++) {
        r = stage_maps_output(staging->stage, step->outputs[i], folders[i]);
        if (r < 0)
            return r;
    }
    r = open_refs(staging, "the output of a task this one depends on", result->key_out.data,
                  result->manifest, result->n_manifest, &packed);
    if (r != 0)
        return r;
    r = manifest_parse(packed.data, packed.size, &manifest, &why);
    if (r != 0)
        return fail(staging, CLASS_TRANSFER, "the output of a task this one depends on: %.*s",
                    (int)why.size, why.data ? (const char *)why.data : "");
    for (size_t i = 0; r == 0 && i < manifest->n_files; i++) {
        struct laying file = {.entry = manifest->files[i], .by = result};

        if (file.entry->root >= step->n_outputs) {
            r = fail(staging, CLASS_TRANSFER, "%s: of an output step %s does not declare",
                     file.entry->path, step->name);
            break;
        }
        file.folder = folders[file.entry->root];
        r = bytes_append(&files, &file, sizeof(file));
    }
    if (r == 0)
        r = lay(staging, (const struct laying *)(const void *)files.data,
                files.size / sizeof(struct laying));
    wl__manifest__free_unpacked(manifest, NULL);
    return r;
}

static int lay_dependencies(struct staging *staging)
{
    uint64_t after = 0;
    bool more = staging->stage->step->n_dependencies > 0;
    int r = 0;

    while (r == 0 && more) {
        _cleanup_(wire_freep) Wl__Envelope *envelope = NULL;
        const Wl__DependencyResults *page;

        r = staging->config->dependencies(staging->config->user, after, &envelope);
        if (r > 0)
            return fail(staging, CLASS_TRANSFER,
                        "the broker does not give the results this task depends on");
        if (r < 0)
            return r;
        page = envelope->dependency_results;
        for (size_t i = 0; r == 0 && i < page->n_results; i++)
            r = lay_result(staging, page->results[i]);
        more = page->more && page->next > after; /* a page that does not advance is the last */
        after = page->next;
    }
    supply_unpin(staging->config->supply);
    return r;
}

/* ---- all of it ---- */

static void staging_deinit(struct staging *staging)
{
    for (size_t i = 0; i < LIMIT_ROOTS; i++)
        if (staging->manifests[i])
            wl__manifest__free_unpacked(staging->manifests[i], NULL);
    wants_deinit(&staging->wants);
    laid_deinit(&staging->laid);
}

int stage_run(const struct stage_config *config, struct stage *ret_stage)
{
    struct staging staging = {
        .config = config, .stage = ret_stage, .leaf_work = WANTS_WORK, .file_work = WANTS_WORK};
    struct stage *stage = ret_stage;
    _cleanup_(freep) char *tmp = NULL;
    int r;

    *stage = (struct stage){.reuse = config->reuse};
    if (config->reuse)
        memcpy(stage->reuse_key, config->reuse_key, REUSE_KEY_BYTES);
    if (config->still)
        stage->still = TAKE_PTR(*config->still);
    if (!still_lately(stage->still)) /* somebody tidied up, perhaps */
        still_free(TAKE_PTR(stage->still));
    space_init(&stage->space);
    stage->folder = strdup(config->folder);
    if (!stage->folder || asprintf(&stage->work, "%s/work", config->folder) < 0)
        return -ENOMEM;
    r = asprintf(&tmp, "%s/tmp", stage->work) < 0 ? -ENOMEM : still_make(stage->still, tmp);
    if (r == 0)
        r = load_recipe(&staging);
    if (r == 0)
        r = stage_maps_make(stage);
    if (r == 0)
        r = want(&staging);
    if (r == 0)
        r = lay_inputs(&staging);
    if (r == 0)
        r = lay_dependencies(&staging);
    staging_deinit(&staging);
    if (r < 0 && r != -ECANCELED && r != -ENOMEM)
        return fail(&staging, CLASS_TRANSFER, "%s: %s", config->folder, strerror(-r));
    return r;
}

static void folder_leave(struct stage *stage)
{
    int r;

    if (stage->reuse && stage_clean(stage) == 0) {
        reuse_give(stage->reuse, stage->reuse_key, TAKE_PTR(stage->folder), TAKE_PTR(stage->still));
        return;
    }
    r = folder_remove(stage->folder);
    if (r < 0 && r != -ENOENT)
        log_warn("session-folder", "path=%s why=\"%s\"", stage->folder, strerror(-r));
}

void stage_deinit(struct stage *stage)
{
    if (stage->folder)
        folder_leave(stage);
    if (stage->recipe)
        wl__recipe__free_unpacked(stage->recipe, NULL);
    for (size_t i = 0; i < stage->n_outputs; i++)
        free(stage->outputs[i]);
    for (size_t i = 0; i < stage->n_strings; i++)
        free(stage->strings[i]);
    space_deinit(&stage->space);
    free(stage->outputs);
    free(stage->strings);
    still_free(stage->still);
    free(stage->maps);
    free(stage->work);
    free(stage->folder);
    *stage = (struct stage){0};
}
