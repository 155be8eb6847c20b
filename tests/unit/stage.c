/* stage.c - what an error on an input's way means for its task, over a vault of the test's own. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <proto/base/clock.h>
#include <proto/manifest.h>
#include <proto/wire.h>
#include <worker/stage.h>

enum { BLOCKS_MAX = 8 };

static const uint8_t KEY[32] = {1}, OTHER[32] = {2};
static char base[64];

/* ---- the vault ---- */

static struct {
    struct sealer *sealer;
    struct block_key keys[BLOCKS_MAX];
    struct bytes sealed[BLOCKS_MAX];
    size_t n;
    struct bytes opened;
    const struct block_key *lost; /* opening it fails with `error`, which `why` explains */
    int error;
    const char *why;
} vault;

static int vault_emit(void *user, const struct block_key *key, const void *sealed, size_t size)
{
    (void)user;
    assert_true(vault.n < BLOCKS_MAX);
    vault.keys[vault.n] = *key;
    return bytes_append(&vault.sealed[vault.n++], sealed, size);
}

int supply_open(void *supply, const struct block_key *key, const struct bytes **ret_block)
{
    (void)supply;
    *ret_block = &vault.opened;
    if (vault.lost && memcmp(&vault.lost->id, &key->id, sizeof(key->id)) == 0)
        return vault.error;
    for (size_t i = 0; i < vault.n; i++)
        if (memcmp(&vault.keys[i].id, &key->id, sizeof(key->id)) == 0)
            return open_block(vault.sealer, key, vault.sealed[i].data, vault.sealed[i].size,
                              &vault.opened);
    fail_msg("a block that nobody has put");
    return -1;
}

int supply_stage(struct supply *supply, const struct block_key *keys, size_t n_keys)
{
    (void)supply, (void)keys, (void)n_keys;
    return 0;
}

void supply_unpin(struct supply *supply)
{
    (void)supply;
}

const char *supply_why(const struct supply *supply)
{
    (void)supply;
    return vault.why;
}

/* ---- a job with one input ---- */

struct job {
    struct manifest_sealed list;
    struct block_key recipe, *file; /* of the vault's */
    bool in_message;                /* the recipe comes with the lease */
    const atomic_bool *stop;
    struct reuse *reuse;
    struct still *still; /* of the folder, as it was left */
    bool empty;          /* no file lies in its root */
};

static void pack_recipe(struct job *job)
{
    Wl__Recipe recipe = WL__RECIPE__INIT;
    Wl__StepRecipe step = WL__STEP_RECIPE__INIT, *steps = &step;
    Wl__Action action = WL__ACTION__INIT;
    Wl__Root root = WL__ROOT__INIT, *roots = &root;
    Wl__BlockKey key = WL__BLOCK_KEY__INIT, *keys = &key;
    _cleanup_(bytes_deinit) struct bytes sealed = {0};
    uint8_t packed[4096];

    assert_int_equal(job->list.n_keys, 1);
    wire_block_key_set(&key, &job->list.keys[0]);
    root.path = (char *)"/scene";
    root.manifest = &keys, root.n_manifest = !job->empty;
    action.command = (char *)"true";
    step.name = (char *)"render";
    step.on_run = &action;
    recipe.job_name = (char *)"test";
    recipe.roots = &roots, recipe.n_roots = 1;
    recipe.steps = &steps, recipe.n_steps = 1;
    assert_true(wl__recipe__get_packed_size(&recipe) <= sizeof(packed));
    assert_int_equal(seal_block(vault.sealer, KEY, packed, wl__recipe__pack(&recipe, packed),
                                &sealed, &job->recipe),
                     0);
    vault_emit(NULL, &job->recipe, sealed.data, sealed.size);
}

static struct job job_make(void)
{
    const char *roots[] = {base};
    const struct manifest_file file = {.path = "input"};
    _cleanup_(bytes_deinit) struct bytes packed = {0};
    struct job job = {.file = &vault.keys[0]};
    uint64_t bytes;

    assert_int_equal(manifest_pack(vault.sealer, KEY, NULL, roots, 1, &file, 1, vault_emit, NULL,
                                   &packed, &bytes, NULL),
                     0);
    assert_int_equal(
        manifest_seal(vault.sealer, KEY, packed.data, packed.size, 1, vault_emit, NULL, &job.list),
        0);
    pack_recipe(&job);
    return job;
}

static struct job job_make_empty(void)
{
    struct job job = job_make();

    job.empty = true;
    pack_recipe(&job);
    return job;
}

static int run(struct job *job, const uint8_t key_in[32], struct stage *ret_stage)
{
    Wl__BlockRef ref = WL__BLOCK_REF__INIT;
    uint8_t wrapped[32];
    char folder[96];

    snprintf(folder, sizeof(folder), "%s/session", base);
    wire_block_ref_set(vault.sealer, KEY, &job->recipe, wrapped, &ref);
    if (job->in_message)
        ref.inline_sealed = (ProtobufCBinaryData){.len = vault.sealed[vault.n - 1].size,
                                                  .data = vault.sealed[vault.n - 1].data};
    return stage_run(&(struct stage_config){.folder = folder,
                                            .recipe = &ref,
                                            .key_in = key_in,
                                            .sealer = vault.sealer,
                                            .reuse = job->reuse,
                                            .reuse_key = (const uint8_t[REUSE_KEY_BYTES]){1},
                                            .still = &job->still,
                                            .stop = job->stop},
                     ret_stage);
}

static void expect(struct job *job, const uint8_t key_in[32], enum attempt_class class,
                   const char *why)
{
    struct stage stage;
    int r = run(job, key_in, &stage);

    assert_int_equal(r, why ? 1 : 0);
    if (why && (stage.class != class || !strstr(stage.why, why)))
        fail_msg("class %d: %s; wanted class %d: %s", stage.class, stage.why, class, why);
    stage_deinit(&stage);
}

static int setup(void **state)
{
    char path[80];
    FILE *file;

    (void)state;
    vault.why = "";
    strcpy(base, "/tmp/westlight-stage-XXXXXX");
    if (!mkdtemp(base))
        return -1;
    snprintf(path, sizeof(path), "%s/input", base);
    file = fopen(path, "w");
    if (!file || fputs("pixels", file) < 0 || fclose(file) != 0)
        return -1;
    return sealer_new(&vault.sealer);
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < BLOCKS_MAX; i++)
        bytes_deinit(&vault.sealed[i]);
    bytes_deinit(&vault.opened);
    sealer_free(vault.sealer);
    memset(&vault, 0, sizeof(vault));
    return folder_remove(base);
}

/* ---- */

static void a_key_that_opens_nothing_is_told_as_that_and_loses_no_input(void **state)
{
    struct job job = job_make();

    (void)state;
    expect(&job, KEY, CLASS_OK, NULL);
    expect(&job, OTHER, CLASS_TRANSFER, "recipe: a block of it does not open with the key");
    vault.why = "no answer, a while ago";
    expect(&job, OTHER, CLASS_TRANSFER, "recipe: a block of it does not open with the key");
    job.in_message = true;
    expect(&job, KEY, CLASS_OK, NULL);
    expect(&job, OTHER, CLASS_TRANSFER, "recipe: a block of it does not open with the key");
    vault.lost = &job.list.keys[0];
    vault.error = SEAL_E_TAG;
    expect(&job, KEY, CLASS_TRANSFER, "/scene: a block of it does not open with the key");
    vault.lost = job.file;
    expect(&job, KEY, CLASS_TRANSFER, "input: a block of it does not open with the key");
    manifest_sealed_deinit(&job.list);
}

static void what_the_vault_lost_is_a_missing_input_also_when_a_file_is_written(void **state)
{
    static const struct {
        int error;
        const char *why;
        enum attempt_class class;
        const char *told;
    } cases[] = {
        {TRANSFER_E_MISSING, "block ab: no such block", CLASS_MISSING_INPUT, ": block ab: no such"},
        {TRANSFER_E_DAMAGED, "block ab: is damaged", CLASS_MISSING_INPUT, ": block ab: is damaged"},
        {TRANSFER_E_REFUSED, "the pass: refused", CLASS_TRANSFER, ": the pass: refused"},
        {TRANSFER_E_REFUSED, "", CLASS_TRANSFER, ": a block of it is not to be had"},
        {-EIO, "", CLASS_TRANSFER, ": Input/output error"},
    };
    struct job job = job_make();
    const struct block_key *places[] = {&job.recipe, &job.list.keys[0], job.file};
    static const char *const names[] = {"recipe", "/scene", "input input"};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (size_t k = 0; k < sizeof(places) / sizeof(places[0]); k++) {
            char told[128];

            vault.lost = places[k];
            vault.error = cases[i].error;
            vault.why = cases[i].why;
            snprintf(told, sizeof(told), "%s%s", names[k], cases[i].told);
            expect(&job, KEY, cases[i].class, told);
        }
    manifest_sealed_deinit(&job.list);
}

static void leave(const struct stage *stage, const char *what)
{
    char command[512];

    snprintf(command, sizeof(command), "cd %s && %s", stage->folder, what);
    assert_int_equal(system(command), 0);
}

/* Runs tasks that leave nothing until the folder is known to be as it was. */
static void settle(struct job *job)
{
    int64_t deadline_ns = clock_monotonic_ns() + 10 * NS_PER_S;
    struct stage stage;

    do {
        assert_true(clock_monotonic_ns() < deadline_ns);
        still_free(job->still);
        job->still = NULL;
        assert_int_equal(run(job, KEY, &stage), 0);
        stage_deinit(&stage);
        free(reuse_take(job->reuse, (const uint8_t[REUSE_KEY_BYTES]){1}, &job->still));
    } while (!job->still);
}

static void left_by_a_task_is_gone(bool settled)
{
    static const struct {
        const char *left;
        bool again;
    } cases[] = {
        {"true", true},
        {"touch work/file work/tmp/file file; mkdir -p work/deep/er files/scene/new files/other; "
         "ln -s / work/link; ln -s /etc files/scene/link",
         true},
        {"mkdir work/shut; touch work/shut/file; chmod 0 work/shut", true},
        {"rm -r files", true},
        {"rm -r files/scene; ln -s /etc files/scene", true},
        {"chmod 755 work", false},
        {"chmod 3700 files/scene", false},
    };
    struct job job = settled ? job_make_empty() : job_make();

    assert_int_equal(reuse_new(&job.reuse), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct stage stage;
        char list[256], folder[96];
        char *path;

        if (settled)
            settle(&job);
        assert_int_equal(run(&job, KEY, &stage), 0);
        assert_int_equal(stage.still != NULL, settled);
        leave(&stage, "test -d work/tmp -a -d files/scene");
        snprintf(folder, sizeof(folder), "%s", stage.folder);
        snprintf(list, sizeof(list),
                 "test -z \"$(find %s ! -type d; find %s -name deep -o -name new "
                 "-o -name other -o -name shut)\"",
                 stage.folder, stage.folder);
        leave(&stage, cases[i].left);
        stage_deinit(&stage);
        still_free(job.still);
        path = reuse_take(job.reuse, (const uint8_t[REUSE_KEY_BYTES]){1}, &job.still);
        still_free(TAKE_PTR(job.still));
        if ((path != NULL) != cases[i].again)
            fail_msg("after \"%s\"", cases[i].left);
        if (path)
            assert_int_equal(system(list), 0);
        else
            assert_int_not_equal(access(folder, F_OK), 0);
        free(path);
    }
    assert_int_equal(access("/etc/passwd", F_OK), 0);
    reuse_free(job.reuse);
    manifest_sealed_deinit(&job.list);
}

static void what_a_task_left_is_gone_before_its_folder_is_used_again(void **state)
{
    (void)state;
    left_by_a_task_is_gone(false);
}

static void what_a_task_left_is_gone_also_where_its_folder_is_known(void **state)
{
    (void)state;
    left_by_a_task_is_gone(true);
}

static void a_folder_that_somebody_tidied_up_is_made_again(void **state)
{
    struct job job = job_make_empty();
    struct stage stage;
    char folder[96];

    (void)state;
    assert_int_equal(reuse_new(&job.reuse), 0);
    settle(&job);
    snprintf(folder, sizeof(folder), "%s/session", base);
    assert_int_equal(folder_remove(folder), 0);
    assert_int_equal(run(&job, KEY, &stage), 0);
    leave(&stage, "test -d work/tmp -a -d files/scene");
    stage_deinit(&stage);
    reuse_free(job.reuse);
    manifest_sealed_deinit(&job.list);
}

static void a_recipe_that_is_named_wrongly_loses_no_input(void **state)
{
    struct job job = job_make();
    Wl__BlockRef ref = WL__BLOCK_REF__INIT;
    struct stage stage;
    char folder[96];

    (void)state;
    snprintf(folder, sizeof(folder), "%s/session", base);
    assert_int_equal(stage_run(&(struct stage_config){.folder = folder,
                                                      .recipe = &ref,
                                                      .key_in = KEY,
                                                      .sealer = vault.sealer},
                               &stage),
                     1);
    assert_int_equal(stage.class, CLASS_TRANSFER);
    assert_non_null(strstr(stage.why, "recipe: the broker names a block of it that cannot be"));
    stage_deinit(&stage);
    manifest_sealed_deinit(&job.list);
}

static void who_is_stopped_reads_no_list_of_files(void **state)
{
    struct job job = job_make();
    struct stage stage;
    atomic_bool stop;

    (void)state;
    atomic_init(&stop, true);
    job.stop = &stop;
    vault.lost = &job.list.keys[0];
    vault.error = TRANSFER_E_MISSING;
    assert_int_equal(run(&job, KEY, &stage), -ECANCELED);
    stage_deinit(&stage);
    atomic_store(&stop, false);
    expect(&job, KEY, CLASS_MISSING_INPUT, "/scene");
    manifest_sealed_deinit(&job.list);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_key_that_opens_nothing_is_told_as_that_and_loses_no_input),
        CASE(what_the_vault_lost_is_a_missing_input_also_when_a_file_is_written),
        CASE(what_a_task_left_is_gone_before_its_folder_is_used_again),
        CASE(what_a_task_left_is_gone_also_where_its_folder_is_known),
        CASE(a_folder_that_somebody_tidied_up_is_made_again),
        CASE(a_recipe_that_is_named_wrongly_loses_no_input),
        CASE(who_is_stopped_reads_no_list_of_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
