/* gone.c - what --check and --backup say of a job that is forgotten, and whose blocks are swept,
 * while they run beside a broker.
 *
 * The moment is made by leading two calls through here (the linker's --wrap): the first look into the
 * vault for what the database names, and the copy of the database. The broker is a store and a vault
 * that this process has open.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <broker/backup.h>
#include <broker/catalogue.h>
#include <broker/check.h>
#include <broker/store/store.h>
#include <broker/vault/disk.h>

static char folder[64], state_folder[96], backup_folder[96];
static struct store *store;
static struct disk disk;
static struct block_id input, refs;
static void (*meanwhile)(void);
static const struct studio_id north = {1};
static struct job_id job = {{1, 2, 3}};

static void happen(void)
{
    void (*what)(void) = meanwhile;

    meanwhile = NULL;
    if (what)
        what();
}

size_t __real_vault_check_refs(struct vault_check *check, struct studio_id studio,
                               const struct block_id *ids, size_t n_ids, struct block_id *ret_first,
                               const char **ret_why);
size_t __wrap_vault_check_refs(struct vault_check *check, struct studio_id studio,
                               const struct block_id *ids, size_t n_ids, struct block_id *ret_first,
                               const char **ret_why);
size_t __wrap_vault_check_refs(struct vault_check *check, struct studio_id studio,
                               const struct block_id *ids, size_t n_ids, struct block_id *ret_first,
                               const char **ret_why)
{
    happen();
    return __real_vault_check_refs(check, studio, ids, n_ids, ret_first, ret_why);
}

int __real_store_copy(const char *from, const char *path, struct bytes *why);
int __wrap_store_copy(const char *from, const char *path, struct bytes *why);
int __wrap_store_copy(const char *from, const char *path, struct bytes *why)
{
    int r = __real_store_copy(from, path, why);

    happen();
    return r;
}

/* ---- a broker with a job ---- */

static void commit(const struct record *record)
{
    uint64_t done = 0;

    assert_int_equal(store_submit(store, record->sequence, record, 1), 0);
    while (store_completed(store, &done) == 0 && done < record->sequence) {
        struct pollfd poll_fd = {.fd = store_fd(store), .events = POLLIN};
        assert_int_equal(poll(&poll_fd, 1, 10000), 1);
    }
    assert_true(done >= record->sequence);
}

static struct block_id block(const void *data, size_t size)
{
    struct disk_file file;
    struct block_id id;

    digest(data, size, &id);
    assert_int_equal(disk_write(&disk, north, data, size, &file), 0);
    assert_int_equal(disk_sync(&file), 0);
    assert_int_equal(disk_rename(&disk, &file, north, &id), 0);
    return id;
}

static void submit(const struct identity_signer *signer)
{
    uint8_t list[8 + 32] = {'W', 'R', '1', 0, 1}, key[32] = {7};
    Wl__Range range = WL__RANGE__INIT, *ranges[] = {&range};
    Wl__SpaceParameter frames = WL__SPACE_PARAMETER__INIT, *space[] = {&frames};
    Wl__Step step = WL__STEP__INIT, *steps[] = {&step};
    Wl__BlockRef recipe = WL__BLOCK_REF__INIT;
    Wl__Submit submission = WL__SUBMIT__INIT;
    struct catalogue catalogue;
    size_t size;
    void *blob;

    input = block("input", 5);
    memcpy(list + 8, &input, sizeof input);
    refs = block(list, sizeof list);
    ProtobufCBinaryData names[] = {{sizeof refs.bytes, refs.bytes}};
    range.first = range.last = range.step = 1;
    frames.name = (char *)"Frame";
    frames.ranges = ranges;
    frames.n_ranges = 1;
    step.name = (char *)"beauty";
    step.space = space;
    step.n_space = 1;
    recipe.id = recipe.wrapped_key = recipe.inline_sealed = (ProtobufCBinaryData){32, key};
    submission.job = (ProtobufCBinaryData){sizeof job.bytes, job.bytes};
    submission.job_key = (ProtobufCBinaryData){32, key};
    submission.name = (char *)"shot";
    submission.recipe = &recipe;
    submission.steps = steps;
    submission.n_steps = 1;
    submission.refs = names;
    submission.n_refs = 1;
    assert_int_equal(catalogue_init(&catalogue, signer), 0);
    assert_int_equal(catalogue_pack(&catalogue, north, &submission, &blob, &size), 0);
    struct job_spec spec = {
        .job = job, .studio = north, .name = "shot", .blob = blob, .blob_size = size};
    commit(&(struct record){
        .kind = RECORD_JOB, .sequence = 1, .wall_s = 1000, .job = job, .submit.spec = &spec});
    free(blob);
    catalogue_deinit(&catalogue);
}

static int setup(void **state)
{
    struct identity_signer signer;
    struct link_keypair keys;
    char path[128];
    uint8_t master[32];

    (void)state;
    strcpy(folder, "/tmp/westlight-gone-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(state_folder, sizeof state_folder, "%s/state", folder);
    snprintf(backup_folder, sizeof backup_folder, "%s/backup", folder);
    assert_int_equal(folder_make(state_folder, 0700), 0);
    snprintf(path, sizeof path, "%s/broker.key", state_folder);
    assert_int_equal(identity_key_new(&keys), 0);
    assert_int_equal(identity_key_save(path, &keys), 0);
    snprintf(path, sizeof path, "%s/master.key", state_folder);
    assert_int_equal(identity_secret_load_or_new(path, master), 0);
    identity_signer_init(&signer, master);
    assert_int_equal(store_open(state_folder, &store), 0);
    snprintf(path, sizeof path, "%s/vault", state_folder);
    assert_int_equal(disk_open(&disk, path), 0);
    submit(&signer);
    meanwhile = NULL;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_close(store);
    disk_close(&disk);
    return folder_remove(folder);
}

/* ---- */

static void blocks_go(void)
{
    disk_remove(&disk, north, &input);
    disk_remove(&disk, north, &refs);
}

static void job_goes(void)
{
    commit(&(struct record){.kind = RECORD_FORGET,
                            .sequence = 2,
                            .wall_s = 2000,
                            .job = job,
                            .forget.studio = north});
    blocks_go();
}

static int check_says(const char *what)
{
    char *argv[] = {(char *)"check", (char *)what, NULL};

    return command_check(2, argv);
}

static int backup_says(void)
{
    char *argv[] = {(char *)"backup", (char *)"--state", state_folder, backup_folder, NULL};

    return command_backup(4, argv);
}

static void a_job_that_goes_during_a_check_is_no_finding(void **state)
{
    (void)state;
    assert_int_equal(check_says(state_folder), 0);
    meanwhile = job_goes;
    assert_int_equal(check_says(state_folder), 0);
    assert_null(meanwhile);
}

static void blocks_that_go_without_their_job_are_one(void **state)
{
    (void)state;
    meanwhile = blocks_go;
    assert_int_equal(check_says(state_folder), 1);
}

static void a_job_that_goes_during_a_backup_is_whole_in_it(void **state)
{
    (void)state;
    meanwhile = job_goes;
    assert_int_equal(backup_says(), 0);
    assert_null(meanwhile);
    assert_false(disk_has(&disk, north, &input));
    assert_int_equal(check_says(backup_folder), 0);
}

static void late_block(void)
{
    input = block("late", 4);
}

static void what_comes_while_the_database_is_copied_is_in_the_backup(void **state)
{
    char path[160];
    struct disk copy;

    (void)state;
    meanwhile = late_block;
    assert_int_equal(backup_says(), 0);
    snprintf(path, sizeof path, "%s/state/vault", backup_folder);
    assert_int_equal(disk_look(&copy, path), 0);
    assert_true(disk_has(&copy, north, &input));
    disk_close(&copy);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_job_that_goes_during_a_check_is_no_finding),
        T(blocks_that_go_without_their_job_are_one),
        T(a_job_that_goes_during_a_backup_is_whole_in_it),
        T(what_comes_while_the_database_is_copied_is_in_the_backup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
