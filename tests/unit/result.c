/* result.c - an attempt made into a Result: whoever is at fault is named, and the log comes along.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <proto/state.h>
#include <proto/wire.h>
#include <worker/result.h>

struct made {
    char base[64], out[80];
    const char *folders[1];
    struct task_board board;
    struct task task;
    struct sealer *sealer;
    struct collect *collect;
    struct outcome outcome;
    struct bytes log;
};

static int setup(void **state)
{
    struct made *made = calloc(1, sizeof(*made));
    _cleanup_(bytes_deinit) struct bytes why = {0};

    strcpy(made->base, "/tmp/westlight-result-XXXXXX");
    assert_non_null(mkdtemp(made->base));
    snprintf(made->out, sizeof(made->out), "%s/out", made->base);
    assert_int_equal(folder_make(made->out, 0700), 0);
    made->folders[0] = made->out;
    made->board.state = made->base;
    made->task.board = &made->board;
    pthread_mutex_init(&made->board.lock, NULL);
    assert_int_equal(sealer_new(&made->sealer), 0);
    assert_int_equal(collect_new(made->folders, 1, NULL, &made->collect, &why), 0);
    assert_int_equal(bytes_printf(&made->log, "it rendered for hours\n"), 0);
    *state = made;
    return 0;
}

static int teardown(void **state)
{
    struct made *made = *state;

    collect_free(made->collect);
    sealer_free(made->sealer);
    bytes_deinit(&made->log);
    spool_deinit(&made->task.spool);
    pthread_mutex_destroy(&made->board.lock);
    assert_int_equal(folder_remove(made->base), 0);
    free(made);
    return 0;
}

static void below(const struct made *made, const char *name, char path[256])
{
    snprintf(path, 256, "%s/%s", made->base, name);
}

static void write_file(const struct made *made, const char *name, size_t size)
{
    char path[256];
    uint8_t *data = malloc(size);

    below(made, name, path);
    random_bytes(data, size);
    assert_int_equal(file_write(path, data, size, 0600), 0);
    free(data);
}

static void make(struct made *made)
{
    char path[] = "/studio/out";
    Wl__Output output = WL__OUTPUT__INIT, *outputs = &output;
    Wl__StepRecipe step = WL__STEP_RECIPE__INIT;

    output.path = path;
    step.outputs = &outputs;
    step.n_outputs = 1;
    result_make(&made->task, made->sealer, &made->outcome, made->collect,
                &(struct stage){.step = &step}, &made->log);
    assert_non_null(made->task.spool.result);
}

/* The one block of log, which rides in the Result. */
static void expect_log(struct made *made)
{
    const Wl__Result *result = made->task.spool.result;
    _cleanup_(bytes_deinit) struct bytes text = {0};
    struct block_key key;
    uint8_t secret[32];

    assert_int_equal(result->n_log, 1);
    job_key_log(made->task.key_out, secret);
    assert_int_equal(wire_block_ref(made->sealer, secret, result->log[0], &key), 0);
    assert_int_equal(open_block(made->sealer, &key, result->log[0]->inline_sealed.data,
                                result->log[0]->inline_sealed.len, &text),
                     0);
    assert_int_equal(text.size, made->log.size);
    assert_memory_equal(text.data, made->log.data, text.size);
}

static void a_written_file_makes_a_success_with_its_log(void **state)
{
    struct made *made = *state;

    write_file(made, "out/frame", 100);
    make(made);
    assert_int_equal(made->task.spool.result->class_, CLASS_OK);
    assert_int_equal(made->task.spool.result->output_files, 1);
    expect_log(made);
}

/* The Result's manifest, from its references, inline or in the spool. */
static Wl__Manifest *read_back(struct made *made)
{
    const Wl__Result *result = made->task.spool.result;
    _cleanup_(bytes_deinit) struct bytes whole = {0}, why = {0};
    Wl__Manifest *manifest;

    for (size_t i = 0; i < result->n_manifest; i++) {
        const Wl__BlockRef *ref = result->manifest[i];
        _cleanup_(bytes_deinit) struct bytes sealed = {0}, body = {0};
        struct block_key key;

        assert_int_equal(wire_block_ref(made->sealer, made->task.key_out, ref, &key), 0);
        if (ref->inline_sealed.len > 0)
            bytes_append(&sealed, ref->inline_sealed.data, ref->inline_sealed.len);
        else
            assert_int_equal(spool_get(&made->task.spool, &key.id, false, &sealed), 0);
        assert_int_equal(open_block(made->sealer, &key, sealed.data, sealed.size, &body), 0);
        assert_int_equal(bytes_append(&whole, body.data, body.size), 0);
    }
    assert_int_equal(manifest_parse(whole.data, whole.size, &manifest, &why), 0);
    return manifest;
}

static void a_list_of_files_longer_than_a_block_is_several_blocks(void **state)
{
    struct made *made = *state;
    char name[256], path[320];
    Wl__Manifest *manifest;

    memset(name, 'n', 240);
    for (unsigned i = 0; i < 4000; i++) {
        int fd;

        snprintf(name + 240, sizeof(name) - 240, "%05u", i);
        snprintf(path, sizeof(path), "%s/%s", made->out, name);
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, &i, sizeof(i)), sizeof(i));
        close(fd);
    }
    make(made);
    assert_int_equal(made->task.spool.result->class_, CLASS_OK);
    assert_int_equal(made->task.spool.result->output_files, 4000);
    assert_true(made->task.spool.result->n_manifest > 1);
    manifest = read_back(made);
    assert_int_equal(manifest->n_files, 4000);
    assert_string_equal(manifest->files[3999]->path, name);
    wl__manifest__free_unpacked(manifest, NULL);
}

static void an_output_that_cannot_be_read_is_the_renderers_fault_and_is_named(void **state)
{
    struct made *made = *state;
    char path[256];

    write_file(made, "out/frame", 100);
    below(made, "out/frame", path);
    assert_int_equal(chmod(path, 0), 0);
    make(made);
    assert_int_equal(made->task.spool.result->class_, CLASS_RENDERER);
    assert_non_null(strstr(made->task.spool.result->message, "/out/frame: Permission denied"));
    assert_null(strstr(made->task.spool.result->message, "free space"));
    expect_log(made);
}

static void a_folder_that_cannot_be_listed_is_no_success(void **state)
{
    struct made *made = *state;
    char path[256];

    write_file(made, "out/frame", 100);
    below(made, "out/d", path);
    assert_int_equal(mkdir(path, 0300), 0);
    make(made);
    assert_int_equal(made->task.spool.result->class_, CLASS_RENDERER);
    assert_non_null(strstr(made->task.spool.result->message, "/out/d cannot be read"));
    expect_log(made);
}

static void a_spool_that_cannot_be_written_is_the_workers_fault(void **state)
{
    struct made *made = *state;
    char path[256];

    write_file(made, "out/frame", 100);
    below(made, "spool", path);
    assert_int_equal(mkdir(path, 0500), 0);
    make(made);
    assert_int_equal(made->task.spool.result->class_, CLASS_TRANSFER);
    assert_non_null(strstr(made->task.spool.result->message, "cannot be kept on the worker"));
    expect_log(made);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_written_file_makes_a_success_with_its_log),
        CASE(a_list_of_files_longer_than_a_block_is_several_blocks),
        CASE(an_output_that_cannot_be_read_is_the_renderers_fault_and_is_named),
        CASE(a_folder_that_cannot_be_listed_is_no_success),
        CASE(a_spool_that_cannot_be_written_is_the_workers_fault),
    };

    /* Nothing is forbidden to root. */
    if (geteuid() == 0 &&
        (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
