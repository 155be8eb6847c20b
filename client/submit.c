/* submit.c - a job goes out: files to blocks to the vault, then one message.
 *
 * Files are read once. Blocks are sealed into a batch (batch.c), so memory is bounded. A job
 * without input folders never opens a bulk link, and is not announced. The id and the key are made
 * first, or are those of an earlier try.
 */
#include <client/batch.h>
#include <client/job.h>
#include <client/known.h>
#include <client/recipe.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <proto/base/check.h>
#include <proto/base/crash.h>
#include <proto/manifest.h>

#define READ_AGAIN    3   /* a file that changed while it was read */
#define SUBMIT_ROUNDS 3   /* blocks that went missing meanwhile */
#define LEAVES_MAX    512 /* of all lists of files: the recipe, which names them, stays small */

/* What a Root message needs, kept until the recipe is sealed. */
struct packed_root {
    Wl__Root message;
    char **files; /* sorted; of job_root or found by walking */
    size_t n_files;
    bool walked;
    struct manifest_sealed sealed;
    Wl__BlockKey *blocks, **pointers;
};

struct upload {
    struct westlight *westlight;
    struct westlight_job *job;
    struct westlight_submission submission;
    struct batch batch;

    struct packed_root *roots;
    Wl__Root **root_pointers;
    size_t n_roots;
    unsigned threads; /* that seal */
    size_t packing; /* which root, and why that failed */
    struct bytes why;
    struct known *known; /* NULL: everything is read */
    bool read_all;       /* what was known is not in the vault any more */
    struct bytes refs[LIMIT_REFS_BLOCKS];
    struct block_id ref_names[LIMIT_REFS_BLOCKS];
    size_t n_refs;
};

/* ---- what is sent, as one number ---- */

/* Another process that adds the same comes to the same. */
static void print_add(struct upload *upload, const char *text, const void *data, size_t size)
{
    uint8_t print[32];

    mac2(upload->submission.print, text, strlen(text) + 1, data, size, print);
    memcpy(upload->submission.print, print, sizeof(print));
}

static int print_begin(struct upload *upload)
{
    const Wl__Recipe *recipe = &upload->job->recipe; /* no roots are lent yet */
    _cleanup_(bytes_wipe_deinit) struct bytes packed = {0};
    int r = bytes_reserve(&packed, wl__recipe__get_packed_size(recipe) + 1);

    if (r < 0)
        return r;
    packed.size = wl__recipe__pack(recipe, packed.data);
    memset(upload->submission.print, 0, sizeof(upload->submission.print));
    print_add(upload, "recipe", packed.data, packed.size);
    return 0;
}

/* ---- files to blocks ---- */

static int by_path(const void *a, const void *b)
{
    return manifest_path_compare(*(char *const *)a, *(char *const *)b);
}

static void roots_free(struct upload *upload)
{
    for (size_t i = 0; i < upload->n_roots; i++) {
        struct packed_root *root = &upload->roots[i];
        for (size_t k = 0; root->walked && k < root->n_files; k++)
            free(root->files[k]);
        free(root->files);
        manifest_sealed_deinit(&root->sealed);
        free(root->blocks);
        free(root->pointers);
    }
    free(TAKE_PTR(upload->roots));
    free(TAKE_PTR(upload->root_pointers));
    upload->n_roots = 0;
}

/* manifest.h answers with positive values of its own. */
static int pack_failed(struct upload *upload, int r, const char *folder, const struct bytes *why)
{
    struct westlight *westlight = upload->westlight;
    const char *text = why->size ? (const char *)why->data
                       : r < 0   ? strerror(-r)
                                 : "it cannot be taken";
    int code = r == -ENOENT || r == -ENOTDIR || r == MANIFEST_E_CHANGED || r == -EACCES
                   ? WESTLIGHT_E_MISSING
               : r > 0 ? WESTLIGHT_E_USAGE
                       : r;
    return text[0] == '/' ? connection_fail(westlight, code, "input %s", text)
                          : connection_fail(westlight, code, "input %s/%s", folder, text);
}

/* Lists the files of a root, without duplicates, in the order in which they are sent. */
static int find_files(struct upload *upload, const struct job_root *from, struct packed_root *root)
{
    _cleanup_(bytes_deinit) struct bytes why = {0};

    if (from->n_files == 0) {
        root->walked = true;
        int r = manifest_walk(from->folder, &(struct manifest_walk){.follow = true}, &root->files,
                              &root->n_files, &why);
        return r == 0 ? 0 : pack_failed(upload, r, from->folder, &why);
    }
    root->files = calloc(from->n_files, sizeof(*root->files));
    if (!root->files)
        return -ENOMEM;
    memcpy(root->files, from->files, from->n_files * sizeof(*root->files));
    qsort(root->files, from->n_files, sizeof(*root->files), by_path);
    for (size_t i = 0; i < from->n_files; i++)
        if (i == 0 || strcmp(root->files[i], root->files[root->n_files - 1]) != 0)
            root->files[root->n_files++] = root->files[i];
    return 0;
}

/* Every file is there before the first is sent; and the sum says how large a pass to ask for. */
static int measure(struct upload *upload, const struct job_root *from, struct packed_root *root)
{
    struct westlight *westlight = upload->westlight;
    struct stat status;

    _cleanup_(closep) int folder = open(from->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return connection_fail(westlight, WESTLIGHT_E_MISSING,
                               "input folder %s: %s: check the path", from->folder,
                               strerror(errno));
    for (size_t i = 0; i < root->n_files; i++) {
        if (fstatat(folder, root->files[i], &status, 0) < 0 &&
            fstatat(folder, root->files[i], &status, AT_SYMLINK_NOFOLLOW) < 0)
            return connection_fail(westlight, WESTLIGHT_E_MISSING,
                                   "input file %s/%s: %s: check the path", from->folder,
                                   root->files[i], strerror(errno));
        const int64_t is[] = {status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
        print_add(upload, root->files[i], is, sizeof(is));
        root->message.files++;
        root->message.file_bytes += (uint64_t)status.st_size;
    }
    upload->batch.count.files += root->message.files;
    upload->batch.count.file_bytes += root->message.file_bytes;
    return 0;
}

/* ---- in a thread of its own (batch_make) ---- */

static int pack_files(struct upload *upload, const struct job_root *from, struct packed_root *root,
                      struct bytes *ret_packed)
{
    const struct manifest_options options = {.threads = upload->threads,
                                             .known = known_of(upload->known)};
    const char *folder = from->folder;
    _cleanup_(freep) struct manifest_file *files = calloc(root->n_files + 1, sizeof(*files));
    if (!files)
        return -ENOMEM;
    for (size_t i = 0; i < root->n_files; i++)
        files[i] = (struct manifest_file){.path = root->files[i], .follow = true};
    for (int tries = 1;; tries++) {
        uint64_t bytes = 0;

        bytes_deinit(ret_packed);
        *ret_packed = (struct bytes){0};
        int r =
            manifest_pack(upload->westlight->sealer, upload->westlight->secret, &options, &folder, 1, files,
                          root->n_files, batch_block, &upload->batch, ret_packed, &bytes,
                          &upload->why);
        if (r == MANIFEST_E_CHANGED && tries < READ_AGAIN)
            continue;
        root->message.file_bytes = bytes;
        return r;
    }
}

static int pack_root(struct upload *upload, const struct job_root *from, struct packed_root *root)
{
    _cleanup_(bytes_deinit) struct bytes packed = {0};
    struct manifest_sealed *sealed = &root->sealed;

    int r = pack_files(upload, from, root, &packed);
    if (r != 0)
        return r;
    r = manifest_seal(upload->westlight->sealer, upload->westlight->secret, packed.data,
                      packed.size, LEAVES_MAX / upload->n_roots, batch_block, &upload->batch,
                      sealed);
    if (r != 0)
        return r;
    root->blocks = calloc(sealed->n_keys, sizeof(*root->blocks));
    root->pointers = calloc(sealed->n_keys, sizeof(*root->pointers));
    if (!root->blocks || !root->pointers)
        return -ENOMEM;
    for (size_t i = 0; i < sealed->n_keys; i++) {
        wire_block_key_set(&root->blocks[i], &sealed->keys[i]);
        root->pointers[i] = &root->blocks[i];
    }
    root->message.path = from->folder;
    root->message.manifest = root->pointers;
    root->message.n_manifest = sealed->n_keys;
    root->message.leaves = sealed->leaves;
    root->message.n_leaves = sealed->n_leaves;
    return 0;
}

static int pack_all(void *user)
{
    struct upload *upload = user;
    int r = 0;

    for (size_t i = 0; r == 0 && i < upload->n_roots; i++) {
        upload->packing = i;
        r = pack_root(upload, &upload->job->roots[i], &upload->roots[i]);
    }
    return r;
}

/* ---- and again in the caller's ---- */

/* All is measured, and nothing was sent. */
static int begun(struct upload *upload)
{
    const struct westlight_submission *again = &upload->job->again;
    struct batch *batch = &upload->batch;

    batch->count.changed =
        again->id[0] && memcmp(upload->submission.print, again->print, sizeof(again->print)) != 0;
    batch_tell(batch);
    return upload->n_roots > 0 && !batch->estimate && !batch->announce.begun
               ? announce_begin(&batch->announce)
               : 0;
}

static int pack_roots(struct upload *upload)
{
    struct westlight_job *job = upload->job;
    int r = 0, packed;

    roots_free(upload);
    upload->roots = calloc(job->n_roots + 1, sizeof(*upload->roots));
    upload->root_pointers = calloc(job->n_roots + 1, sizeof(*upload->root_pointers));
    if (!upload->roots || !upload->root_pointers)
        return -ENOMEM;
    upload->n_roots = job->n_roots;
    batch_begin(&upload->batch, &upload->submission);
    r = print_begin(upload);
    for (size_t i = 0; r == 0 && i < job->n_roots; i++) {
        wl__root__init(&upload->roots[i].message);
        upload->root_pointers[i] = &upload->roots[i].message;
        r = find_files(upload, &job->roots[i], &upload->roots[i]);
        if (r == 0)
            print_add(upload, job->roots[i].folder, "", 0);
        if (r == 0)
            r = measure(upload, &job->roots[i], &upload->roots[i]);
    }
    batch_measured(&upload->batch);
    if (r == 0)
        r = begun(upload);
    if (r != 0 || upload->n_roots == 0)
        return r;
    upload->why.size = 0;
    if (!upload->read_all)
        upload->known = known_open(upload->westlight->secret);
    r = batch_make(&upload->batch, pack_all, upload, &packed);
    known_close(TAKE_PTR(upload->known), r == 0 && packed == 0);
    if (r == WESTLIGHT_E_UNKNOWN && !upload->read_all) {
        /* What was sent another time is not there any more (or this is another farm). */
        upload->read_all = true;
        upload->westlight->why[0] = '\0';
        return pack_roots(upload);
    }
    return r != 0 || packed == 0 ? r
                                 : pack_failed(upload, packed, job->roots[upload->packing].folder,
                                               &upload->why);
}

/* ---- the recipe, the refs, the message ---- */

static int seal_recipe(struct upload *upload, const uint8_t job_key[32],
                       struct recipe_sealed *recipe)
{
    Wl__Recipe *message = &upload->job->recipe;

    message->roots = upload->root_pointers;
    message->n_roots = upload->n_roots;
    int r = recipe_seal(upload->westlight, job_key, message, recipe);
    message->roots = NULL;
    message->n_roots = 0;
    if (r == 0 && recipe->ref.inline_sealed.len == 0)
        r = batch_block(&upload->batch, &recipe->key, recipe->sealed.data, recipe->sealed.size);
    return r;
}

static int refs_source(void *user, size_t i, struct bytes *out, struct block_id *ret_id)
{
    struct upload *upload = user;

    out->size = 0;
    *ret_id = upload->ref_names[i];
    return bytes_append(out, upload->refs[i].data, upload->refs[i].size);
}

static void refs_free(struct upload *upload)
{
    for (size_t i = 0; i < LIMIT_REFS_BLOCKS; i++)
        bytes_deinit(&upload->refs[i]);
    upload->n_refs = 0;
}

/* A refs block is put last: whatever it names is in the vault. */
static int put_refs(struct upload *upload)
{
    refs_free(upload);
    if (upload->batch.n_ids == 0)
        return 0;
    int r = refs_pack(upload->batch.ids, upload->batch.n_ids, upload->refs, upload->ref_names,
                      &upload->n_refs);
    if (r == SEAL_E_SIZE)
        return connection_fail(upload->westlight, WESTLIGHT_E_USAGE,
                               "job %.100s: its inputs are more than %d million blocks: split it",
                               upload->job->recipe.job_name,
                               LIMIT_REFS_BLOCKS * LIMIT_REFS_PER_BLOCK / 1000000);
    if (r != 0)
        return r;
    return blocks_put(&upload->batch.blocks, upload->n_refs, true, refs_source, upload);
}

static int send_submit(struct upload *upload, const uint8_t id[16], const uint8_t job_key[32],
                       const struct recipe_sealed *recipe, Wl__Envelope **ret_answer)
{
    struct westlight_job *job = upload->job;
    Wl__Submit submit = WL__SUBMIT__INIT;
    Wl__Envelope envelope = WL__ENVELOPE__INIT;
    Wl__Step *steps[LIMIT_STEPS];
    ProtobufCBinaryData refs[LIMIT_REFS_BLOCKS];
    Wl__BlockRef ref = recipe->ref;
    uint8_t job_id[16], key[32], request[16];

    CHECK(job->n_steps <= LIMIT_STEPS); /* job_compile has seen to it */
    for (size_t i = 0; i < job->n_steps; i++)
        steps[i] = &job->steps[i]->step;
    for (size_t i = 0; i < upload->n_refs; i++)
        refs[i] = (ProtobufCBinaryData){32, upload->ref_names[i].bytes};
    memcpy(job_id, id, sizeof(job_id));
    memcpy(key, job_key, sizeof(key));
    /* Files that changed between two rounds make another body. */
    recipe_request(recipe, job_key, request);

    submit.request_id = (ProtobufCBinaryData){sizeof(request), request};
    submit.job = (ProtobufCBinaryData){sizeof(job_id), job_id};
    submit.name = job->recipe.job_name;
    submit.note = job->note;
    submit.person = job->person;
    submit.tags = job->tags;
    submit.n_tags = job->n_tags;
    submit.priority = job->priority;
    submit.max_workers = job->max_workers;
    submit.steps = steps;
    submit.n_steps = job->n_steps;
    submit.job_key = (ProtobufCBinaryData){sizeof(key), key};
    submit.recipe = &ref;
    submit.refs = refs;
    submit.n_refs = upload->n_refs;
    submit.input_bytes = upload->batch.count.file_bytes;
    envelope.body_case = WL__ENVELOPE__BODY_SUBMIT;
    envelope.submit = &submit;
    int r = connection_call(upload->westlight, &envelope, WL__ENVELOPE__BODY_ACCEPTED,
                            CONNECTION_SUBMIT_NS, ret_answer);
    wipe(key, sizeof(key));
    return r;
}

static int submit_round(struct upload *upload, const uint8_t id[16], const uint8_t job_key[32])
{
    _cleanup_(wire_freep) Wl__Envelope *answer = NULL;
    struct recipe_sealed recipe = {0};

    int r = pack_roots(upload);
    if (r == 0)
        r = seal_recipe(upload, job_key, &recipe);
    if (r == 0)
        r = batch_flush(&upload->batch);
    crash_point("submit.refs");
    if (r == 0)
        r = put_refs(upload);
    crash_point("submit.send");
    if (r == 0) {
        upload->batch.count.submitted = true;
        batch_tell(&upload->batch);
        r = send_submit(upload, id, job_key, &recipe, &answer);
    }
    recipe_sealed_deinit(&recipe);
    return r;
}

static int submit_rounds(struct upload *upload, const uint8_t id[16], const uint8_t job_key[32])
{
    for (int round = 1;; round++) {
        upload->westlight->refusal = CODE_OK;
        int r = submit_round(upload, id, job_key);
        if (r != WESTLIGHT_E_MISSING || upload->westlight->refusal != CODE_MISSING ||
            round == SUBMIT_ROUNDS)
            return r;
        /* Something was swept or lost between the answer and now: ask again for all of it. */
        upload->westlight->why[0] = '\0';
        upload->batch.count.submitted = false;
    }
}

static void upload_free(struct upload *upload)
{
    roots_free(upload);
    refs_free(upload);
    bytes_deinit(&upload->why);
    batch_deinit(&upload->batch);
    wipe(&upload->submission, sizeof(upload->submission));
    free(upload);
}

static int upload_new(struct westlight *westlight, struct westlight_job *job,
                      struct upload **ret_upload)
{
    struct upload *upload;

    connection_begin(westlight);
    westlight->refusal = CODE_OK;
    if (job_compile(job) != 0)
        return connection_fail(westlight, WESTLIGHT_E_USAGE, "%s", job->error);
    if (job->n_roots > 0 && !westlight->has_secret)
        return connection_fail(westlight, WESTLIGHT_E_USAGE,
                               "farm %s: no studio secret at \"%s\": copy it from a colleague, or "
                               "make one: westlight key new",
                               westlight->farm.name, westlight->farm.secret_file);
    upload = calloc(1, sizeof(*upload));
    if (!upload)
        return -ENOMEM;
    *upload = (struct upload){.westlight = westlight, .job = job};
    upload->threads = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    int r = batch_init(&upload->batch, westlight, job->recipe.job_name);
    if (r < 0)
        upload_free(upload);
    else
        *ret_upload = upload;
    return r;
}

/* The id and the key: those of the first try, or new ones. */
static int identify(struct upload *upload)
{
    struct westlight_submission *submission = &upload->submission;
    uint8_t *id = upload->batch.announce.job;

    *submission = upload->job->again;
    if (submission->id[0] && hex_decode(submission->id, id, WESTLIGHT_ID_BYTES) < 0)
        return connection_fail(upload->westlight, WESTLIGHT_E_USAGE, "job %.32s: not an id",
                               submission->id);
    if (submission->id[0])
        return 0;
    int r = random_bytes(id, WESTLIGHT_ID_BYTES);
    if (r == 0)
        r = random_bytes(submission->key, sizeof(submission->key));
    hex_encode(id, WESTLIGHT_ID_BYTES, submission->id);
    return r;
}

/* Files go in the order of their lists, so how far it is says which one is on its way. */
static bool find_sent(const struct upload *upload, char *path, size_t size)
{
    uint64_t left = upload->batch.count.bytes_done;
    struct stat status;

    for (size_t i = 0; i < upload->n_roots; i++)
        for (size_t k = 0; k < upload->roots[i].n_files; k++) {
            snprintf(path, size, "%s/%s", upload->job->roots[i].folder, upload->roots[i].files[k]);
            if (stat(path, &status) < 0)
                continue;
            if (left < (uint64_t)status.st_size)
                return true;
            left -= (uint64_t)status.st_size;
        }
    return false;
}

/* The farm takes no more: which job it was that it refused, and which of its files. */
static int not_taken(struct upload *upload)
{
    struct westlight *westlight = upload->westlight;
    char path[LIMIT_PATH_BYTES], why[sizeof(westlight->why)];
    bool file = !upload->batch.count.submitted && find_sent(upload, path, sizeof(path));

    memcpy(why, westlight->why, sizeof(why));
    return connection_fail(westlight, WESTLIGHT_E_BUSY, "job %.100s (%.8s)%s%s: %.600s",
                           upload->job->recipe.job_name, upload->submission.id,
                           file ? ": sending " : "", file ? path : "", why);
}

int westlight_submit(struct westlight *westlight, struct westlight_job *job, westlight_on_id *on_id,
                     westlight_on_upload *on_upload, void *user, char ret_id[WESTLIGHT_ID_TEXT])
{
    struct westlight_submission *submission;
    struct upload *upload;
    int r = upload_new(westlight, job, &upload);

    if (r != 0)
        return r;
    submission = &upload->submission;
    upload->batch.on_upload = on_upload;
    upload->batch.user = user;
    r = identify(upload);
    if (r == 0 && on_id)
        on_id(user, submission->id);
    if (r == 0)
        r = submit_rounds(upload, upload->batch.announce.job, submission->key);
    crash_point("submit.accepted");
    if (r == WESTLIGHT_E_BUSY && westlight->why[0])
        r = not_taken(upload);
    if (r == 0) {
        upload->batch.count.accepted = true;
        batch_tell(&upload->batch);
        recipe_keep_key(westlight, submission->id, submission->key);
        memcpy(ret_id, submission->id, sizeof(submission->id));
    } else {
        announce_end(&upload->batch.announce, r == WESTLIGHT_E_USAGE);
    }
    upload_free(upload);
    return r;
}

int westlight_estimate(struct westlight *westlight, struct westlight_job *job,
                       struct westlight_upload *ret_upload)
{
    struct recipe_sealed recipe = {0};
    uint8_t job_key[32];
    struct upload *upload;
    int r = upload_new(westlight, job, &upload);

    if (r != 0)
        return r;
    upload->batch.estimate = true;
    r = random_bytes(job_key, sizeof(job_key));
    if (r == 0)
        r = pack_roots(upload);
    if (r == 0)
        r = seal_recipe(upload, job_key, &recipe);
    if (r == 0)
        r = batch_flush(&upload->batch);
    if (r == 0)
        *ret_upload = upload->batch.count;
    recipe_sealed_deinit(&recipe);
    upload_free(upload);
    return r;
}
